"""By how much an edit changes accuracy, and whether the sample can show it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from laser_interp.statistics.bootstrap import LEVEL, Interval, SubjectBootstrap
from laser_interp.statistics.paired_scores import pair, reported


@dataclass(frozen=True)
class AccuracyChange:
    """Change of top-1 accuracy by an edit, with a 95 % interval from a bootstrap over subjects.

    Attributes:
        change, lo, hi: of the share of prompts answered right, after minus before.
        n_fixed, n_broken, n: prompts.
    """

    change: float
    lo: float
    hi: float
    n_fixed: int
    n_broken: int
    n: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval lies above zero."""
        return self.lo > 0

    def __str__(self) -> str:
        verdict = "a gain" if self.is_shown else "a loss" if self.hi < 0 else "no gain that this sample can show"
        return (
            f"top-1 changes by {100 * self.change:+.1f} points [{100 * self.lo:+.1f}, {100 * self.hi:+.1f}] over "
            f"{self.n} prompts ({self.n_fixed} fixed, {self.n_broken} broken): {verdict}"
        )


def change(
    scores: pd.DataFrame, *, baseline: str = "base", edit: str = "laser", n_boot: int = 1000, seed: int = 0
) -> AccuracyChange:
    """By how much an edit changes accuracy, and whether the sample can show it.

    Args:
        scores: from `li.score`; where it holds a split named "test", only that is used.

    Raises:
        ValueError: see `pair`.
    """
    rows = pair(reported(scores).assign(frequency=0.0), None, baseline=baseline, edit=edit)
    before, after = rows["top1_before"].to_numpy(bool), rows["top1_after"].to_numpy(bool)
    estimate, lo, hi = accuracy_change(rows, SubjectBootstrap(rows["subject"], n_boot, seed), LEVEL)
    return AccuracyChange(estimate, lo, hi, int((after & ~before).sum()), int((before & ~after).sum()), len(rows))


def accuracy_change(rows: pd.DataFrame, boot: SubjectBootstrap, level: float) -> Interval:
    """Of the share of prompts answered right: the estimate and its interval."""
    changes = rows["top1_after"].to_numpy(float) - rows["top1_before"].to_numpy(float)
    total = np.bincount(boot.codes, weights=changes, minlength=boot.n)
    size = np.bincount(boot.codes, minlength=boot.n)
    drawn = (boot.weights @ total) / (boot.weights @ size)
    lo, hi = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(changes.mean()), float(lo), float(hi)
