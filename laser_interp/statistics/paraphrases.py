"""Whether facts are right on all of their prompts, and whether these are answered alike."""

from collections import Counter
from typing import Any

import pandas as pd

from laser_interp.cluster_intervals import Clusters, with_interval


def robustness(rows: pd.DataFrame) -> pd.DataFrame:
    """How well answers hold over a fact's paraphrases; facts with a single prompt are left out.

    Args:
        rows: of `li.score`, or any frame with `fact_id, subject, edit, prediction, correct`.

    Returns:
        One row an edit: `n_facts`, `accuracy`, `all_right` (share of facts right on every prompt), `any_right`, and
        `agreement` (share of pairs of a fact's prompts answered alike, right or wrong); each also as `_lo` and `_hi`, a
        95 % interval over subjects.

    Example:
        >>> li.robustness(scores)
    """
    out = []
    for label, some in rows.groupby("edit", sort=False):
        by_fact = some[some.duplicated("fact_id", keep=False)].groupby("fact_id")
        if not by_fact.ngroups:
            continue
        clusters = Clusters(by_fact["subject"].first())
        correct = by_fact["correct"]
        shares = {
            "accuracy": correct.mean(),
            "all_right": correct.all(),
            "any_right": correct.any(),
            "agreement": by_fact["prediction"].agg(_agreement),
        }
        row: dict[str, Any] = {"edit": label, "n_facts": by_fact.ngroups}
        for name, values in shares.items():
            row |= with_interval(name, clusters.mean(values.to_numpy(float)))
        out.append(row)
    return pd.DataFrame(out)


def _agreement(predictions: pd.Series) -> float:
    n = len(predictions)
    same = sum(k * (k - 1) for k in Counter(predictions).values())
    return same / (n * (n - 1))
