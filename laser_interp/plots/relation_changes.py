"""Accuracy of each relation, as trained and under the edit."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import legend, new_figure, palette

CAPTION = (
    "Accuracy of each relation as trained and under the edit, the largest gain first. No intervals are drawn, "
    "because most relations have few prompts; the report gives an interval for the change over all relations."
)


def _sample(table: pd.DataFrame) -> str:
    return f"n = {int(table['n_test'].sum())} prompts of {len(table)} relations, test split"


@figure_function("relations", caption=CAPTION, sample=_sample, of_one_edit=True)
def relations(table: pd.DataFrame) -> Figure:
    """One row a relation, the largest gain first: accuracy as trained, and under the edit.

    Args:
        table: see `laser_interp.studies.relations.by_relation`.
    """
    colour = palette()
    order = table.assign(gain=table["chosen"] - table["as_trained"]).sort_values("gain", kind="stable")
    y = np.arange(len(order))
    figure, [[ax]] = new_figure(1, 1, max(0.9 + 0.145 * len(order), 1.4))
    for at, before, after in zip(y, order["as_trained"], order["chosen"], strict=True):
        ax.plot([before, after], [at, at], color="0.7", linewidth=1.0, zorder=0)
    ax.plot(order["as_trained"], y, "o", color=colour[0], markersize=3, label="as trained")
    ax.plot(order["chosen"], y, "o", color=colour[1], markersize=3, label="LASER")
    names = [f"{relation} ({n})" for relation, n in zip(order["relation"], order["n_test"], strict=True)]
    ax.set_yticks(y, names, fontsize=6)
    ax.set_ylim(-0.7, len(order) - 0.3)
    ax.set_xlim(left=min(-0.02, ax.get_xlim()[0]))
    ax.set_xlabel("accuracy on test prompts\n(their number in brackets)")
    legend(ax, ncols=2)
    return figure
