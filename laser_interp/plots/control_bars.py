"""An edit beside its controls."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.marks import interval_ends
from laser_interp.plots.names import EDITS, plain_name
from laser_interp.plots.style import new_figure, palette

CAPTION = (
    "Top-1 as trained, under LASER, under the single edit where LASER is of several, and under the discarded part "
    "alone; then the controls from the best to the worst. Controls are other edits of the model, and the model as "
    "trained with generic words masked. Lines are 95 % intervals over subjects. For a control drawn several times, the "
    "bar is the mean of the draws, each draw is a dot, and the line holds the spread between draws too."
)


def _interactive(table: pd.DataFrame) -> Any:
    """The edit and its controls, each with its interval."""
    import plotly.graph_objects as go

    order = table.sort_values("accuracy")
    names = [plain_name(name) for name in order["control"]]
    return go.Figure(
        go.Bar(
            x=order["accuracy"],
            y=names,
            orientation="h",
            error_x={
                "type": "data",
                "array": order["accuracy_hi"] - order["accuracy"],
                "arrayminus": order["accuracy"] - order["accuracy_lo"],
            },
            customdata=order[["accuracy_lo", "accuracy_hi", "loss", "n"]],
            hovertemplate="%{y}<br>accuracy %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<br>"
            "loss %{customdata[2]:.3f}, %{customdata[3]} prompts<extra></extra>",
        )
    ).update_layout(xaxis_title="accuracy on test prompts", height=120 + 28 * len(order))


@figure_function("controls", caption=CAPTION, interactive=_interactive, of_one_edit=True)
def controls(table: pd.DataFrame) -> Figure:
    """Accuracy of the edit beside its controls; a range where a control was drawn several times.

    The model as trained, the edit and its discarded part stand first, then the controls from the best to the worst.
    """
    colour = palette()
    order = by_value(table).iloc[::-1]
    figure, [[ax]] = new_figure(1, 1, 0.5 + 0.27 * len(order))
    colours = [
        {"laser": colour[1], "single": colour[1], "base": colour[0], "discarded": colour[4]}.get(
            name, "0.75" if edits else colour[2]
        )
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
    for at, draws in zip(y[drawn], order.loc[drawn, "draws"], strict=True):
        ax.plot(draws, np.full(len(draws), at), "o", color="0.15", markersize=1.4, markeredgewidth=0, alpha=0.6)
    base = float(table.loc[table["control"] == "base", "accuracy"].iloc[0])
    ax.axvline(base, color=colour[0], linewidth=0.6, linestyle="--", zorder=0)
    ax.set_yticks(y, [EDITS.get(name, name) for name in order["control"]], fontsize=6, linespacing=1.05)
    highest = float(np.nanmax(table[["accuracy", "accuracy_hi", "accuracy_highest"]].to_numpy(float)))
    ax.set_xlim(0, 1 if highest > 0.5 else 1.1 * highest)
    ax.set_xlabel(f"accuracy (95 % interval{'; dots: draws' if drawn.any() else ''})")
    return figure


FIRST = ("base", "laser", "single", "discarded")  # what stands before the controls


def by_value(table: pd.DataFrame) -> pd.DataFrame:
    """First the model as trained, the edit and its discarded part, then the controls from the best to the worst."""
    named = table.set_index("control", drop=False)
    first = [name for name in FIRST if name in named.index]
    rest = named.drop(index=first).sort_values("accuracy", ascending=False, kind="stable")
    return pd.concat([named.loc[first], rest]).reset_index(drop=True)
