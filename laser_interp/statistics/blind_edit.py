"""Which wrong answers are fixed, against an edit that is blind to frequency.

A wrong answer is fixed when its margin passes 0. Frequent facts are wrong by less, so that an edit which moves every
margin alike fixes more of them: an odds ratio above 1 says nothing about the edit. Here the gains of margin are kept as
they are, and dealt anew among the wrong answers of each relation without regard to frequency. What this gives is what
the odds ratio would be for an edit with the same gains that does not look at frequency. It is also blind to the margin:
an edit that gives more to answers which are wrong by more is not dealt as such.

Prompts of one fact, and facts of one subject, have gains alike. So one prompt of one fact of each subject in a relation
takes part, the first.
"""

from typing import Any

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import LEVEL
from laser_interp.statistics.conditional_logistic import ConditionalLogistic
from laser_interp.statistics.subject_permutation import MOST, comparable, sorted_within

_AT_ONCE = 2_000_000  # prompts times permutations held at a time


def against_blind_edit(rows: pd.DataFrame, *, n_permutations: int, seed: int) -> dict[str, Any]:
    """The odds ratio of being fixed per tenfold frequency beside that of an edit that is blind to frequency.

    Args:
        rows: paired rows with `relation, subject, prompt_id, n_both, top1_before, fixed, margin_before, margin_after`.

    Returns:
        `odds_ratio` of these gains; `blind`, the odds ratio that the same gains have on average when they are dealt
        without regard to frequency, with `blind_lo, blind_hi` between which 95 % of such deals lie; `p`, how often such
        a deal is as far from their mean as what was observed; `n` prompts; and the `problem` where there is none.
    """
    row: dict[str, Any] = dict.fromkeys(("odds_ratio", "blind", "blind_lo", "blind_hi", "p"), np.nan)
    row |= {"n": 0, "problem": ""}
    if not {"margin_before", "margin_after"} <= set(rows.columns):
        return row | {"problem": "the scores have no margins"}
    first = rows.sort_values(["relation", "subject", "fact_id", "prompt_id"], kind="stable")
    first = first.drop_duplicates(["relation", "subject"])
    wrong = first[~first["top1_before"].astype(bool)]
    wrong = wrong[np.isfinite(wrong["margin_before"]) & np.isfinite(wrong["margin_after"])]
    by_relation = wrong.groupby("relation")
    share = by_relation["fixed"].transform("mean")
    wrong = wrong[(share > 0) & (share < 1) & (by_relation["n_both"].transform("nunique") > 1)]
    if wrong.empty:
        return row | {"problem": "no relation has both fixed and other wrong answers at different frequencies"}
    if len(wrong) > MOST:
        return row | {"n": len(wrong), "problem": f"{len(wrong)} prompts are more than can be dealt at once ({MOST})"}
    relation = wrong["relation"].factorize()[0]
    logs = np.log10(1 + wrong["n_both"].to_numpy(float))
    x = logs - (np.bincount(relation, logs) / np.bincount(relation))[relation]
    before = wrong["margin_before"].to_numpy(float)
    gain = wrong["margin_after"].to_numpy(float) - before
    fixed = wrong["fixed"].to_numpy(bool)
    rng = np.random.default_rng(seed)
    total = np.zeros(len(wrong))
    scores = []
    block = max(1, min(n_permutations, _AT_ONCE // len(wrong)))
    for start in range(0, n_permutations, block):
        n = min(block, n_permutations - start)
        order = rng.integers(1 << 24, size=(n, len(wrong)), dtype=np.uint32)
        dealt = before[:, None] + gain[sorted_within(order, relation)] > 0
        total += dealt.sum(1)
        scores.append(x @ dealt)
    drawn, observed = np.concatenate(scores), float(fixed @ x)
    below, above = int((drawn <= observed + 1e-9).sum()), int((drawn >= observed - 1e-9).sum())
    row |= {"n": len(wrong), "p": min(1.0, 2 * (1 + min(below, above)) / (1 + n_permutations))}
    model = _fitted(relation, logs, fixed.astype(float))
    blind = _fitted(relation, logs, total / n_permutations)
    if model is None or blind is None:
        return row | {"problem": "no relation has both fixed and other wrong answers at different frequencies"}
    centre = blind.estimate()
    information = max(blind.score(centre)[1], 1e-12) if np.isfinite(centre) else np.inf
    lo, hi = (np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - drawn.mean()) / information
    logs = {"odds_ratio": model.estimate(), "blind": centre, "blind_lo": centre + lo, "blind_hi": centre + hi}
    return row | {name: float(np.exp(np.clip(log, -50, 50))) for name, log in logs.items()}


def _fitted(relation: np.ndarray, x: np.ndarray, events: np.ndarray) -> ConditionalLogistic | None:
    """Conditional logistic regression of so many events on frequency, within relations."""
    own = np.arange(len(x))  # each fact by itself: the interval comes from the deals
    known = comparable(relation, own, x, np.ones(len(x)), events)
    return None if known is None else ConditionalLogistic(known)
