"""What the edit chosen for one task does to the others."""

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import diverging, new_figure

_MOST_INTERVALS = 5  # tasks beside each other whose intervals have room; the table holds them all

CAPTION = (
    "Change of each task's score on test, in points, under the edit chosen for each task. With up to five tasks, "
    "the 95 % interval over subjects stands below each number; with more, it is only in the data."
)


def _sample(table: pd.DataFrame) -> str:
    lo, hi = int(table["n"].min()), int(table["n"].max())
    return f"n = {lo if lo == hi else f'{lo} to {hi}'} prompts a task, test split"


@figure_function("transfer", caption=CAPTION, sample=_sample)
def transfer(table: pd.DataFrame) -> Figure:
    """Change of each task's score under the edit chosen for each, as a heat map."""
    order = list(dict.fromkeys(table["edit"])), list(dict.fromkeys(table["task"]))
    columns = ("change", "change_lo", "change_hi")
    wide, low, high = (100 * table.pivot(index="edit", columns="task", values=name).loc[order] for name in columns)
    figure, [[ax]] = new_figure(1, 1, 0.9 + 0.3 * len(wide))
    lowest, highest = min(float(wide.min().min()), -1e-9), max(float(wide.max().max()), 1e-9)
    most = max(-lowest, highest)
    scale = Normalize(-most, most)
    # The scale ends where the values do: equal distances from 0 have equal colours
    image = ax.imshow(wide, cmap=diverging("RdBu"), norm=scale, aspect="auto")
    crowded = wide.shape[1] > _MOST_INTERVALS
    for (i, j), value in np.ndenumerate(wide.to_numpy(float)):
        ink = "w" if abs(value) > 0.6 * most else "k"
        size = 5 if crowded else 6
        ax.text(j, i - (0 if crowded else 0.17), f"{value:+.1f}", ha="center", va="center", fontsize=size, color=ink)
        if not crowded:
            interval = f"{low.iat[i, j]:+.0f}, {high.iat[i, j]:+.0f}"
            ax.text(j, i + 0.25, interval, ha="center", va="center", fontsize=4.8, color=ink)
    ax.set_xticks(range(wide.shape[1]), list(wide.columns), rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(wide.shape[0]), [f"edit for {name}" for name in wide.index])
    bar = figure.colorbar(image, ax=ax, label="points", fraction=0.05)
    bar.ax.set_ylim(lowest, highest)
    return figure
