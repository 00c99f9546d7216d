"""Points and bars with their intervals, and the axis of frequency bins."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes


def interval_ends(table: pd.DataFrame, name: str) -> np.ndarray:
    """Distances from the estimate to its interval's ends. Absolute, as a percentile interval may miss the estimate."""
    return np.abs(np.vstack([table[name] - table[f"{name}_lo"], table[f"{name}_hi"] - table[name]]))


def points(ax: Axes, x: np.ndarray, table: pd.DataFrame, name: str, colour: Any) -> None:
    ax.errorbar(x, table[name], yerr=interval_ends(table, name), fmt="o", color=colour, elinewidth=0.7, capsize=1.2)


def whiskers(ax: Axes, x: np.ndarray, table: pd.DataFrame, name: str, at: Any = None) -> None:
    """An interval on each bar."""
    ax.errorbar(
        x, table[name] if at is None else at, yerr=interval_ends(table, name), fmt="none", ecolor="0.15",
        elinewidth=0.6, capsize=1.2,
    )  # fmt: skip


def frequency_axis(ax: Axes, bins: pd.DataFrame) -> None:
    labels = [f"{lo:.0f}–{hi:.0f}" if lo != hi else f"{lo:.0f}" for lo, hi in zip(bins["lo"], bins["hi"], strict=True)]
    ax.set_xticks(np.arange(len(bins)), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=6)
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("frequency")
