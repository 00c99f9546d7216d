"""Tables by frequency: bins of about equal numbers of facts, and the paper's two plots (section 5.1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import Clusters, with_interval

PAPER_BINS = ("< 50", "50-1000", "> 1000")


def bin_numbers(n_both: pd.Series, n_bins: int, edges: Sequence[float] | None = None) -> pd.Series:
    """Bin number of each fact: 0 for never seen, then bins of about equal numbers of facts.

    Equal counts never straddle an edge, so ties may make bins unequal or fewer.

    Args:
        edges: instead of bins of about equal numbers: where bins begin, from small to large, as in `(0, 50, 1000)` for
            0 to 49, 50 to 999, and 1000 or more. Counts below the first edge have a bin of their own.

    Raises:
        ValueError: edges that do not grow.
    """
    if edges is not None:
        begin = np.array([float(edge) for edge in edges])
        if len(begin) == 0 or not np.isfinite(begin).all() or (np.diff(begin) <= 0).any():
            raise ValueError(f"edges is {edges!r}: expected growing numbers, as in (0, 50, 1000)")
        return pd.Series(np.searchsorted(begin, n_both.to_numpy(float), side="right"), n_both.index)
    seen = n_both[n_both > 0]
    if seen.empty:
        return pd.Series(0, index=n_both.index)
    inner = np.unique(np.quantile(np.log1p(seen), np.linspace(0, 1, n_bins + 1)[1:-1]))
    return pd.Series(np.where(n_both > 0, 1 + np.searchsorted(inner, np.log1p(n_both), side="left"), 0), n_both.index)


def binned(rows: pd.DataFrame) -> pd.DataFrame:
    clusters = Clusters(rows["subject"])
    before = rows["top1_before"].to_numpy(bool)
    after = rows["top1_after"].to_numpy(bool) if "top1_after" in rows else None
    out = []
    for number, members in rows.groupby("bin", sort=True):
        inside = (rows["bin"] == number).to_numpy()
        row: dict[str, Any] = {"lo": members["n_both"].min(), "hi": members["n_both"].max(), "n": len(members)}
        row |= {"n_facts": members["fact_id"].nunique(), "n_wrong": int((inside & ~before).sum())}
        row |= with_interval("base_top1", clusters.rate(before, inside))
        if after is not None:
            row |= with_interval("edit_top1", clusters.rate(after, inside))
            row |= with_interval("p_fixed_given_wrong", clusters.rate(after, inside & ~before))
            row |= with_interval("p_broken_given_right", clusters.rate(~after, inside & before))
        out.append(row)
    return pd.DataFrame(out)


def cumulative(rows: pd.DataFrame) -> pd.DataFrame:
    metrics = [c for c in ("top1_before", "top1_after", "top10_before", "top10_after") if c in rows.columns]
    ordered = rows.sort_values("n_both", kind="stable")
    means = ordered[metrics].astype(float).cumsum().div(np.arange(1, len(ordered) + 1), axis=0)
    means["n_both"], means["n"] = ordered["n_both"], np.arange(1, len(ordered) + 1)
    return means.groupby("n_both", as_index=False).last()


def paper_ratio(rows: pd.DataFrame) -> pd.DataFrame:
    if "fixed" not in rows.columns:
        return pd.DataFrame(columns=["frequency", "n", "n_corrected", "n_originally_correct", "ratio"])
    n = rows["n_both"]
    label = pd.CategoricalIndex(np.select([n < 50, n <= 1000], PAPER_BINS[:2], PAPER_BINS[2]), PAPER_BINS)
    out = rows.groupby(label, observed=False).agg(
        n=("fixed", "size"), n_corrected=("fixed", "sum"), n_originally_correct=("top1_before", "sum")
    )
    out["ratio"] = out["n_corrected"] / out["n_originally_correct"].where(out["n_originally_correct"] > 0)
    return out.reset_index(names="frequency")
