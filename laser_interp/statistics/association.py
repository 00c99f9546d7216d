"""Do the gains fall on rare facts? Frames in, frames out.

A gain in accuracy is high wherever the accuracy before was low, so the paper's own plots appear even
where an edit ignores frequency. What it does to rare facts is therefore asked where it can be told:
among the answers that were wrong before, how many are fixed; among those right before, how many are
broken. Intervals resample subjects, because a subject's facts and paraphrases stand or fall together.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER_BINS = (0, 50, 1000, np.inf)  # section 5.1
POWER = 0.8
_LEVEL = 0.95
_HALF = float(np.log(0.5))

# What each regression asks: the outcome, and among which prompts.
_MODELS: dict[str, tuple[str, str]] = {
    "frequency": ("fixed", "wrong before"),
    "confounders": ("fixed", "wrong before"),
    "pmi": ("fixed", "wrong before"),
    "broken": ("broken", "right before"),
    "accuracy": ("right", "all"),
}


@dataclass(frozen=True)
class Association:
    """What was found about one edit, or, without one, about a model.

    Attributes:
        rows: one row per (fact, prompt): before and after, and the counts.
        bins: equal-count bins of frequency (facts never seen in a bin of their own): accuracy before and
            after, P(fixed | wrong before), P(broken | right before), each with a 95 % interval.
        cumulative: the paper's first plot: accuracy on facts of frequency ≤ N, before and after.
        paper_ratio: the paper's second plot: corrected ÷ originally correct in its three bins.
        spearman: rank correlations with frequency, over facts: of the change in top-1, of the change
            in log-probability (where there is one), of being fixed among those wrong before, of being
            broken among those right before, or, without an edit, of accuracy; each with a 95 % interval, and
            with the p-value of permuting the frequencies.
        regression: logistic regressions with an effect of each relation and errors clustered by subject, one
            row per (model, term). "frequency": fixed, among prompts wrong before, on log10(1 + n_both);
            "confounders": the same with log n_subject and log n_object; "pmi": fixed on the pointwise mutual
            information of subject and object instead; "broken": broken, among prompts right before; without
            an edit, "accuracy": right. Relations in which all or no prompts have the outcome hold nothing
            about frequency and are left out (`n`: prompts used). A model that cannot be estimated is missing;
            `regression.attrs["problems"]` says why.
        relations: one row per relation: prompts, accuracy before and after, fixed and broken, and the rank
            correlation of being fixed with frequency within it: whether one relation carries the result.
        change: of top-1 accuracy: estimate, lo, hi; None without an edit.
        baseline, edit: the labels compared; `edit` is None where accuracy alone is described.
        n_facts, n_subjects: how many.
        threshold: whether "right" was read off a probability above one half, for want of anything better.
    """

    rows: pd.DataFrame
    bins: pd.DataFrame
    cumulative: pd.DataFrame
    paper_ratio: pd.DataFrame
    spearman: pd.DataFrame
    regression: pd.DataFrame
    relations: pd.DataFrame
    change: tuple[float, float, float] | None
    baseline: str
    edit: str | None
    n_facts: int
    n_subjects: int
    threshold: bool = False

    @property
    def p_value(self) -> float:
        """Of the association of *fixed, given wrong before* with frequency (the regression's model
        "frequency"); without an edit, of accuracy with frequency; NaN if not estimable."""
        row = self._term("frequency" if self.edit is not None else "accuracy")
        return float("nan") if row is None else float(row["p"])

    def _term(self, model: str) -> pd.Series | None:
        term = "pmi" if model == "pmi" else "log10_n_both"
        rows = self.regression[(self.regression["model"] == model) & (self.regression["term"] == term)]
        return None if rows.empty else rows.iloc[0]

    def detectable(self, model: str = "frequency", power: float = POWER) -> float:
        """The odds ratio per tenfold frequency (or its inverse) that a sample like this one shows at the 5 % level
        with this power; NaN where the model could not be estimated."""
        from scipy.stats import norm

        row = self._term(model)
        if row is None:
            return float("nan")
        return float(np.exp((norm.ppf(1 - (1 - _LEVEL) / 2) + norm.ppf(power)) * row["se"]))

    @cached_property
    def table(self) -> pd.DataFrame:
        """Everything that was estimated, one row each, as `quantity, among, adjusted_for, estimate, lo, hi, p, n`.

        Intervals are at 95 %. Odds ratios are per tenfold frequency (of PMI: per unit, in nats).
        """
        rows: list[dict[str, Any]] = []

        def add(quantity: str, among: str, adjusted: str, values: Sequence[float], p: float, n: float) -> None:
            estimate, lo, hi = values
            rows.append(
                {"quantity": quantity, "among": among, "adjusted_for": adjusted}
                | {"estimate": estimate, "lo": lo, "hi": hi, "p": p, "n": int(n)}
            )

        if self.change is not None:
            add("change in accuracy", "all", "", self.change, np.nan, len(self.rows))
        for name, row in self.spearman.iterrows():
            told, among = _CORRELATED[str(name)]
            add(f"Spearman, {told}", among, "", (row["rho"], row["lo"], row["hi"]), row["p_permuted"], row["n"])
        for model, (outcome, among) in _MODELS.items():
            row = self._term(model)
            if row is None:
                continue
            of = " per unit of PMI" if model == "pmi" else " per tenfold frequency"
            adjusted = "relation, subject and object frequency" if model == "confounders" else "relation"
            values = (row["odds_ratio"], row["odds_lo"], row["odds_hi"])
            add(f"odds ratio of {outcome}{of}", among, adjusted, values, row["p"], row["n"])
            if model in ("frequency", "accuracy"):
                least = (self.detectable(model), np.nan, np.nan)
                add(f"least odds ratio shown with power {POWER:g}", among, adjusted, least, np.nan, row["n"])
        return pd.DataFrame(rows)

    @cached_property
    def figure(self) -> Figure:
        """The paper's two plots, and what can be told, fixed and broken by frequency; without an edit, accuracy."""
        from laser_interp.plots import figures as plots

        with plots.paper_style():
            if self.edit is None:
                return plots.accuracy_by_frequency(self.bins)
            return plots.rare_facts(self.bins, self.cumulative, self.paper_ratio)

    @cached_property
    def paragraph(self) -> str:
        """What was found, in plain English, with its uncertainty."""
        s = self.spearman
        over = f"Over {self.n_facts} facts of {self.n_subjects} subjects"
        if self.edit is None:
            sentences = [
                f"{over}, accuracy correlates with training frequency at Spearman {_interval(s.loc['accuracy'])}: "
                + _direction(s.loc["accuracy"], "frequent facts are known less well", "frequent facts are known better")
                + ".",
                *self._odds("accuracy", "an answer being right", ""),
                self._power("accuracy"),
            ]
            return " ".join(one for one in sentences if one)
        assert self.change is not None
        change, lo, hi = (100 * value for value in self.change)
        sentences = [
            f"{over}, accuracy changes by {change:+.1f} points [{lo:+.1f}, {hi:+.1f}].",
            f"The change in top-1 accuracy correlates with training frequency at Spearman {_interval(s.loc['top1'])}: "
            + _direction(s.loc["top1"], "the gains fall on rare facts", "the gains fall on frequent facts")
            + ", the pattern of the paper's plots"
            + ".",
        ]
        if "logprob" in s.index:
            sentences.append(
                f"For the change in log-probability it is {_interval(s.loc['logprob'])}: "
                + _direction(s.loc["logprob"], "rare facts gain more", "frequent facts gain more")
                + "."
            )
        if self.threshold:
            sentences.append(
                "An answer counts as right here where its probability is above one half, which is certain to be the "
                "most probable; with top-1 given, more would be."
            )
        if "fixed" in s.index:
            sentences.append(
                "Accuracy can only rise where it was low, so the fairer question is which of the wrong answers are "
                "fixed: among prompts wrong before, being fixed correlates with frequency at "
                f"{_interval(s.loc['fixed'])}: "
                + _direction(s.loc["fixed"], "rare ones are fixed more often", "frequent ones are fixed more often")
                + "."
            )
        sentences += self._odds("frequency", "a wrong answer being fixed", "")
        sentences += self._odds(
            "confounders", "a wrong answer being fixed", ", with subject and object frequency held fixed,"
        )
        row = self._term("pmi")
        if row is not None:
            sentences.append(
                "With pointwise mutual information in place of frequency the odds ratio is "
                f"{row['odds_ratio']:.2f} [{row['odds_lo']:.2f}, {row['odds_hi']:.2f}] per unit (p = {row['p']:.2g})."
            )
        row = self._term("broken")
        if row is not None:
            sentences.append(
                f"Of a right answer being broken it is {row['odds_ratio']:.2f} "
                f"[{row['odds_lo']:.2f}, {row['odds_hi']:.2f}] per tenfold frequency (p = {row['p']:.2g})."
            )
        sentences.append(self._power("frequency"))
        sentences.append(
            "This is an association: facts that differ in frequency differ in other things, and none of it says that "
            "frequency is the cause."
        )
        return " ".join(one for one in sentences if one)

    def _odds(self, model: str, of: str, told: str) -> list[str]:
        row = self._term(model)
        if row is not None:
            return [
                f"In a logistic regression{told} tenfold frequency multiplies the odds of {of} "
                f"by {row['odds_ratio']:.2f} [{row['odds_lo']:.2f}, {row['odds_hi']:.2f}] "
                f"(p = {row['p']:.2g}): "
                + ("an association" if row["p"] < 1 - _LEVEL else "no association that this sample can show")
                + "."
            ]
        problem = self.regression.attrs.get("problems", {}).get(model)
        return [f"The logistic regression{told} could not be estimated: {problem}."] if problem else []

    def _power(self, model: str) -> str:
        least = self.detectable(model)
        if not np.isfinite(least):
            return ""
        return (
            f"A sample of this size and spread shows an odds ratio of {least:.2f} or more per tenfold frequency (or "
            f"{1 / least:.2f} or less) in {POWER:.0%} of cases; it could well have missed a smaller one."
        )

    def _repr_html_(self) -> str:
        return f"<p>{self.paragraph}</p>{self.table.round(3).to_html(index=False)}"


_CORRELATED = {
    "top1": ("change in accuracy with frequency", "all"),
    "logprob": ("change in log-probability with frequency", "all"),
    "fixed": ("fixed with frequency", "wrong before"),
    "broken": ("broken with frequency", "right before"),
    "accuracy": ("accuracy with frequency", "all"),
}


def _interval(row: Any) -> str:
    return f"{row['rho']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]"


def _direction(row: Any, negative: str, positive: str) -> str:
    if not (np.isfinite(row["lo"]) and np.isfinite(row["hi"])) or row["lo"] <= 0 <= row["hi"]:
        return "no association that this sample can show"
    return negative if row["rho"] < 0 else positive


@dataclass(frozen=True)
class Gain:
    """Change of top-1 accuracy by an edit, with a 95 % interval from a bootstrap over subjects.

    Attributes:
        change, lo, hi: of the share of prompts answered right, after minus before.
        n_fixed, n_broken, n: prompts.
    """

    change: float
    lo: float
    hi: float
    n_fixed: int
    n_broken: int
    n: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval lies above zero."""
        return self.lo > 0

    def __str__(self) -> str:
        told = "a gain" if self.is_shown else "a loss" if self.hi < 0 else "no gain that this sample can show"
        return (
            f"top-1 changes by {100 * self.change:+.1f} points [{100 * self.lo:+.1f}, {100 * self.hi:+.1f}] over "
            f"{self.n} prompts ({self.n_fixed} fixed, {self.n_broken} broken): {told}"
        )


def gain(
    scores: pd.DataFrame, *, baseline: str = "base", edit: str = "laser", n_boot: int = 1000, seed: int = 0
) -> Gain:
    """How much an edit gains, and whether the sample can show it.

    Args:
        scores: from `li.score`; where it holds a split named "test", only that is used.

    Raises:
        ValueError: see `pair`.
    """
    rows = pair(_reported(scores).assign(frequency=0.0), None, baseline=baseline, edit=edit)
    before, after = rows["top1_before"].to_numpy(bool), rows["top1_after"].to_numpy(bool)
    change, lo, hi = _change(rows, SubjectBootstrap(rows["subject"], n_boot, seed), _LEVEL)
    return Gain(change, lo, hi, int((after & ~before).sum()), int((before & ~after).sum()), len(rows))


def _reported(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows that may be reported: the test half, where there is one, because the edit was chosen on the rest."""
    return scores[scores["split"] == "test"] if "test" in set(scores["split"]) else scores


def pair(scores: pd.DataFrame, counts: pd.DataFrame | None, *, baseline: str, edit: str) -> pd.DataFrame:
    """One row per (fact, prompt): scores before and after, joined with the counts.

    Without counts, the `frequency` that the fact set carries stands for `n_both`.

    Raises:
        ValueError: an unknown label, facts without a count, or two labels scored on different prompts.
    """
    have = sorted(set(scores["edit"]))
    for label in (baseline, edit):
        if label not in have:
            raise ValueError(f"no scores of the edit {label!r}: the table has {have}")
    keys = ["fact_id", "prompt_id"]
    values = ["top1", "top10", "logprob"]
    before = scores.loc[scores["edit"] == baseline, [*keys, "subject", "relation", "frequency", *values]]
    after = scores.loc[scores["edit"] == edit, [*keys, *values]]
    for name, frame in ((baseline, before), (edit, after)):
        if frame.duplicated(keys).any():
            raise ValueError(f"the scores of {name!r} hold a prompt more than once: score each edit once")
    rows = before.merge(after, on=keys, how="outer", suffixes=("_before", "_after"), indicator=True)
    if (unmatched := int((rows["_merge"] != "both").sum())) > 0:
        raise ValueError(
            f"{unmatched} prompts were scored under one of {baseline!r} and {edit!r} only: score both alike"
        )
    rows = rows.drop(columns="_merge")
    if counts is None:
        rows["n_both"] = rows["frequency"]
    else:
        # Another source may not know how often the names occur alone.
        columns = ["fact_id", *(c for c in _COUNTED if c in counts.columns and not counts[c].isna().all())]
        if "n_both" not in columns:
            raise ValueError(f"the counts have no column 'n_both': they have {', '.join(counts.columns)}")
        if counts["fact_id"].duplicated().any():
            raise ValueError("the counts hold a fact more than once: expected one row a fact_id")
        rows = rows.merge(counts[columns], on="fact_id", how="left")
    return _with_frequencies(rows.drop(columns="frequency"))


_COUNTED = ("n_both", "n_subject", "n_object")


def _with_frequencies(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, if every fact has its counts.

    Raises:
        ValueError: a count is missing, negative, or differs between the rows of a fact.
    """
    for column in [c for c in _COUNTED if c in rows.columns]:
        if (missing := rows.loc[rows[column].isna(), "fact_id"].unique()).size:
            what = "frequency" if column == "n_both" else column
            raise ValueError(f"no {what} for {missing.size} facts, {missing[0]!r} among them: count them, or drop them")
        rows[column] = rows[column].astype(float)
        if (rows[column] < 0).any() or not np.isfinite(rows[column]).all():
            raise ValueError(f"a frequency is negative or infinite ({column}): expected counts")
        if (rows.groupby("fact_id")[column].nunique() > 1).any():
            raise ValueError(f"the rows of a fact differ in {column}: expected one count a fact")
    return rows


def frequency_bins(n_both: pd.Series, n_bins: int) -> pd.Series:
    """Bin number of each fact: 0 for never seen, then bins of about equal numbers of facts.

    Equal counts never straddle an edge, so ties may make bins unequal or fewer.
    """
    seen = n_both[n_both > 0]
    if seen.empty:
        return pd.Series(0, index=n_both.index)
    edges = np.unique(np.quantile(np.log1p(seen), np.linspace(0, 1, n_bins + 1)[1:-1]))
    return pd.Series(np.where(n_both > 0, 1 + np.searchsorted(edges, np.log1p(n_both), side="left"), 0), n_both.index)


class SubjectBootstrap:
    """Draws of subjects with replacement, the same for everything that is estimated."""

    def __init__(self, subjects: pd.Series, n_boot: int, seed: int) -> None:
        self.codes, labels = pd.factorize(subjects)
        self.n = len(labels)
        rng = np.random.default_rng(seed)
        self.draws = rng.integers(self.n, size=(n_boot, self.n))
        self.weights = np.zeros((n_boot, self.n))
        np.add.at(self.weights, (np.arange(n_boot)[:, None], self.draws), 1)

    def rate(self, hit: np.ndarray, among: np.ndarray) -> tuple[float, float, float]:
        """Share of hits among the chosen rows, and its 95 % interval.

        Where nothing or everything was hit, resampling sees no spread; the exact binomial bound on
        the number of subjects is given instead.
        """
        return self.rates([(hit, among)])[0]

    def rates(self, asked: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, float, float]]:
        """`rate` of each (hit, among)."""
        hits = np.stack([np.bincount(self.codes, weights=h & a, minlength=self.n) for h, a in asked], axis=1)
        sizes = np.stack([np.bincount(self.codes, weights=a, minlength=self.n) for _, a in asked], axis=1)
        with np.errstate(invalid="ignore"):
            draws = (self.weights @ hits) / (self.weights @ sizes)
        out = []
        for hit, size, drawn in zip(hits.T, sizes.T, draws.T, strict=True):
            if size.sum() == 0:
                out.append((np.nan, np.nan, np.nan))
                continue
            share = float(hit.sum() / size.sum())
            if share in (0.0, 1.0):
                slack = 1 - 0.025 ** (1 / np.count_nonzero(size))
                out.append((share, max(0.0, share - slack), min(1.0, share + slack)))
                continue
            drawn = drawn[np.isfinite(drawn)]
            lo, hi = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
            out.append((share, float(lo), float(hi)))
        return out

    def mean(self, values: np.ndarray) -> tuple[float, float, float]:
        """Mean of the finite values, and its 95 % interval; NaN where there are none."""
        there = np.isfinite(values)
        sums = np.bincount(self.codes, weights=np.where(there, values, 0.0), minlength=self.n)
        sizes = np.bincount(self.codes, weights=there, minlength=self.n)
        if not there.any():
            return float("nan"), float("nan"), float("nan")
        with np.errstate(invalid="ignore"):
            drawn = (self.weights @ sums) / (self.weights @ sizes)
        lo, hi = np.nanquantile(drawn, [0.025, 0.975])
        return float(sums.sum() / sizes.sum()), float(lo), float(hi)

    def correlate(self, x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
        """Spearman's rho, its 95 % interval, and the p-value of permuting `x`."""
        members = [np.flatnonzero(self.codes == s) for s in range(self.n)]
        drawn = []
        for draw in self.draws:
            rows = np.concatenate([members[s] for s in draw])
            drawn.append(spearman(x[rows], y[rows]))
        finite = np.array(drawn)[np.isfinite(drawn)]
        lo, hi = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
        rho = spearman(x, y)
        rng = np.random.default_rng(seed)
        permuted = np.array([spearman(rng.permutation(x), y) for _ in range(len(self.draws))])
        p = (1 + np.sum(np.abs(permuted) >= abs(rho) - 1e-12)) / (1 + len(permuted)) if np.isfinite(rho) else np.nan
        return {"rho": rho, "lo": float(lo), "hi": float(hi), "p_permuted": float(p), "n": float(len(x))}


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one side is constant, or there are fewer than three."""
    from scipy.stats import rankdata

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def associate(
    scores: pd.DataFrame,
    counts: pd.DataFrame | None = None,
    *,
    baseline: str = "base",
    edit: str = "laser",
    n_bins: int = 8,
    n_boot: int = 1000,
    seed: int = 0,
) -> Association:
    """Relate an edit's gains in score to how often training showed each fact.

    Args:
        scores: from `li.score`. Where it holds a split named "test", only that is used: the edit was
            chosen on the rest.
        counts: from `li.count` or any other source of counts; None takes the `frequency` of the fact set.
        baseline, edit: labels in `scores`.
        n_bins: bins of frequency, besides the one for facts never seen.
        n_boot, seed: of the bootstrap over subjects and the permutations.

    Raises:
        ValueError: see `pair`.
    """
    rows = pair(_reported(scores), counts, baseline=baseline, edit=edit)
    return _associated(rows, baseline, edit, n_bins, n_boot, seed)


def report(frame: pd.DataFrame, *, n_bins: int = 8, n_boot: int = 1000, seed: int = 0) -> Association:
    """The report on scores that are not ours: another model, another edit, another program.

    Args:
        frame: one row a fact, or one a prompt of a fact, with `fact_id, subject, relation, before, after, n_both`
            and optionally `n_subject, n_object`. `before` and `after` are 0/1 (or booleans), or both natural
            log-probabilities of the right answer: then "right" is a probability above one half. Without
            `after`, accuracy by frequency is described. A column `split` with a value "test" restricts
            the report to those rows.
        n_bins, n_boot, seed: see `associate`.

    Raises:
        ValueError: a missing column or value, scores that are neither, or counts that are none.
    """
    has_after = "after" in frame.columns
    needed = ["fact_id", "subject", "relation", "before", "n_both"]
    if missing := [c for c in needed if c not in frame.columns]:
        raise ValueError(
            f"the frame has no column {', '.join(missing)}: it has {', '.join(map(str, frame.columns))}, and needs "
            f"{', '.join(needed)}, and after if there is an edit"
        )
    if "split" in frame.columns:
        frame = _reported(frame)
    if frame.empty:
        raise ValueError("the frame is empty: expected one row a fact")
    values = ["before", "after"] if has_after else ["before"]
    for column in ("fact_id", "subject", "relation", *values):
        if (bad := frame[column].isna()).any():
            raise ValueError(
                f"{column} is missing in row {int(bad.to_numpy().argmax()) + 1}: fill it in, or drop the row"
            )
    rows = frame[["fact_id", "subject", "relation"]].astype(str).reset_index(drop=True)
    for column in [c for c in _COUNTED if c in frame.columns and not (c != "n_both" and frame[c].isna().all())]:
        rows[column] = pd.to_numeric(frame[column], errors="coerce").astype(float).to_numpy()
    rows = _with_frequencies(rows)
    rows["prompt_id"] = rows.groupby("fact_id").cumcount()
    numbers = frame[values].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if np.isin(numbers, (0.0, 1.0)).all():
        right, threshold = numbers == 1, False
    elif (numbers <= 0).all():
        right, threshold = numbers > _HALF, True
    else:
        told = " and ".join(values)
        raise ValueError(
            f"{told} hold {numbers[~(np.isin(numbers, (0.0, 1.0)) | (numbers <= 0))][:1].tolist()}: expected 0/1 "
            "throughout, or natural log-probabilities (0 or below) throughout"
        )
    for i, name in enumerate(values):
        rows[f"top1_{name}"] = right[:, i]
        if threshold:
            rows[f"logprob_{name}"] = numbers[:, i]
    return _associated(rows, "before", "after" if has_after else None, n_bins, n_boot, seed, threshold=threshold)


def views(
    rows: pd.DataFrame, boot: SubjectBootstrap | None = None, *, n_bins: int = 8, n_boot: int = 1000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of a report alone, where many edits are looked at: `Association.bins` and `Association.cumulative`.

    Args:
        rows: one row per (fact, prompt) with `fact_id, subject, n_both, top1_before, top1_after`.
        boot: draws of these rows' subjects, to share among calls.
    """
    per_fact = rows.groupby("fact_id", sort=True)["n_both"].first()
    rows = rows.assign(bin=rows["fact_id"].map(frequency_bins(per_fact, n_bins)))
    return _binned(rows, boot or SubjectBootstrap(rows["subject"], n_boot, seed)), _cumulative(rows)


def _associated(
    rows: pd.DataFrame,
    baseline: str,
    edit: str | None,
    n_bins: int,
    n_boot: int,
    seed: int,
    *,
    threshold: bool = False,
) -> Association:
    if edit is not None:
        wrong = ~rows["top1_before"].to_numpy(bool)
        right_after = rows["top1_after"].to_numpy(bool)
        rows["fixed"] = wrong & right_after
        rows["broken"] = ~wrong & ~right_after
    per_fact = rows.groupby("fact_id", sort=True).agg(subject=("subject", "first"), n_both=("n_both", "first"))
    rows["bin"] = rows["fact_id"].map(frequency_bins(per_fact["n_both"], n_bins))
    boot = SubjectBootstrap(rows["subject"], n_boot, seed)
    return Association(
        rows=rows,
        bins=_binned(rows, boot),
        cumulative=_cumulative(rows),
        paper_ratio=_paper_ratio(rows),
        spearman=_correlations(rows, n_boot, seed),
        regression=_regression(rows),
        relations=_relations(rows),
        change=None if edit is None else _change(rows, boot, _LEVEL),
        baseline=baseline,
        edit=edit,
        n_facts=len(per_fact),
        n_subjects=int(rows["subject"].nunique()),
        threshold=threshold,
    )


def _change(rows: pd.DataFrame, boot: SubjectBootstrap, level: float) -> tuple[float, float, float]:
    """Of the share of prompts answered right: the estimate and its interval."""
    change = rows["top1_after"].to_numpy(float) - rows["top1_before"].to_numpy(float)
    total = np.bincount(boot.codes, weights=change, minlength=boot.n)
    size = np.bincount(boot.codes, minlength=boot.n)
    drawn = (boot.weights @ total) / (boot.weights @ size)
    lo, hi = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(change.mean()), float(lo), float(hi)


def _binned(rows: pd.DataFrame, boot: SubjectBootstrap) -> pd.DataFrame:
    before = rows["top1_before"].to_numpy(bool)
    after = rows["top1_after"].to_numpy(bool) if "top1_after" in rows else None
    out: list[dict[str, Any]] = []
    asked: list[tuple[np.ndarray, np.ndarray]] = []
    names = ["base_top1"] + ([] if after is None else ["edit_top1", "p_fixed_given_wrong", "p_broken_given_right"])
    for number, members in rows.groupby("bin", sort=True):
        inside = (rows["bin"] == number).to_numpy()
        out.append(
            {
                "lo": members["n_both"].min(),
                "hi": members["n_both"].max(),
                "n": len(members),
                "n_facts": members["fact_id"].nunique(),
                "n_wrong": int((inside & ~before).sum()),
            }
        )
        asked.append((before, inside))
        if after is not None:
            asked += [(after, inside), (after, inside & ~before), (~after, inside & before)]
    for i, rate in enumerate(boot.rates(asked)):
        name = names[i % len(names)]
        out[i // len(names)] |= {name: rate[0], f"{name}_lo": rate[1], f"{name}_hi": rate[2]}
    return pd.DataFrame(out)


def _cumulative(rows: pd.DataFrame) -> pd.DataFrame:
    metrics = [c for c in ("top1_before", "top1_after", "top10_before", "top10_after") if c in rows.columns]
    ordered = rows.sort_values("n_both", kind="stable")
    means = ordered[metrics].astype(float).cumsum().div(np.arange(1, len(ordered) + 1), axis=0)
    means["n_both"], means["n"] = ordered["n_both"], np.arange(1, len(ordered) + 1)
    return means.groupby("n_both", as_index=False).last()


def _paper_ratio(rows: pd.DataFrame) -> pd.DataFrame:
    label = pd.cut(rows["n_both"], PAPER_BINS, right=False, labels=["< 50", "50-1000", "> 1000"])
    if "fixed" not in rows.columns:
        return pd.DataFrame(columns=["frequency", "n", "n_corrected", "n_originally_correct", "ratio"])
    out = rows.groupby(label, observed=False).agg(
        n=("fixed", "size"), n_corrected=("fixed", "sum"), n_originally_correct=("top1_before", "sum")
    )
    out["ratio"] = out["n_corrected"] / out["n_originally_correct"].where(out["n_originally_correct"] > 0)
    return out.reset_index(names="frequency")


def _correlations(rows: pd.DataFrame, n_boot: int, seed: int) -> pd.DataFrame:
    """Over facts: a fact's prompts share its frequency, so each fact is one observation."""

    def over_facts(chosen: pd.DataFrame, values: Any) -> dict[str, float]:
        facts = (
            chosen.assign(value=np.asarray(values, float))
            .groupby("fact_id", sort=True)
            .agg(subject=("subject", "first"), n_both=("n_both", "first"), value=("value", "mean"))
        )
        facts = facts[np.isfinite(facts["value"])]
        boot = SubjectBootstrap(facts["subject"], n_boot, seed)
        return boot.correlate(facts["n_both"].to_numpy(float), facts["value"].to_numpy(float), seed + 1)

    if "top1_after" not in rows.columns:
        return pd.DataFrame({"accuracy": over_facts(rows, rows["top1_before"])}).T
    found = {"top1": over_facts(rows, rows["top1_after"].astype(float) - rows["top1_before"].astype(float))}
    if "logprob_after" in rows.columns:
        found["logprob"] = over_facts(rows, rows["logprob_after"] - rows["logprob_before"])
    right = rows["top1_before"].astype(bool)
    for name, chosen in (("fixed", rows[~right]), ("broken", rows[right])):
        if chosen["fact_id"].nunique() >= 3:
            found[name] = over_facts(chosen, chosen[name])
    return pd.DataFrame(found).T


def _relations(rows: pd.DataFrame) -> pd.DataFrame:
    out = []
    for relation, members in rows.groupby("relation", sort=True):
        row: dict[str, Any] = {
            "relation": relation,
            "n": len(members),
            "n_facts": members["fact_id"].nunique(),
            "median_n_both": float(members["n_both"].median()),
            "base_top1": float(members["top1_before"].mean()),
        }
        if "fixed" in members.columns:
            wrong = members[~members["top1_before"].astype(bool)]
            row |= {
                "edit_top1": float(members["top1_after"].mean()),
                "n_wrong": len(wrong),
                "n_fixed": int(members["fixed"].sum()),
                "n_broken": int(members["broken"].sum()),
                "spearman_fixed": spearman(wrong["n_both"].to_numpy(float), wrong["fixed"].to_numpy(float)),
            }
        out.append(row)
    return pd.DataFrame(out)


_REGRESSION = ["model", "term", "coefficient", "se", "p", "odds_ratio", "odds_lo", "odds_hi", "n", "n_left_out"]


def _regression(rows: pd.DataFrame, models: Sequence[str] | None = None, level: float = _LEVEL) -> pd.DataFrame:
    """See `Association.regression`.

    Args:
        models: which of them; None: all that the columns allow.
        level: of the intervals.
    """
    right = rows["top1_before"].astype(bool)
    among = {"wrong before": rows[~right], "right before": rows[right], "all": rows.assign(right=right)}
    known = {"n_subject", "n_object"} <= set(rows.columns)
    if models is None:
        with_edit = ["frequency", *(["confounders", "pmi"] if known else []), "broken"]
        models = with_edit if "fixed" in rows.columns else ["accuracy"]
    found, problems = [], {}
    for model in models:
        outcome, group = _MODELS[model]
        try:
            found.append(_logistic(among[group], outcome, group, model, level).assign(model=model))
        except ValueError as error:
            problems[model] = str(error)
    out = pd.concat(found, ignore_index=True)[_REGRESSION] if found else pd.DataFrame(columns=_REGRESSION)
    out.attrs["problems"] = problems
    return out


def _logistic(chosen: pd.DataFrame, outcome: str, group: str, model: str, level: float) -> pd.DataFrame:
    """One logistic regression.

    Raises:
        ValueError: it cannot be estimated; the message says why.
    """
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

    where = "" if group == "all" else f" {group}"
    if chosen[outcome].nunique() < 2:
        raise ValueError(
            f"of {len(chosen)} prompts{where}, {'all' if len(chosen) and chosen[outcome].any() else 'none'} "
            f"were {outcome}"
        )
    if chosen["n_both"].nunique() < 2:
        raise ValueError(f"all facts{where} have the same frequency")
    # A relation without both outcomes is fitted by its own effect, whatever the frequencies.
    share = chosen.groupby("relation")[outcome].transform("mean")
    used = chosen[(share > 0) & (share < 1)]
    if used.empty:
        raise ValueError(f"within each relation all or no prompts{where} were {outcome}")
    if used["subject"].nunique() < 3:
        raise ValueError(f"only {used['subject'].nunique()} subjects{where} can be compared")
    if model == "pmi":
        design = pd.DataFrame(
            {
                "pmi": np.log(used["n_both"] + 0.5)
                - np.log(used["n_subject"].clip(lower=1))
                - np.log(used["n_object"].clip(lower=1))
            }
        )
    else:
        design = pd.DataFrame({"log10_n_both": np.log10(1 + used["n_both"])})
    if model == "confounders":
        for column in ("n_subject", "n_object"):
            design[f"log_{column}"] = np.log(used[column].clip(lower=1))
    design = design.loc[:, design.nunique() > 1]
    relations = pd.get_dummies(used["relation"], prefix="relation", drop_first=True, dtype=float)
    design = sm.add_constant(pd.concat([design, relations], axis=1), has_constant="add")
    if np.linalg.matrix_rank(np.asarray(design)) < design.shape[1]:
        raise ValueError(f"frequencies and relations are collinear among the prompts{where}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", category=RuntimeWarning)
            warnings.simplefilter("error", category=PerfectSeparationWarning)
            fit = sm.GLM(used[outcome].astype(float), design, family=sm.families.Binomial()).fit(
                cov_type="cluster", cov_kwds={"groups": pd.factorize(used["subject"])[0]}, use_t=True
            )
    except (RuntimeWarning, PerfectSeparationWarning, np.linalg.LinAlgError) as error:
        raise ValueError(f"the fit did not converge ({error})") from error
    interval = fit.conf_int(alpha=1 - level)
    table = pd.DataFrame(
        {
            "coefficient": fit.params,
            "se": fit.bse,
            "p": fit.pvalues,
            "odds_ratio": np.exp(fit.params),
            "odds_lo": np.exp(interval[0]),
            "odds_hi": np.exp(interval[1]),
            "n": len(used),
            "n_left_out": len(chosen) - len(used),
        }
    )
    return table.reset_index(names="term")


@dataclass(frozen=True)
class Comparison:
    """Several edits on the same facts, with intervals that hold for all of them at once.

    Attributes:
        table: one row an edit: `edit, placebo`, the change of accuracy and the odds ratio of being fixed (given
            wrong before) per tenfold frequency, with intervals at 1 − 0.05 / number of edits (Bonferroni), `p`
            and `p_holm`, and `problem` where there is no odds ratio.
        baseline: what all are compared with.
    """

    table: pd.DataFrame
    baseline: str

    @property
    def paragraph(self) -> str:
        """What was found, in plain English."""
        m = len(self.table)
        placebo = self.table["placebo"]
        sentences = [f"Of {m} edits compared with {self.baseline!r}, with intervals that hold for all {m} at once:"]
        for told, rows in (("", self.table[~placebo]), ("placebo ", self.table[placebo])):
            for row in rows.to_dict("records"):
                odds = (
                    f"the odds of a wrong answer being fixed change by a factor of {row['odds_ratio']:.2f} "
                    f"[{row['odds_lo']:.2f}, {row['odds_hi']:.2f}] per tenfold frequency (Holm p = {row['p_holm']:.2g})"
                    if np.isfinite(row["odds_ratio"])
                    else f"no odds ratio can be estimated ({row['problem']})"
                )
                sentences.append(
                    f"{told}{row['edit']}: accuracy {100 * row['change']:+.1f} points "
                    f"[{100 * row['change_lo']:+.1f}, {100 * row['change_hi']:+.1f}]; {odds}."
                )
        return " ".join(sentences)

    @cached_property
    def figure(self) -> Figure:
        """Both estimates of each edit with their intervals."""
        from laser_interp.plots import figures as plots

        with plots.paper_style():
            return plots.compared_edits(self.table)

    def _repr_html_(self) -> str:
        return f"<p>{self.paragraph}</p>{self.table.round(3).to_html(index=False)}"


def compare(
    scores: pd.DataFrame,
    counts: pd.DataFrame | None = None,
    *,
    baseline: str = "base",
    edits: Sequence[str] | None = None,
    placebos: Sequence[str] = (),
    n_boot: int = 4000,
    seed: int = 0,
) -> Comparison:
    """Compare several edits, placebos among them, without letting the number of edits make findings.

    Args:
        scores, counts, baseline: see `associate`.
        edits: labels; None: all but the baseline.
        placebos: those of them that should show nothing, as random edits of equal norm.
        n_boot, seed: of the bootstrap over subjects.

    Raises:
        ValueError: see `pair`; a placebo that is not among the edits.
    """
    from statsmodels.stats.multitest import multipletests

    labels = list(edits) if edits is not None else [e for e in dict.fromkeys(scores["edit"]) if e != baseline]
    labels += [name for name in placebos if name not in labels and name in set(scores["edit"])]
    if not labels:
        raise ValueError(f"there is no edit to compare with {baseline!r}")
    if unknown := [name for name in placebos if name not in labels]:
        raise ValueError(f"no scores of the placebo {unknown[0]!r}: the table has {sorted(set(scores['edit']))}")
    level = 1 - (1 - _LEVEL) / len(labels)
    out = []
    for label in labels:
        rows = pair(_reported(scores), counts, baseline=baseline, edit=label)
        rows["fixed"] = ~rows["top1_before"].astype(bool) & rows["top1_after"].astype(bool)
        boot = SubjectBootstrap(rows["subject"], n_boot, seed)
        change, lo, hi = _change(rows, boot, level)
        fit = _regression(rows, ["frequency"], level)
        row: dict[str, Any] = {"edit": label, "placebo": label in placebos, "n": len(rows)}
        row |= {"change": change, "change_lo": lo, "change_hi": hi, "n_fixed": int(rows["fixed"].sum())}
        slope = fit[fit["term"] == "log10_n_both"].to_dict("records")
        kept = ("odds_ratio", "odds_lo", "odds_hi", "p")
        row |= {k: slope[0][k] for k in kept} if slope else dict.fromkeys(kept, np.nan)
        out.append(row | {"problem": fit.attrs["problems"].get("frequency", "")})
    table = pd.DataFrame(out)
    table["p_holm"] = np.nan
    estimated = table["p"].notna()
    if estimated.any():
        table.loc[estimated, "p_holm"] = multipletests(table.loc[estimated, "p"], method="holm")[1]
    return Comparison(table, baseline)
