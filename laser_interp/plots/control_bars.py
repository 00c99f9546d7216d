"""An edit beside its controls."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.marks import interval_ends
from laser_interp.plots.names import EDITS
from laser_interp.plots.style import new_figure, palette


@figure_function("controls")
def controls(table: pd.DataFrame) -> Figure:
    """Accuracy of the edit beside its controls; a range where a control was drawn several times.

    The model as trained, the edit and its discarded part stand first, then the controls from the best to the worst.
    """
    colour = palette()
    order = by_value(table).iloc[::-1]
    figure, axes = new_figure(1, 1, 0.6 + 0.24 * len(order))
    ax = axes[0, 0]
    colours = [
        {"laser": colour[1], "base": colour[0], "discarded": colour[4]}.get(name, "0.75" if edits else colour[2])
        for name, edits in zip(order["control"], order["edits_weight"], strict=True)
    ]
    y = np.arange(len(order))
    ax.barh(y, order["accuracy"], color=colours, height=0.7)
    ax.errorbar(
        order["accuracy"],
        y,
        xerr=interval_ends(order, "accuracy"),
        fmt="none",
        ecolor="0.15",
        elinewidth=0.7,
        capsize=1.5,
    )
    drawn = (order["n_draws"] > 1).to_numpy()
    for name in ("accuracy_lowest", "accuracy_highest"):
        ax.plot(order.loc[drawn, name], y[drawn], "o", color="0.15", markersize=1.6, markeredgewidth=0)
    base = float(table.loc[table["control"] == "base", "accuracy"].iloc[0])
    ax.axvline(base, color=colour[0], linewidth=0.6, linestyle="--", zorder=0)
    ax.set_yticks(y, [EDITS.get(name, name) for name in order["control"]], fontsize=6, linespacing=0.9)
    highest = float(np.nanmax(table[["accuracy", "accuracy_hi", "accuracy_highest"]].to_numpy(float)))
    ax.set_xlim(0, 1 if highest > 0.5 else 1.1 * highest)
    drawn_often = ";\ndots: lowest and highest draw" if drawn.any() else ""
    ax.set_xlabel(f"accuracy on test prompts\n(whiskers: 95 % interval{drawn_often})")
    return figure


def by_value(table: pd.DataFrame) -> pd.DataFrame:
    """First the model as trained, the edit and its discarded part, then the controls from the best to the worst."""
    named = table.set_index("control", drop=False)
    first = [name for name in ("base", "laser", "discarded") if name in named.index]
    rest = named.drop(index=first).sort_values("accuracy", ascending=False, kind="stable")
    return pd.concat([named.loc[first], rest]).reset_index(drop=True)
