"""Mean gradients of log p(answer) with respect to the gains, for all sites."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.choices import MATRICES
from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import diverging, new_figure

_MOST_LABELS, _TALLEST = 60, 8.0  # rows that are named, and inches

CAPTION = (
    "Mean gradient of log p(answer) with respect to the gain of each singular direction, summed over bins of "
    "directions from the largest to the smallest; below zero, removing the directions helps. No intervals are "
    "drawn."
)


def _sample(table: pd.DataFrame) -> str:
    # Summaries have a row a direction, or one a direction and group
    return f"n = {int(table.groupby(['site', 'direction'])['n'].sum().max())} prompts"


def _interactive(table: pd.DataFrame) -> Any:
    """Every direction of every site, without bins."""
    import plotly.graph_objects as go

    wide = mean_gradients(table).pivot_table(index="site", columns="direction", values="value")
    wide = wide.loc[sorted(wide.index, key=place_in_model)]
    most = max(float(np.nanquantile(np.abs(wide.to_numpy()), 0.98)), 1e-9)
    return go.Figure(
        go.Heatmap(
            z=wide,
            x=wide.columns,
            y=wide.index,
            zmin=-most,
            zmax=most,
            colorscale="PuOr",
            colorbar={"title": "∂ log p / ∂ gain"},
            hovertemplate="%{y}, direction %{x}<br>%{z:+.4f}<extra></extra>",
        )
    ).update_layout(xaxis_title="direction", yaxis={"autorange": "reversed"}, height=max(300, 14 * len(wide) + 120))


@figure_function("directions_gradients", caption=CAPTION, sample=_sample, interactive=_interactive)
def attribution_map(table: pd.DataFrame, *, n_bins: int = 16) -> Figure:
    """Mean gradient of log p(answer) by the gain of each direction: one row per site, the largest directions first.

    Rows are in the model's order. If there are many, only the first matrix of some layers has a label. The colours end
    at the 98th percentile, which the arrows of the colour bar show.

    Args:
        table: `Attribution.summary()`: `site, direction, gradient, n`, also by groups.
        n_bins: number of bins of directions in a row; gradients are summed within each bin.
    """
    mean = mean_gradients(table)
    rank = mean.groupby("site")["direction"].transform("max") + 1
    mean["bin"] = (mean["direction"] * n_bins // rank).clip(upper=n_bins - 1)
    wide = mean.pivot_table(index="site", columns="bin", values="value", aggfunc="sum")
    wide = wide.loc[sorted(wide.index, key=place_in_model)]
    figure, [[ax]] = new_figure(1, 1, min(max(0.8 + 0.11 * len(wide), 1.8), _TALLEST))
    most = max(float(np.nanquantile(np.abs(wide.to_numpy()), 0.98)), 1e-9)
    image = ax.imshow(wide, cmap=diverging("PuOr"), vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    named = _named(list(wide.index))
    ax.set_yticks(named, [wide.index[row] for row in named], fontsize=5)
    ax.set_xticks([-0.5, n_bins / 2 - 0.5, n_bins - 0.5], ["0 %\nlargest", "50 %", "100 %\nsmallest"])
    ax.set_xlabel("place of the direction, by singular value")
    figure.colorbar(image, ax=ax, label="∂ log p(answer) / ∂ gain", fraction=0.05, extend="both")
    return figure


def mean_gradients(table: pd.DataFrame) -> pd.DataFrame:
    """One row a (site, direction): the mean `value` of its gradient over all groups, and `n`."""
    weighed = table.assign(total=table["gradient"] * table["n"]).groupby(["site", "direction"], as_index=False)
    sums = weighed[["total", "n"]].sum()
    return sums.assign(value=sums["total"] / sums["n"])


def place_in_model(site: str) -> tuple[int, int]:
    """Layer, and place of the matrix in it, to sort by.

    Sites of matrices that are not known come last in their layer.
    """
    layer, _, matrix = site.partition(".")
    return int(layer), MATRICES.index(matrix) if matrix in MATRICES else len(MATRICES)


def _named(sites: list[str]) -> list[int]:
    """Rows with a label: all, or where they are many the first of each layer, or of some layers."""
    if len(sites) <= _MOST_LABELS:
        return list(range(len(sites)))
    layers = [place_in_model(site)[0] for site in sites]
    first = [row for row, layer in enumerate(layers) if row == 0 or layers[row - 1] != layer]
    return first[:: -(-len(first) // (_MOST_LABELS // 2))]
