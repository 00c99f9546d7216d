"""A bootstrap that resamples subjects, because a subject's facts and paraphrases stand or fall together."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from laser_interp.statistics.rank_correlation import spearman

Interval = tuple[float, float, float]  # estimate, lower end, upper end
LEVEL = 0.95


class SubjectBootstrap:
    """Draws of subjects with replacement, the same for everything that is estimated."""

    def __init__(self, subjects: pd.Series, n_boot: int, seed: int) -> None:
        self.codes, labels = pd.factorize(subjects)
        self.n = len(labels)
        rng = np.random.default_rng(seed)
        self.draws = rng.integers(self.n, size=(n_boot, self.n))
        self.weights = np.zeros((n_boot, self.n))
        np.add.at(self.weights, (np.arange(n_boot)[:, None], self.draws), 1)

    def rate(self, hit: np.ndarray, among: np.ndarray) -> Interval:
        """Share of hits among the chosen rows, and its 95 % interval.

        Where nothing or everything was hit, resampling sees no spread; the exact binomial bound on
        the number of subjects is given instead.
        """
        return self.rates([(hit, among)])[0]

    def rates(self, asked: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Interval]:
        """`rate` of each (hit, among)."""
        hits = np.stack([np.bincount(self.codes, weights=h & a, minlength=self.n) for h, a in asked], axis=1)
        sizes = np.stack([np.bincount(self.codes, weights=a, minlength=self.n) for _, a in asked], axis=1)
        with np.errstate(invalid="ignore"):
            draws = (self.weights @ hits) / (self.weights @ sizes)
        intervals: list[Interval] = []
        for hit, size, drawn in zip(hits.T, sizes.T, draws.T, strict=True):
            if size.sum() == 0:
                intervals.append((np.nan, np.nan, np.nan))
                continue
            share = float(hit.sum() / size.sum())
            if share in (0.0, 1.0):
                slack = 1 - 0.025 ** (1 / np.count_nonzero(size))
                intervals.append((share, max(0.0, share - slack), min(1.0, share + slack)))
                continue
            drawn = drawn[np.isfinite(drawn)]
            lo, hi = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
            intervals.append((share, float(lo), float(hi)))
        return intervals

    def mean(self, values: np.ndarray) -> Interval:
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


def with_interval(name: str, interval: Interval) -> dict[str, float]:
    """An estimate and its interval as columns: `NAME, NAME_lo, NAME_hi`."""
    estimate, lo, hi = interval
    return {name: estimate, f"{name}_lo": lo, f"{name}_hi": hi}
