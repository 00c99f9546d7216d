"""By how much an edit changes accuracy, and whether the sample can show it."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from laser_interp.choices import check_seed
from laser_interp.cluster_intervals import LEVEL, Clusters, as_tested
from laser_interp.statistics.formatting import p_value, points
from laser_interp.statistics.paired_scores import pair, reported

FEW = 20  # subjects that changed; with fewer, skewed changes without an effect are called an effect too often
_EXACT = 12  # subjects that changed, up to which all sign patterns are looked at
_DRAWS = 9990
_AT_ONCE = 333  # draws, so that memory does not grow with the subjects


@dataclass(frozen=True)
class AccuracyChange:
    """Change of top-1 accuracy by an edit, with Tango's 95 % interval at the effective number of prompts.

    Attributes:
        change, lo, hi: the change of the share of prompts answered right, after minus before, and its interval; NaN for
            `lo` and `hi` with fewer than three subjects. 0 lies inside the interval if `p` does not reject 0; if `p`
            does, 0 is at most an end.
        p: the p-value of a test that flips the signs of the subjects' net changes.
        n_fixed, n_broken, n: prompts that were fixed, prompts that were broken, and all prompts.
        n_changed: subjects with more fixed than broken, or the other way round.
    """

    change: float
    lo: float
    hi: float
    p: float
    n_fixed: int
    n_broken: int
    n: int
    n_changed: int

    @property
    def is_shown(self) -> bool:
        """Whether it is a gain that the sample can show."""
        return self.change > 0 and self.p <= 1 - LEVEL

    @property
    def is_loss(self) -> bool:
        """Whether it is a loss that the sample can show."""
        return self.change < 0 and self.p <= 1 - LEVEL

    @property
    def verdict(self) -> str:
        """What the sample shows, in words."""
        if self.is_shown or self.is_loss:
            few = self.n_changed < FEW
            caution = f" (of {self.n_changed} subjects: p assumes changes as often up as down without an effect)"
            return ("a gain" if self.is_shown else "a loss") + (caution if few else "")
        if self.n_changed and 2 * 0.5**self.n_changed > 1 - LEVEL:
            subjects = f"{self.n_changed} subjects" if self.n_changed > 1 else "one subject"
            return f"only {subjects} changed, too few to show anything"
        return "no change that this sample can show"

    def __str__(self) -> str:
        return (
            f"accuracy changes by {points(self.change, self.lo, self.hi)} over {self.n} prompts ({self.n_fixed} fixed, "
            f"{self.n_broken} broken; {p_value(self.p)}): {self.verdict}"
        )


def change(scores: pd.DataFrame, *, baseline: str = "base", edit: str = "laser", seed: int = 0) -> AccuracyChange:
    """By how much an edit changes accuracy, and whether the sample can show it.

    Args:
        scores: from `li.score`; where it holds a split named "test", only that is used.
        seed: of the sign flips, where there are too many subjects to try all.

    Raises:
        ValueError: see `pair`.

    Example:
        >>> print(li.change(scores))
    """
    rows = pair(reported(scores).assign(frequency=0.0), None, baseline=baseline, edit=edit)
    return accuracy_change(rows, seed=seed)


def accuracy_change(rows: pd.DataFrame, *, level: float = LEVEL, seed: int = 0) -> AccuracyChange:
    """The change of the share of prompts answered right, from the rows that `pair` returns."""
    before, after = rows["top1_before"].to_numpy(bool), rows["top1_after"].to_numpy(bool)
    clusters = Clusters(rows["subject"])
    net = clusters.sums(after.astype(float) - before)
    estimate, lo, hi = clusters.change(before, after, level)
    p = sign_flip_p(net, seed=seed)
    if np.isfinite(lo):
        lo, hi = as_tested(estimate, lo, hi, rejects=p <= 1 - level)
    n_fixed, n_broken = int((after & ~before).sum()), int((before & ~after).sum())
    return AccuracyChange(estimate, lo, hi, p, n_fixed, n_broken, len(rows), int(np.count_nonzero(net)))


def sign_flip_p(net: np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p-value of the sum of the subjects' net changes; 1 where no subject changed.

    If an edit does nothing, each subject's net change (prompts fixed minus prompts broken) is as likely to be its
    negative. With one prompt a subject this is McNemar's exact test; with more it still holds, because a subject is
    flipped as a whole. Exact where few subjects changed, or all by as much; from draws otherwise.
    """
    from scipy.stats import binomtest

    check_seed("seed", seed)
    changed = net[net != 0]
    observed = abs(changed.sum()) - 1e-9
    if len(changed) == 0:
        return 1.0
    if np.ptp(np.abs(changed)) == 0:
        return float(binomtest(int((changed > 0).sum()), len(changed)).pvalue)
    if len(changed) <= _EXACT:
        signs = np.array(list(product((-1, 1), repeat=len(changed))))
        return float((np.abs(signs @ changed) >= observed).mean())
    rng = np.random.default_rng(seed)
    sizes, n = np.unique(np.abs(changed), return_counts=True)  # of n equal changes, a binomial number keeps its sign
    hits = 0
    for _ in range(_DRAWS // _AT_ONCE):
        sums = (2.0 * rng.binomial(n, 0.5, size=(_AT_ONCE, len(n))) - n) @ sizes
        hits += int((np.abs(sums) >= observed).sum())
    return (1 + hits) / (1 + _DRAWS)
