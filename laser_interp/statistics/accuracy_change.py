"""By how much an edit changes accuracy, and whether the sample can show it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import LEVEL, Clusters
from laser_interp.statistics.formatting import p_value, points
from laser_interp.statistics.paired_scores import pair, reported
from laser_interp.statistics.sign_flip import sign_flip_p

FEW = 20  # subjects that changed; with fewer, skewed changes without an effect are called an effect too often


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
    if np.isfinite(lo):  # the p-value decides on which side of 0 an end lies
        if p > 1 - level:
            lo, hi = min(lo, 0.0), max(hi, 0.0)
        else:
            lo, hi = (max(lo, 0.0), hi) if estimate > 0 else (lo, min(hi, 0.0))
    n_fixed, n_broken = int((after & ~before).sum()), int((before & ~after).sum())
    return AccuracyChange(estimate, lo, hi, p, n_fixed, n_broken, len(rows), int(np.count_nonzero(net)))
