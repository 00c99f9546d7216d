"""Does an edit help rare facts more than frequent ones?

Accuracy can rise most where it was low. So plots like the paper's appear even for an edit that ignores frequency. The
question is therefore asked in two parts: of the answers that were wrong before, how many are fixed? Of those that were
right before, how many are broken?
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.choices import check_seed, whole_number
from laser_interp.display import Drawable, named_row
from laser_interp.statistics import sentences
from laser_interp.statistics.accuracy_change import AccuracyChange, accuracy_change
from laser_interp.statistics.blind_edit import against_blind_edit
from laser_interp.statistics.decomposition import changes_by_part
from laser_interp.statistics.frequency_bins import bin_numbers, binned, cumulative, paper_ratio
from laser_interp.statistics.frequency_effect import PERMUTATIONS, frequency_effects
from laser_interp.statistics.frequency_slope import LOG_ODDS, POWER, frequency_slopes, log_odds_changes, sensitivity
from laser_interp.statistics.paired_scores import HALF, Counts, count_columns, pair, reported, with_frequencies
from laser_interp.statistics.rank_correlation import spearman, spearman_over_facts

AS_GIVEN = "as given"
_WRITTEN_BOOLEANS = {"False": False, "false": False, "FALSE": False, "True": True, "true": True, "TRUE": True}
_CORRELATED = {
    "top1": ("change in accuracy with frequency", "all"),
    "logprob": ("change in log-probability with frequency", "all"),
    "fixed": ("fixed with frequency", "wrong before"),
    "broken": ("broken with frequency", "right before"),
    "accuracy": ("accuracy with frequency", "all"),
}


@dataclass(frozen=True, repr=False)
class Association(Drawable):
    """What was found about one edit, or, without one, about a model.

    Attributes:
        rows: one row per (fact, prompt): before and after, and the counts.
        bins: equal-count bins of frequency (facts never seen in a bin of their own): accuracy before and
            after, P(fixed | wrong before), P(broken | right before), each with a 95 % interval.
        cumulative: the paper's first plot: accuracy on facts of frequency ≤ N, before and after.
        paper_ratio: the paper's second plot: corrected ÷ originally correct in its three bins.
        spearman: rank correlations with frequency, over facts, within relations: of the change in top-1, of the change
            in log-probability (where there is one), of being fixed among those wrong before, of being
            broken among those right before, or, without an edit, of accuracy; each with a 95 % interval, and
            with the p-value of a permutation of subjects.
        effects: odds ratios per tenfold frequency (for PMI: per nat), within relations, one row per effect; see
            `laser_interp.statistics.frequency_effect`. "frequency": the odds of being fixed, among prompts wrong
            before; a threshold effect, beside which `blind` must stand. "margin": the same, with the margin before the
            edit held fixed. "pmi": the same, by pointwise mutual information of subject and object. "broken": the odds
            of being broken, among prompts right before. "accuracy" (without an edit): the odds of being right.
            `n_left_out` counts prompts of relations that say nothing: all or none of their prompts have the outcome, or
            their facts have one frequency. Where the data cannot answer, `problem` says why.
        slopes: the main result, one row an outcome: the slope per tenfold frequency within relations of the change of
            log p(answer) ("whole") and of each of its parts, in nats, of the answer's log-odds ("log_odds"), also with
            generic words forbidden on both sides ("masked_log_odds"), and of top-1, top-5 and top-10; see
            `laser_interp.statistics.frequency_slope`. No threshold can fake a slope in nats, no ceiling one of
            log-odds, and no generic word that with these forbidden.
        blind: the odds ratio of being fixed beside that of an edit that is blind to frequency; see
            `laser_interp.statistics.blind_edit`. None without an edit.
        relations: one row per relation: prompts, accuracy before and after, fixed and broken, and the rank
            correlation of being fixed with frequency within it: whether one relation carries the result.
        change: of top-1 accuracy; None without an edit.
        baseline, edit: the labels compared; `edit` is None where accuracy alone is described.
        n_facts, n_subjects: how many.
        unit, source: what was counted, and in which corpus.
        threshold: whether "right" means a probability above one half, because only log-probabilities were given.
    """

    rows: pd.DataFrame
    bins: pd.DataFrame
    cumulative: pd.DataFrame
    paper_ratio: pd.DataFrame
    spearman: pd.DataFrame
    effects: pd.DataFrame
    slopes: pd.DataFrame
    blind: Mapping[str, Any] | None
    relations: pd.DataFrame
    change: AccuracyChange | None
    baseline: str
    edit: str | None
    n_facts: int
    n_subjects: int
    unit: str = AS_GIVEN
    source: str = AS_GIVEN
    threshold: bool = False

    def __repr__(self) -> str:
        of = f"{self.edit!r} against {self.baseline!r}" if self.edit is not None else repr(self.baseline)
        return f"Association of {of}: {self.paragraph}"

    @property
    def figure_name(self) -> str:  # type: ignore[override]
        return "accuracy_by_frequency" if self.edit is None else "rare_facts"

    @property
    def figure_tables(self) -> dict[str, pd.DataFrame]:
        tables = {"bins": self.bins, "cumulative": self.cumulative, "paper_ratio": self.paper_ratio}
        if self.edit is not None:
            tables["slopes"] = self.slopes
        return {f"rare_facts_{name}": table for name, table in tables.items()}

    @property
    def p_value(self) -> float | None:
        """The p-value of the association of frequency with being fixed, among prompts wrong before; without an edit,
        with accuracy. None where the data cannot answer; `effects` then says why."""
        p = self.effect("frequency" if self.edit is not None else "accuracy")["p"]
        return None if pd.isna(p) else float(p)

    @cached_property
    def sensitivity(self) -> pd.DataFrame:
        """What would have to be true of the counts for the slope to mean something else; see
        `laser_interp.statistics.frequency_slope.sensitivity`."""
        main = self.slope(next(of for of in (LOG_ODDS, "whole", "top1") if of in set(self.slopes["of"])))
        return sensitivity(self.rows, float(main["slope"]))

    def effect(self, name: str) -> pd.Series:
        """One row of `effects`; a KeyError if it was not asked for."""
        return named_row(self.effects, "effect", name)

    def slope(self, name: str = "whole") -> pd.Series:
        """One row of `slopes`; a KeyError if it was not asked for."""
        return named_row(self.slopes, "of", name)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Everything that was estimated, one row each: `quantity, among, adjusted_for, estimate, lo, hi, p, n,
        problem`, and the `unit` and `source` of the counts.

        Intervals are at 95 %. Odds ratios are per tenfold frequency (of PMI: per unit, in nats).
        """
        rows: list[tuple[Any, ...]] = []
        if (change := self.change) is not None:
            ends = (change.lo, change.hi)
            rows.append(("change in accuracy", "all", "", change.change, *ends, change.p, len(self.rows), ""))
        for name, row in self.spearman.iterrows():
            what, among = _CORRELATED[str(name)]
            rows.append((f"Spearman, {what}", among, "", *row[["rho", "lo", "hi", "p", "n"]], ""))
        for row in self.slopes.fillna({"n_facts": 0}).to_dict("records"):
            of, n = f"slope of {row['of']} per tenfold frequency, {row['unit']}", row["n_facts"]
            slope = (row["slope"], row["lo"], row["hi"])
            rows.append((of, "all facts", "relation", *slope, row["p"], n, row["problem"]))
            of = f"{of}: least shown with power {POWER:g}"
            for least in (row["least_up"], row["least_down"]):
                rows.append((of, "all facts", "relation", least, np.nan, np.nan, np.nan, n, ""))
        for row in self.effects.to_dict("records"):
            of = (
                f"odds ratio of {row['outcome']} per {'unit of PMI' if row['effect'] == 'pmi' else 'tenfold frequency'}"
            )
            adjusted = "relation and margin before" if row["effect"] == "margin" else "relation"
            ratio, n = (row["odds_ratio"], row["odds_lo"], row["odds_hi"]), row["n_prompts"] - row["n_left_out"]
            rows.append((of, row["among"], adjusted, *ratio, row["p"], n, row["problem"]))
        columns = ["quantity", "among", "adjusted_for", "estimate", "lo", "hi", "p", "n", "problem"]
        table = pd.DataFrame(rows, columns=columns).astype({"n": int})
        return table.assign(unit=self.unit, source=self.source)

    @cached_property
    def paragraph(self) -> str:
        """What was found, in plain English, with its uncertainty."""
        return sentences.association(self)

    def _repr_html_(self) -> str:
        return f"<p>{self.paragraph}</p>{self.table.round(3).to_html(index=False)}"


def associate(
    scores: pd.DataFrame,
    counts: Counts | None = None,
    *,
    baseline: str = "base",
    edit: str = "laser",
    n_bins: int = 8,
    edges: Sequence[float] | None = None,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Association:
    """Relate an edit's gains in score to how often training showed each fact.

    Args:
        scores: from `li.score`. Where it holds a split named "test", only that is used: the edit was
            chosen on the rest.
        counts: from `li.count` or any other source: a table, or `n_both` by fact_id as a series or dict. None takes
            the `frequency` of the fact set.
        baseline, edit: labels in `scores`.
        n_bins: bins of frequency of about equal numbers of facts, besides the one for facts never seen.
        edges: where bins begin instead, as in `(0, 50, 1000)`.
        n_permutations, seed: of the permutations that move subjects.

    Raises:
        ValueError: see `pair`; edges that do not grow.

    Example:
        >>> found = li.associate(scores, counts)
        >>> print(found.paragraph)
    """
    rows = pair(reported(scores), counts, baseline=baseline, edit=edit)
    permuted = {"n_permutations": n_permutations, "seed": seed}
    return _associated(rows, baseline, edit, _unit_and_source(counts), n_bins, edges, permuted)


def _unit_and_source(counts: Counts | None) -> tuple[str, str]:
    """What was counted, and where, as the table of counts says."""
    if counts is None:
        return AS_GIVEN, "the fact file"
    table = counts if isinstance(counts, pd.DataFrame) else pd.DataFrame()
    said = [dict.fromkeys(map(str, table[c])) if c in table.columns else {} for c in ("unit", "corpus")]
    unit, corpus = (", ".join(names) or AS_GIVEN for names in said)
    return unit, corpus


def frequency_report(
    frame: pd.DataFrame,
    edges: Sequence[float] | None = None,
    *,
    n_bins: int = 8,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Association:
    """The report of `associate` on scores from elsewhere: from another model, another edit or another program.

    Args:
        frame: one row a fact, or one a prompt of a fact, with `fact_id, subject, relation, before, after, n_both`
            and optionally `n_subject, n_object`. `before` and `after` are 0/1 (or booleans), or both natural
            log-probabilities of the right answer: a probability above one half is then "right". Without
            `after`, accuracy by frequency is described. A column `split` with a value "test" restricts
            the report to those rows. `unit` and `corpus` say what was counted, and where.
        edges, n_bins, n_permutations, seed: see `associate`.

    Raises:
        ValueError: a missing column or value, scores of neither form, or counts that are negative or no numbers.

    Example:
        >>> rows = facts.to_frame()[["fact_id", "subject", "relation"]]
        >>> rows = rows.assign(before=[i % 2 for i in range(len(rows))], after=1, n_both=range(len(rows)))
        >>> print(li.frequency_report(rows).paragraph)
    """
    has_after = "after" in frame.columns
    needed = ["fact_id", "subject", "relation", "before", "n_both"]
    if missing := [c for c in needed if c not in frame.columns]:
        raise ValueError(
            f"the frame has no column {', '.join(missing)}: it has {', '.join(map(str, frame.columns))}, and needs "
            f"{', '.join(needed)}, and after if there is an edit"
        )
    if "split" in frame.columns:
        frame = reported(frame)
    if frame.empty:
        raise ValueError("the frame is empty: expected one row a fact")
    values = ["before", "after"] if has_after else ["before"]
    for column in ("fact_id", "subject", "relation", *values):
        if (bad := frame[column].isna()).any():
            raise ValueError(
                f"{column} is missing in row {int(bad.to_numpy().argmax()) + 1}: fill it in, or drop the row"
            )
    rows = frame[["fact_id", "subject", "relation"]].astype(str).reset_index(drop=True)
    for column in count_columns(frame):
        rows[column] = frame[column].to_numpy()
    rows = with_frequencies(rows)
    rows["prompt_id"] = rows.groupby("fact_id").cumcount()
    numbers = frame[values].replace(_WRITTEN_BOOLEANS).apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if np.isin(numbers, (0.0, 1.0)).all():
        right, threshold = numbers == 1, False
    elif (numbers <= 0).all():
        right, threshold = numbers > HALF, True
    else:
        raise ValueError(
            f"{' and '.join(values)} hold {numbers[~(np.isin(numbers, (0.0, 1.0)) | (numbers <= 0))][:1].tolist()}: "
            "expected 0/1 throughout, or natural log-probabilities (0 or below) throughout"
        )
    for i, name in enumerate(values):
        rows[f"top1_{name}"] = right[:, i]
        if threshold:
            rows[f"logprob_{name}"] = numbers[:, i]
    edit, permuted = "after" if has_after else None, {"n_permutations": n_permutations, "seed": seed}
    return _associated(rows, "before", edit, _unit_and_source(frame), n_bins, edges, permuted, threshold=threshold)


def _associated(
    rows: pd.DataFrame,
    baseline: str,
    edit: str | None,
    unit_and_source: tuple[str, str],
    n_bins: int,
    edges: Sequence[float] | None,
    permuted: Mapping[str, Any],
    *,
    threshold: bool = False,
) -> Association:
    check_seed("seed", permuted["seed"])
    whole_number("n_bins", n_bins, at_least=1)
    whole_number("n_permutations", permuted["n_permutations"], at_least=1)
    if edit is not None:
        wrong = ~rows["top1_before"].to_numpy(bool)
        right_after = rows["top1_after"].to_numpy(bool)
        rows["fixed"] = wrong & right_after
        rows["broken"] = ~wrong & ~right_after
    n_both = rows.groupby("fact_id")["n_both"].first()
    rows["bin"] = rows["fact_id"].map(bin_numbers(n_both, n_bins, edges))
    return Association(
        rows=rows,
        bins=binned(rows),
        cumulative=cumulative(rows),
        paper_ratio=paper_ratio(rows),
        spearman=_correlations(rows, permuted),
        effects=frequency_effects(rows, **permuted),
        slopes=frequency_slopes(rows, _outcomes(rows), **permuted),
        blind=None if edit is None else against_blind_edit(rows, **permuted),
        relations=_by_relation(rows),
        change=None if edit is None else accuracy_change(rows, seed=permuted["seed"]),
        baseline=baseline,
        edit=edit,
        n_facts=len(n_both),
        n_subjects=int(rows["subject"].nunique()),
        unit=unit_and_source[0],
        source=unit_and_source[1],
        threshold=threshold,
    )


def _correlations(rows: pd.DataFrame, permuted: Mapping[str, Any]) -> pd.DataFrame:
    """Over facts, within relations: a fact's prompts share its frequency, so each fact is one observation."""

    def over_facts(chosen: pd.DataFrame, values: Any) -> dict[str, float]:
        by_fact = chosen.assign(value=np.asarray(values, float)).groupby("fact_id")
        facts = by_fact[["n_both", "subject", "relation"]].first().assign(value=by_fact["value"].mean())
        facts = facts[facts["value"].notna()]  # infinite values have a rank
        columns = (facts[name].to_numpy() for name in ("n_both", "value", "subject", "relation"))
        return spearman_over_facts(*columns, **permuted)

    if "top1_after" not in rows.columns:
        return pd.DataFrame({"accuracy": over_facts(rows, rows["top1_before"])}).T
    found = {"top1": over_facts(rows, rows["top1_after"].astype(float) - rows["top1_before"].astype(float))}
    if "logprob_after" in rows.columns:
        before, after = (rows[f"logprob_{when}"].to_numpy(float) for when in ("before", "after"))
        with np.errstate(invalid="ignore"):  # −∞ twice is no change
            found["logprob"] = over_facts(rows, np.where(after == before, 0.0, after - before))
    right = rows["top1_before"].astype(bool)
    for name, chosen in (("fixed", rows[~right]), ("broken", rows[right])):
        if chosen["fact_id"].nunique() >= 3:
            found[name] = over_facts(chosen, chosen[name])
    return pd.DataFrame(found).T


def _outcomes(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """What may have a slope: the change of log p(answer) and of its parts, and of top-1, top-5 and top-10."""
    out: dict[str, np.ndarray] = {}
    if "logprob_after" in rows.columns:
        before, after = (rows[f"logprob_{when}"].to_numpy(float) for when in ("before", "after"))
        with np.errstate(invalid="ignore"):
            out = {"whole": after - before, **changes_by_part(rows), **log_odds_changes(rows)}
        known = np.isfinite(before) & np.isfinite(after)  # the whole and its parts are of the same facts
        out = {name: np.where(known, values, np.nan) for name, values in out.items()}
    for name in ("top1", "top5", "top10"):
        if f"{name}_after" in rows.columns:
            out[name] = rows[f"{name}_after"].to_numpy(float) - rows[f"{name}_before"].to_numpy(float)
    return out or {"top1": rows["top1_before"].to_numpy(float)}


def _by_relation(rows: pd.DataFrame) -> pd.DataFrame:
    by_relation = rows.groupby("relation")
    out = by_relation["fact_id"].agg(n="size", n_facts="nunique")
    out["median_n_both"] = by_relation["n_both"].median()
    out["base_top1"] = by_relation["top1_before"].mean()
    if "fixed" in rows.columns:
        wrong = ~rows["top1_before"].astype(bool)
        out["edit_top1"] = by_relation["top1_after"].mean()
        out["n_wrong"] = wrong.groupby(rows["relation"]).sum()
        out[["n_fixed", "n_broken"]] = by_relation[["fixed", "broken"]].sum()
        of_wrong = {name: some[["n_both", "fixed"]].to_numpy(float).T for name, some in rows[wrong].groupby("relation")}
        out["spearman_fixed"] = pd.Series({name: spearman(*both) for name, both in of_wrong.items()}, dtype=float)
    return out.reset_index()
