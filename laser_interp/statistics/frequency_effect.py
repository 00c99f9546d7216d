"""Is an outcome (being fixed, being broken, being right) associated with frequency, given the relation?

One method serves samples of all sizes. The p-value comes from permutations of subjects, the odds ratio from conditional
logistic regression, and its interval from the same permutations. Where the data cannot answer, the row says why instead
of giving a number. docs/statistics.md compares this with other methods.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import FEWEST, LEVEL
from laser_interp.statistics.conditional_logistic import ConditionalLogistic
from laser_interp.statistics.subject_permutation import Comparable, Permutations, comparable

PERMUTATIONS = 1999
# What each effect asks: the outcome, and among which prompts.
EFFECTS: dict[str, tuple[str, str]] = {
    "frequency": ("fixed", "wrong before"),
    "margin": ("fixed", "wrong before"),
    "pmi": ("fixed", "wrong before"),
    "broken": ("broken", "right before"),
    "accuracy": ("right", "all"),
}
_COLUMNS = ["effect", "outcome", "among", "odds_ratio", "odds_lo", "odds_hi", "p", "n_prompts"]
_COLUMNS += ["n_events", "n_facts", "n_subjects", "n_left_out", "problem"]


def frequency_effects(
    rows: pd.DataFrame,
    effects: Sequence[str] | None = None,
    *,
    level: float = LEVEL,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """See `Association.effects`.

    Args:
        rows: one row per (fact, prompt) with `fact_id, subject, relation, n_both, top1_before`, and for an edit `fixed`
            and `broken`.
        effects: which of them; None: all that the columns allow.
        level: of the intervals.
    """
    right = rows["top1_before"].astype(bool)
    among = {"wrong before": rows[~right], "right before": rows[right], "all": rows.assign(right=right)}
    known = {"n_subject", "n_object"} <= set(rows.columns)
    if effects is None:
        with_margin = ["margin"] if "margin_before" in rows.columns else []
        with_edit = ["frequency", *with_margin, *(["pmi"] if known else []), "broken"]
        effects = with_edit if "fixed" in rows.columns else ["accuracy"]
    found = []
    for effect in effects:
        outcome, group = EFFECTS[effect]
        about = {"effect": effect, "outcome": outcome, "among": group}
        found.append(about | _effect(among[group], outcome, group, effect, level, n_permutations, seed))
    return pd.DataFrame(found).reindex(columns=_COLUMNS)


def _effect(
    chosen: pd.DataFrame, outcome: str, group: str, effect: str, level: float, n_permutations: int, seed: int
) -> dict[str, Any]:
    where = "" if group == "all" else f" {group}"
    n, n_events = len(chosen), int(chosen[outcome].sum())
    row: dict[str, Any] = {"n_prompts": n, "n_events": n_events, "n_left_out": n, "problem": ""}
    if n_events in (0, n):
        return row | {"problem": f"of {n} prompts{where} {'none' if n_events == 0 else 'all'} were {outcome}"}
    if chosen["n_both"].nunique() < 2:
        return row | {"problem": f"all facts{where} have the same frequency"}
    facts = _facts(chosen, outcome, effect)
    if facts is None:
        return row | {"problem": f"no relation has both {outcome} and other prompts at different frequencies"}
    row |= {"n_left_out": n - facts.n_prompts, "n_facts": len(facts.x), "n_subjects": facts.n_subjects}
    permutations = Permutations.of(facts, n_permutations, seed)
    if permutations.variance <= 0:
        return row | {"problem": "frequency does not differ between subjects that could be exchanged"}
    if (least := permutations.least_p) > 1 - LEVEL:
        few = f"{n_events} of {n} prompts{where} were {outcome}"
        most = f"even the most extreme arrangement of the frequencies would give p = {least:.2g}"
        return row | {"problem": f"{few}, and {most}"}
    row["p"] = permutations.p
    few = min(len(np.unique(facts.subject[facts.outcome > 0])), len(np.unique(facts.subject[facts.outcome < 1])))
    if few < FEWEST:
        return row | {"problem": f"only {few} subjects differ from the others in being {outcome}"}
    model = ConditionalLogistic(facts)
    coefficient = model.estimate()
    lo, hi = model.interval(permutations, coefficient, level)
    row |= {"odds_lo": _exp(lo), "odds_hi": _exp(hi)}
    if np.isinf(coefficient):
        more = "frequent" if coefficient > 0 else "rare"
        problem = f"every fact that was {outcome} is at least as {more} as every other of its relation"
        return row | {"problem": problem}
    return row | {"odds_ratio": _exp(coefficient)}


def _facts(chosen: pd.DataFrame, outcome: str, effect: str) -> Comparable | None:
    """Prompts put together to facts, those of the relations that can say something."""
    known = [c for c in ("n_subject", "n_object") if c in chosen.columns]
    by_fact = chosen.groupby("fact_id")
    facts = by_fact[["relation", "subject", "n_both", *known]].first()
    facts = facts.assign(n=by_fact.size(), events=by_fact[outcome].sum())
    if effect == "margin":
        facts["margin"] = by_fact["margin_before"].mean()
        facts = facts[np.isfinite(facts["margin"])]
    if effect == "pmi":
        logs = (np.log(facts[c].clip(lower=1)) for c in ("n_subject", "n_object"))
        x = np.log(facts["n_both"] + 0.5) - sum(logs)
    else:
        x = np.log10(1 + facts["n_both"])
    if effect == "margin":
        x = _unexplained(x, facts)
    relation, subject, n, events = (facts[c].to_numpy() for c in ("relation", "subject", "n", "events"))
    return comparable(relation, subject, np.asarray(x, float), n, events)


def _unexplained(x: pd.Series, facts: pd.DataFrame) -> pd.Series:
    """The part of x that the margin before the edit does not predict, by least squares within relations."""
    frequency, margin = (v - v.groupby(facts["relation"]).transform("mean") for v in (x, facts["margin"]))
    spread = float((margin**2).sum())
    slope = float((frequency * margin).sum()) / spread if spread > 0 else 0.0
    return (x - slope * facts["margin"]).round(10)


def _exp(value: float) -> float:
    return float(np.exp(np.clip(value, -700, 700))) if np.isfinite(value) else float("inf" if value > 0 else 0.0)
