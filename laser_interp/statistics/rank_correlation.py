"""Spearman's rank correlation, and its test and interval where facts come in clusters."""

import numpy as np

from laser_interp.cluster_intervals import LEVEL, as_tested, student_quantile
from laser_interp.statistics.subject_permutation import Comparable, Permutations, by_group

PERMUTATIONS = 999  # at most; the main test takes more
FEWEST_FOR_INTERVAL = 8  # subjects; with fewer the interval would cover almost everything


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one side is constant, or there are fewer than three."""
    from scipy.stats import rankdata

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def spearman_over_facts(
    x: np.ndarray, y: np.ndarray, subject: np.ndarray, relation: np.ndarray, *, n_permutations: int, seed: int
) -> dict[str, float]:
    """Spearman's rho over facts, the p-value of a permutation of subjects, and an interval.

    Facts are ranked within their relation, and the ranks of all relations are pooled as shares of their relation; facts
    of different relations are not compared.

    The interval is Fisher's, with the larger of two standard errors: the jackknife's over subjects, and the spread
    under permutation. Infinite values keep their rank. The interval holds 0 if the p-value does not reject 0, and only
    then.

    Returns:
        `rho, lo, hi, p, n`; NaN where one side is constant or there are too few subjects.
    """
    from scipy.stats import rankdata

    out = {"rho": np.nan, "lo": np.nan, "hi": np.nan, "p": np.nan, "n": float(len(x))}
    if len(x) < 3:
        return out
    codes = np.unique(subject, return_inverse=True)[1]
    of = np.unique(relation, return_inverse=True)[1]
    order = np.lexsort((codes, of))
    codes, of, x, y = codes[order], of[order], x[order], y[order]
    u, v = np.zeros(len(x)), np.zeros(len(x))
    for members in np.split(np.arange(len(x)), np.flatnonzero(np.diff(of)) + 1):
        for ranks, values in ((u, x), (v, y)):
            ranks[members] = rankdata(values[members]) / len(members)
            ranks[members] -= ranks[members].mean()
    if not (u @ u > 1e-12 and v @ v > 1e-12):
        return out
    out["rho"] = float(u @ v / np.sqrt((u @ u) * (v @ v)))
    equal = np.ones(len(u))
    facts = Comparable(of, codes, u, equal, v, equal, v, len(u))
    permutations = Permutations.of(facts, min(n_permutations, PERMUTATIONS), seed)
    if permutations.variance <= 0 or permutations.least_p > 1 - LEVEL:
        return out
    out["p"] = permutations.p
    n_subjects = facts.n_subjects
    if n_subjects < FEWEST_FOR_INTERVAL:
        return out
    parts = np.stack([by_group(codes, values) for values in (equal, u, v, u * u, v * v, u * v)])
    without = _correlation(parts.sum(1, keepdims=True) - parts)
    z, z_without = (np.arctanh(np.clip(r, -0.9999, 0.9999)) for r in (out["rho"], np.nan_to_num(without)))
    jackknife = np.sqrt((n_subjects - 1) / n_subjects * ((z_without - z) ** 2).sum())
    chance = np.sqrt((permutations.scores**2).mean() / ((v - v.mean()) ** 2).sum() / ((u - u.mean()) ** 2).sum())
    half_width = student_quantile(n_subjects, LEVEL) * max(jackknife, chance)
    lo, hi = float(np.tanh(z - half_width)), float(np.tanh(z + half_width))
    return out | dict(zip(("lo", "hi"), as_tested(out["rho"], lo, hi, rejects=out["p"] <= 1 - LEVEL), strict=True))


def _correlation(sums: np.ndarray) -> np.ndarray:
    """From n, Σu, Σv, Σu², Σv², Σuv."""
    n, u, v, uu, vv, uv = sums
    with np.errstate(all="ignore"):
        return (uv - u * v / n) / np.sqrt((uu - u * u / n) * (vv - v * v / n))
