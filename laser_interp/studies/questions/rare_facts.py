"""Do the gains fall on rare facts? Beside placebos, and with the frequencies permuted among the facts."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import pandas as pd

from laser_interp.edits.controls import CONTROLS
from laser_interp.statistics.association import associate
from laser_interp.statistics.comparison import Comparison, compare
from laser_interp.statistics.formatting import interval, p_value
from laser_interp.statistics.frequency_slope import MASKED_LOG_ODDS, frequency_slopes, log_odds_changes
from laser_interp.statistics.paired_scores import pair, reported
from laser_interp.statistics.sentences import is_shown
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer


class RareFacts(Answer):
    """How the change of each fact's score is related to its training frequency."""

    key = "by_frequency"
    title = "Do the gains fall on rare facts?"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        if context.counts is None:
            return None
        scores = counted_scores(context)
        found = associate(scores, context.counts, **context.permutations)
        compared = compared_edits(context, scores)
        tables = {
            "counts": context.counts,
            "rare_facts": found.table,
            "rare_facts_slopes": found.slopes,
            "rare_facts_sensitivity": found.sensitivity,
            "rare_facts_relations": found.relations,
            "rare_facts_bins": found.bins,
            "rare_facts_cumulative": found.cumulative,
            "rare_facts_paper_ratio": found.paper_ratio,
            "rare_facts_spearman": found.spearman.reset_index(names="of"),
            "rare_facts_effects": found.effects,
            "rare_facts_placebo": compared.table,
        }
        numbers = {
            "by_frequency": _by_frequency(found.bins),
            "frequency_in_words": found.paragraph,
            "compared_in_words": compared.paragraph,
            "slope_over_deleted": _over_deleted(context, scores),
            "slopes": {row["of"]: {k: row[k] for k in _SLOPE} for row in found.slopes.to_dict("records")},
            "missing_as_zero": _missing_as_zero(context),
            "blind_edit": dict(found.blind or {}),
            "sensitivity": found.sensitivity.to_dict("records"),
            "spearman": _spearman(tables["rare_facts_spearman"]),
            "counts": _against_known(context),
        }
        return cls(tables, numbers)

    def lines(self) -> Sequence[str]:
        lines = [
            self.numbers["frequency_in_words"],
            "",
            "| frequency | prompts | as trained | LASER | P(fixed given wrong) | P(broken given right) |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.tables["rare_facts_bins"].to_dict("records"):
            columns = ("base_top1", "edit_top1", "p_fixed_given_wrong", "p_broken_given_right")
            rates = " | ".join(interval(row[c], row[f"{c}_lo"], row[f"{c}_hi"], ".2f") for c in columns)
            lines.append(f"| {row['lo']:.0f}–{row['hi']:.0f} | {row['n']} | {rates} |")
        text = _sensitivity(self.numbers["sensitivity"]).lstrip()
        zeros = self.numbers["missing_as_zero"]
        if zeros:
            slope = interval(zeros["slope"], zeros["lo"], zeros["hi"], "+.3f")
            text += (
                f" {zeros['n_missing']} test facts have no count; their source does not tell whether it searched for "
                f"them. They are left out above; if all of them were counted as 0, the slope would be {slope} nats."
            )
        counts = self.numbers["counts"]
        if counts["matched"] + counts["mismatched"]:
            text += (
                f" The counts equal the frequencies in the fact file for {counts['matched']} facts and differ for "
                f"{counts['mismatched']}."
            )
        beside = f"Beside other edits: {self.numbers['compared_in_words']}"
        if over := self.numbers["slope_over_deleted"]:
            slope = interval(over["slope"], over["lo"], over["hi"], "+.3f")
            beside += (
                " Compared with deleting the matrix, the edit changes log-odds by "
                f"{slope} nats per tenfold frequency, generic words forbidden ({p_value(over['p'])}): "
            )
            helped = "frequent" if over["slope"] > 0 else "rare"
            beside += f"what is kept helps {helped} facts more." if is_shown(over["p"]) else "no trend is shown."
        return [*lines, "", text, "", beside]


_SLOPE = ("slope", "lo", "hi", "p", "least_up", "least_down")


def counted_scores(context: StudyContext) -> pd.DataFrame:
    """Test scores of the facts that have a count; how many have none is noted."""
    assert context.counts is not None
    scores = context.scores
    counted = scores["fact_id"].isin(set(context.counts["fact_id"]))
    without, n_facts = scores.loc[~counted, "fact_id"].nunique(), scores["fact_id"].nunique()
    if without:
        context.notes.append(
            f"{without} of {n_facts} test facts have no count: the analysis of frequency leaves them out"
        )
    return scores[counted].reset_index(drop=True)


def compared_edits(context: StudyContext, scores: pd.DataFrame) -> Comparison:
    """The same question asked of deleting the matrix, and of random edits of equal norm, which should show nothing."""
    random = [
        label
        for label in dict.fromkeys(scores["edit"])
        if (control := CONTROLS.get(str(label).partition("/")[0])) is not None and control.is_placebo
    ]
    deleted = [label for label in ("zeroed",) if label in set(scores["edit"])]
    return compare(scores, context.counts, edits=["laser", *deleted, *random], placebos=random, **context.permutations)


def _over_deleted(context: StudyContext, scores: pd.DataFrame) -> dict[str, Any]:
    """The slope of the log-odds that the edit has over deleting the matrix, generic words forbidden; {} where that is
    not known."""
    if "zeroed" not in set(scores["edit"]):
        return {}
    rows = pair(reported(scores), context.counts, baseline="zeroed", edit="laser")
    change = log_odds_changes(rows)
    if MASKED_LOG_ODDS not in change:
        return {}
    row = frequency_slopes(rows, {MASKED_LOG_ODDS: change[MASKED_LOG_ODDS]}, **context.permutations).iloc[0]
    return {} if row["problem"] else {name: row[name] for name in _SLOPE}


def _missing_as_zero(context: StudyContext) -> dict[str, Any]:
    """The slope of log p(answer) if facts without a count were never seen; {} where every fact has a count."""
    assert context.counts is not None
    scores, known = context.scores, set(context.counts["fact_id"])
    missing = sorted(set(scores["fact_id"]) - known)
    if not missing:
        return {}
    zeros = pd.concat([context.counts[["fact_id", "n_both"]], pd.DataFrame({"fact_id": missing, "n_both": 0})])
    rows = pair(reported(scores), zeros, baseline="base", edit="laser")
    change = {"whole": rows["logprob_after"].to_numpy(float) - rows["logprob_before"].to_numpy(float)}
    row = frequency_slopes(rows, change, **context.permutations).iloc[0]
    return {"n_missing": len(missing)} | {name: row[name] for name in _SLOPE}


def _sensitivity(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the counts would have to be like for the slope to mean something else."""
    errors = [row for row in rows if row["assumption"] == "error in the counts"]
    alone = [row for row in rows if row["assumption"] != "error in the counts"]
    told = ""
    if errors:
        worst = errors[-1]
        told += (
            f" If the counts were wrong by {worst['size']:g} decades (standard deviation), the slope without that "
            f"error would be {worst['slope']:+.3f} nats."
        )
    if alone:
        told += (
            f" A slope of {alone[0]['slope']:+.3f} nats per tenfold popularity of the subject alone would give the "
            "same slope of frequency."
        )
    return told


def _by_frequency(bins: pd.DataFrame) -> list[dict[str, Any]]:
    renamed = bins.rename(columns={"edit_top1": "laser_top1"})
    columns = ["lo", "hi", "n", "base_top1", "laser_top1", "p_fixed_given_wrong", "p_broken_given_right"]
    rows: list[dict[Any, Any]] = renamed[columns].to_dict("records")
    return rows


def _spearman(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {str(row["of"]): {k: row[k] for k in ("rho", "lo", "hi", "p")} for row in table.to_dict("records")}


def _against_known(context: StudyContext) -> dict[str, int]:
    """Counts beside the frequencies that the facts carry, where they carry some."""
    assert context.counts is not None
    known = {fact.fact_id: fact.frequency for fact in context.facts if fact.frequency is not None}
    counts = zip(context.counts["fact_id"], context.counts["n_both"], strict=True)
    both = [(n, known[i]) for i, n in counts if i in known]
    return {"matched": sum(n == k for n, k in both), "mismatched": sum(n != k for n, k in both)}
