"""Does a change depend on frequency? Its slope per tenfold frequency, within relations, in nats or in points.

The slope is that of least squares on log10(1 + count) over facts, each relation with an intercept of its own. Its
p-value comes from permutations of subjects within relations, and its interval from the spread over subjects. A slope in
nats does not depend on where a threshold lies: a share of right answers can rise most for frequent facts although all
answers gain alike. A log-probability has a ceiling, though: an answer that is probable already has less room. So the
slope of the log-odds, log p - log(1 - p), which have none, stands beside it.

Log-odds have a trap of their own. If an edit only takes probability from generic words, an answer that has no other
rival gains most in log-odds, and this is more often a frequent one. So their slope is also asked with generic words
forbidden, without the edit and with it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import FEWEST, LEVEL, as_tested, student_quantile
from laser_interp.statistics.subject_permutation import (
    Comparable,
    Permutations,
    by_group,
    exchangeable,
    permuted_scores,
    score_and_spread,
)

POWER = 0.8
LOG_ODDS, MASKED_LOG_ODDS = "log_odds", "masked_log_odds"  # the second: with generic words forbidden
COLUMNS = ["of", "unit", "slope", "lo", "hi", "p", "least_up", "least_down", "n_facts", "n_relations", "problem"]


def frequency_slopes(
    rows: pd.DataFrame, outcomes: Mapping[str, np.ndarray], *, n_permutations: int, seed: int, level: float = LEVEL
) -> pd.DataFrame:
    """One row an outcome: its slope per tenfold frequency within relations.

    Args:
        rows: one row per (fact, prompt) with `fact_id, subject, relation, n_both`.
        outcomes: name -> one number a row; the mean over a fact's prompts counts.

    Returns:
        `of`, `unit` ("nats", or "share" of prompts), `slope, lo, hi, p`; `least_up` and `least_down`, the slopes above
        and below 0 that a sample like this one shows at 5 % with a power of 80 % (from the same permutations);
        `n_facts, n_relations`, and the `problem` where there is no slope.
    """
    facts = rows.groupby("fact_id")[["relation", "subject", "n_both"]].first()
    x = np.log10(1 + facts["n_both"].to_numpy(float))
    found: list[dict[str, Any]] = []
    asked: dict[str, Comparable] = {}
    for name, values in outcomes.items():
        mean = pd.Series(np.asarray(values, float)).groupby(rows["fact_id"].to_numpy(), sort=True).mean().to_numpy()
        found.append({"of": name, "unit": "share" if name.startswith("top") else "nats", "problem": ""})
        known = comparable_values(facts["relation"].to_numpy(), facts["subject"].to_numpy(), x, mean)
        if known is None:
            found[-1]["problem"] = (
                "no relation has facts of several frequencies"
                if np.isfinite(mean).any()
                else "the model gives no fact a probability that is neither 0 nor 1"
            )
        elif np.ptp(known.outcome) <= 1e-9:
            found[-1] |= {"slope": 0.0, "problem": "it is the same for all facts", "n_facts": len(known.x)}
        else:
            asked[name] = known
    permuted = permuted_scores(list(asked.values()), n_permutations, seed)
    for row in found:
        if row["of"] in asked:
            row |= _slope(asked[row["of"]], *permuted.pop(0), level)
    return pd.DataFrame(found).reindex(columns=COLUMNS)


def log_odds_changes(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """The change of an answer's log-odds in rows of `pair`, and then with generic words forbidden; each where it is
    known."""
    columns = {LOG_ODDS: "logprob", MASKED_LOG_ODDS: "generic_masked_logprob"}
    out = {}
    for name, column in columns.items():
        if f"{column}_after" in rows.columns:
            before, after = (log_odds(rows[f"{column}_{when}"].to_numpy(float)) for when in ("before", "after"))
            with np.errstate(invalid="ignore"):
                out[name] = after - before
    return out


def log_odds(logprob: np.ndarray) -> np.ndarray:
    """log p - log(1 - p) of log-probabilities; infinite where an answer is certain."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return logprob - np.log(-np.expm1(logprob))


def comparable_values(
    relation: np.ndarray, subject: np.ndarray, x: np.ndarray, values: np.ndarray
) -> Comparable | None:
    """Facts with a number each, those of relations with several frequencies; None if there are none."""
    finite = np.isfinite(values)
    relation, subject, x, values = relation[finite], subject[finite], x[finite], values[finite]
    kept = exchangeable(np.unique(relation, return_inverse=True)[1], subject, x)
    if kept is None:
        return None
    order, codes, subjects = kept
    x, values = x[order], values[order]
    equal = np.ones(len(x))
    means = by_group(codes, values) / by_group(codes, equal)
    return Comparable(codes, subjects, x, equal, values, equal, values - means[codes], len(x))


def _slope(facts: Comparable, scores: np.ndarray, spreads: np.ndarray, level: float) -> dict[str, Any]:
    x = facts.centred(facts.x, facts.weight)
    spread_of_x = float((x**2).sum())
    slope = float((facts.residual * x).sum() / spread_of_x)
    parts = by_group(facts.subject, (facts.residual - slope * x) * x)
    permutations = Permutations(*score_and_spread(facts), scores, spreads)
    row = {"slope": slope, "n_facts": len(x), "n_relations": facts.n_relations}
    n = facts.n_subjects
    if permutations.variance <= 0:
        return row | {"problem": "frequency does not differ between subjects that could be exchanged"}
    if (least := permutations.least_p) > 1 - level:
        return row | {"problem": f"even the most extreme arrangement of the frequencies would give p = {least:.2g}"}
    row["p"] = permutations.p
    if n < FEWEST:
        return row | {"problem": f"only {n} subjects: too few for an interval"}
    by_subject = float(np.sqrt((parts**2).sum() * n / (n - 1))) / spread_of_x
    by_chance = float(np.sqrt(permutations.variance)) / spread_of_x
    half_width = student_quantile(n, level) * max(by_subject, by_chance)
    lo, hi = as_tested(slope, slope - half_width, slope + half_width, rejects=row["p"] <= 1 - level)
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2]) / spread_of_x
    weak, strong = np.quantile(scores, [1 - POWER, POWER]) / spread_of_x
    return row | {"lo": lo, "hi": hi, "least_up": float(high - weak), "least_down": float(low - strong)}


ERRORS = (0.1, 0.2, 0.4, 0.6)  # standard deviations of log10(1 + count)


def sensitivity(rows: pd.DataFrame, slope: float) -> pd.DataFrame:
    """What would have to be true of the counts for a slope to mean something else.

    Counts are proxies of what training showed. With an error of standard deviation e in log10(1 + count), a slope is
    too small by the factor 1 - e² / v, where v is the variance within relations. And if the change depended on how
    popular the subject is, and on nothing else, then frequency would have a slope too, because both go together.

    Args:
        rows: as `frequency_slopes` takes them, with `n_subject` where it is known.
        slope: of the change, per tenfold frequency.

    Returns:
        One row an assumption: `assumption`, `size` (decades of error), and the `slope` that would be true: per tenfold
        frequency without error, or per tenfold popularity of the subject alone.
    """
    known = [c for c in ("n_both", "n_subject") if c in rows.columns]
    facts = rows.groupby("fact_id")[["relation", *known]].first()
    logs = pd.DataFrame({column: np.log10(1 + facts[column].astype(float)) for column in known})
    within = logs - logs.groupby(facts["relation"]).transform("mean")
    variance = float((within["n_both"] ** 2).mean())
    out = [
        {"assumption": "error in the counts", "size": error, "slope": slope / (1 - error**2 / variance)}
        for error in ERRORS
        if error**2 < variance
    ]
    if "n_subject" in within and variance > 0:
        together = float((within["n_both"] * within["n_subject"]).mean()) / variance
        if together:
            out.append({"assumption": "the subject's popularity alone", "size": np.nan, "slope": slope / together})
    return pd.DataFrame(out, columns=["assumption", "size", "slope"])
