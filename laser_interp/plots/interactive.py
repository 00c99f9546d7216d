"""Interactive figures for notebooks: pointing at a mark shows its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from laser_interp.choices import names_with_suggestion
from laser_interp.extras import require
from laser_interp.plots.figure_functions import tables_of
from laser_interp.plots.gradient_map import mean_gradients, place_in_model
from laser_interp.plots.loss_by_layer import METRICS, drawn_split, matrices_of
from laser_interp.plots.names import plain_name

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def draw_interactive(
    name: str, result: Any, needed: tuple[str, ...], *, title: str | None = None, **options: Any
) -> Figure:
    """A result's figure with Plotly.

    Raises:
        ValueError: the figure has no interactive form.
        ModuleNotFoundError: Plotly is not installed.
    """
    if name not in _INTERACTIVE:
        raise ValueError(f"{name} has no interactive form: only {', '.join(_INTERACTIVE)} have one")
    require("page", "plotly", what="an interactive figure")
    figure = _INTERACTIVE[name](*tables_of((result,), needed, name), **options)
    figure.update_layout(title=title, template="plotly_white", margin={"t": 50 if title else 25})
    return figure


def _loss_by_layer(cells: pd.DataFrame, *, metric: str = "loss") -> Figure:
    """A heat map of layers and matrices at each ρ, chosen by a slider."""
    import plotly.graph_objects as go

    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}: expected {names_with_suggestion(METRICS, metric)}")
    split = drawn_split(cells)
    drawn = cells[cells["split"] == split]
    base = float(drawn.loc[drawn["kind"] == "base", metric].iloc[0])
    edited = drawn[drawn["kind"] == "laser"]
    rhos = sorted(set(edited["rho"]), reverse=True)
    matrices = matrices_of(edited)
    layers = sorted(set(edited["layer"]))
    figure = go.Figure()
    most = max(float(np.nanquantile((edited[metric] - base).abs(), 0.95)), 1e-9)
    for rho in rhos:
        wide = edited[edited["rho"] == rho].pivot_table(index="matrix", columns="layer", values=metric) - base
        figure.add_heatmap(
            z=wide.reindex(index=matrices, columns=layers),
            x=layers,
            y=matrices,
            zmin=-most,
            zmax=most,
            colorscale="RdBu" if metric != "loss" else "RdBu_r",
            colorbar={"title": f"{METRICS[metric]},<br>{split} facts"},
            hovertemplate="layer %{x}, matrix %{y}<br>%{z:+.3f}<extra>ρ = " + f"{rho:g}</extra>",
            visible=rho == rhos[-1],
        )
    steps = [
        {"label": f"{rho:g}", "method": "update", "args": [{"visible": [other == rho for other in rhos]}]}
        for rho in rhos
    ]
    figure.update_layout(
        sliders=[{"active": len(rhos) - 1, "steps": steps, "currentvalue": {"prefix": "fraction of rank kept, ρ = "}}],
        xaxis_title="layer",
        yaxis_title="matrix",
    )
    return figure


def _controls(table: pd.DataFrame) -> Figure:
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


def _attribution_map(table: pd.DataFrame) -> Figure:
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


_INTERACTIVE: dict[str, Callable[..., Any]] = {
    "loss_by_layer": _loss_by_layer,
    "controls": _controls,
    "attribution_map": _attribution_map,
}
