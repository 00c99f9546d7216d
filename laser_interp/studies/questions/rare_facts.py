"""Do the gains fall on rare facts? Beside placebos, and with the frequencies permuted among the facts."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import pandas as pd

from laser_interp.edits.controls import CONTROLS
from laser_interp.statistics.association import associate
from laser_interp.statistics.comparison import Comparison, compare
from laser_interp.statistics.formatting import interval, p_value, row_in_nats
from laser_interp.statistics.frequency_slope import LOG_ODDS, MASKED_LOG_ODDS, frequency_slopes, log_odds_changes
from laser_interp.statistics.paired_scores import pair
from laser_interp.statistics.sentences import is_shown, of_placebos
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
            "by_frequency": found.bins.rename(columns={"edit_top1": "laser_top1"})[list(_BINS)].to_dict("records"),
            "frequency_in_words": found.paragraph,
            "placebos_in_words": of_placebos(compared),
            "slope_over_deleted": _over_deleted(context, scores),
            "slopes": found.slopes.set_index("of")[list(_SLOPE)].to_dict("index"),
            "missing_as_zero": _missing_as_zero(context),
            "blind_edit": dict(found.blind or {}),
            "sensitivity": found.sensitivity.to_dict("records"),
            "spearman": found.spearman[["rho", "lo", "hi", "p"]].to_dict("index"),
            "counts": _against_known(context),
        }
        return cls(tables, numbers)

    def lines(self) -> Sequence[str]:
        lines = ["| slope per tenfold frequency, within relations | | p |", "|---|---|---|"]
        for of, row in self.numbers["slopes"].items():
            if of in _SHOWN and has_slope(row):
                scale, form = (100, "+.1f") if of.startswith("top") else (1, "+.3f")
                slope = interval(scale * row["slope"], scale * row["lo"], scale * row["hi"], form)
                lines.append(f"| {_SHOWN[of]} | {slope} | {p_value(row['p'])} |")
        told = "A share depends on where its threshold lies; nats do not."
        if zeros := self.numbers["missing_as_zero"]:
            slope = interval(zeros["slope"], zeros["lo"], zeros["hi"], "+.3f")
            told += (
                f" If the {zeros['n_missing']} test facts without a count were zeros, the slope of log p(answer) would "
                f"be {slope} nats."
            )
        if differ := self.numbers["counts"]["mismatched"]:
            told += f" The counts differ from the frequencies in the fact file for {differ} facts."
        return [*lines, "", f"{told} {self.numbers['placebos_in_words']}"]

    def page_words(self) -> Sequence[str]:
        return [found] if (found := self.finding()) else []

    def finding(self) -> str:
        slopes = self.numbers["slopes"]
        known = [(of, row) for of in (MASKED_LOG_ODDS, LOG_ODDS, "whole") if has_slope(row := slopes.get(of))]
        if not known:
            return ""
        of, row = known[0]
        what = "log-probability" if of == "whole" else "log-odds"
        forbidden = ", generic words forbidden," if of == MASKED_LOG_ODDS else ""
        found = (
            f"Rare facts: the change of the answer's {what}{forbidden} has a slope of {row_in_nats(row, 'slope')} per "
            f"tenfold frequency ({p_value(row['p'])}): {_favours(row)}."
        )
        if has_slope(over := self.numbers["slope_over_deleted"]):
            slope = f"{row_in_nats(over, 'slope')} ({p_value(over['p'])})"
            found += f" Compared with deleting the matrix, the edit's slope is {slope}: {_favours(over)}."
        return found


_SHOWN = {
    "whole": "log p(answer), nats",
    LOG_ODDS: "its log-odds",
    MASKED_LOG_ODDS: "…, generic words forbidden",
    "top1": "right answers (top-1), points",
    "top10": "top-10, points",
}
_SLOPE = ("slope", "lo", "hi", "p", "least_up", "least_down")
_BINS = ("lo", "hi", "n", "base_top1", "laser_top1", "p_fixed_given_wrong", "p_broken_given_right")


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
    return compare(scores, context.counts, edits=["laser", "zeroed", *random], placebos=random, **context.permutations)


def _over_deleted(context: StudyContext, scores: pd.DataFrame) -> dict[str, Any]:
    """The slope of the log-odds that the edit has over deleting the matrix, generic words forbidden; {} where that is
    not known."""
    rows = pair(scores, context.counts, baseline="zeroed", edit="laser")
    change = {MASKED_LOG_ODDS: log_odds_changes(rows)[MASKED_LOG_ODDS]}
    row = frequency_slopes(rows, change, **context.permutations).iloc[0]
    return {} if row["problem"] else {name: row[name] for name in _SLOPE}


def _missing_as_zero(context: StudyContext) -> dict[str, Any]:
    """The slope of log p(answer) if facts without a count were never seen; {} where every fact has a count."""
    assert context.counts is not None
    scores, known = context.scores, set(context.counts["fact_id"])
    missing = sorted(set(scores["fact_id"]) - known)
    if not missing:
        return {}
    zeros = pd.concat([context.counts[["fact_id", "n_both"]], pd.DataFrame({"fact_id": missing, "n_both": 0})])
    rows = pair(scores, zeros, baseline="base", edit="laser")
    change = {"whole": (rows["logprob_after"] - rows["logprob_before"]).to_numpy(float)}
    row = frequency_slopes(rows, change, **context.permutations).iloc[0]
    return {"n_missing": len(missing)} | {name: row[name] for name in _SLOPE}


def has_slope(row: Mapping[str, Any] | None) -> bool:
    """Whether a slope and its p-value could be computed."""
    return bool(row) and not pd.isna(row["slope"]) and not pd.isna(row["p"])


def _favours(row: Mapping[str, Any]) -> str:
    if is_shown(row["p"]):
        return f"it favours {'frequent' if row['slope'] > 0 else 'rare'} facts"
    return "no trend that this sample can show"


def _against_known(context: StudyContext) -> dict[str, int]:
    """Counts beside the frequencies that the facts carry, where they carry some."""
    assert context.counts is not None
    known = {fact.fact_id: fact.frequency for fact in context.facts if fact.frequency is not None}
    counts = zip(context.counts["fact_id"], context.counts["n_both"], strict=True)
    both = [(n, known[i]) for i, n in counts if i in known]
    return {"matched": sum(n == k for n, k in both), "mismatched": sum(n != k for n, k in both)}
