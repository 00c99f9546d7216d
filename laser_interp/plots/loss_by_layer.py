"""Change of loss, or of another mean, by layer, matrix and ρ."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from laser_interp.choices import MATRICES, names_with_suggestion
from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import diverging, label_panels, legend, new_figure, sequence

METRICS = {"loss": "change of loss (nats)", "top1": "change of top-1", "score": "change of score"}
_MARKERS = "os^Dv<>P"
_MOST_LINES = 12  # layers; more are drawn as a map

CAPTION = (
    "Change of the loss (mean −log p of the answer, nats) when one matrix keeps the fraction ρ of its rank, by"
    " layer and matrix; below zero is better. The scale is linear to ±.1 and logarithmic beyond. Bands are 95 % "
    "intervals, errors clustered by subject; in a map, dots mark changes that are below zero by more than theirs."
)


def _sample(cells: pd.DataFrame) -> str:
    split = drawn_split(cells)
    return f"n = {int(cells.loc[cells['split'] == split, 'n'].max())} prompts, {split} split"


def _is_map(cells: pd.DataFrame) -> bool:
    """Whether several sites were tested: a search that tests the chosen cell alone makes no map."""
    return cells.query("kind == 'laser' and split == 'test'")["site"].nunique() > 1


def _interactive(cells: pd.DataFrame, *, metric: str = "loss") -> Any:
    """A heat map of layers and matrices at each ρ, chosen by a slider."""
    import plotly.graph_objects as go

    edited = _changes(cells, metric)
    rhos = sorted(set(edited["rho"]), reverse=True)
    matrices = matrices_of(edited)
    layers = sorted(set(edited["layer"]))
    figure = go.Figure()
    most = max(float(np.nanquantile(edited["change"].abs(), 0.95)), 1e-9)
    for rho in rhos:
        wide = edited[edited["rho"] == rho].pivot_table(index="matrix", columns="layer", values="change")
        figure.add_heatmap(
            z=wide.reindex(index=matrices, columns=layers),
            x=layers,
            y=matrices,
            zmin=-most,
            zmax=most,
            colorscale="RdBu" if metric != "loss" else "RdBu_r",
            colorbar={"title": f"{METRICS[metric]},<br>{drawn_split(cells)} facts"},
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


@figure_function("cells", caption=CAPTION, sample=_sample, interactive=_interactive, worth_drawing=_is_map)
def loss_by_layer(cells: pd.DataFrame, *, metric: str = "loss") -> Figure:
    """Change of loss against layer: one panel per matrix, one line per ρ (a loss below 0 is better). Of more than 12
    layers, each panel is a map of layers and ρ, with a dot where the change is better than 0 beyond its interval.

    Args:
        cells: of a search: `split, kind, layer, matrix, rho` and the metric. If several sites were tested, test rows
            are drawn, otherwise validation rows.
        metric: "loss" (lower is better), "top1" or "score" (higher is better).

    Raises:
        ValueError: another metric, or no LASER at a single site.
    """
    edited = _changes(cells, metric)
    matrices = matrices_of(edited)
    n_columns = min(3, len(matrices))
    n_rows = -(-len(matrices) // n_columns)
    figure, axes = new_figure(n_rows, n_columns, 0.75 + 1.15 * n_rows, sharex=True, sharey=True)
    for ax in axes.flat[len(matrices) :]:
        ax.set_visible(False)
    is_map = edited["layer"].nunique() > _MOST_LINES
    (_map if is_map else _lines)(axes, edited, metric)
    for matrix, ax in zip(matrices, axes.flat, strict=False):
        ax.set_title(f"$W_{{\\mathrm{{{matrix}}}}}$")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    for column in axes.T:
        lowest = [ax for ax in column if ax.get_visible()][-1]
        lowest.tick_params(labelbottom=True)
        if not is_map:  # a map has one label for all panels
            lowest.set_xlabel("layer")
    return figure


def _changes(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of LASER at a single site that are drawn, with the `change` of the metric from the model as trained."""
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}: expected {names_with_suggestion(METRICS, metric)}")
    drawn = cells[cells["split"] == drawn_split(cells)]
    base = float(drawn.loc[drawn["kind"] == "base", metric].iloc[0])
    edited = drawn[drawn["kind"] == "laser"]
    return edited.assign(change=edited[metric] - base)


def _lines(axes: np.ndarray, edited: pd.DataFrame, metric: str) -> None:
    """A line for each ρ, with its band where the metric is the loss."""
    rhos = sorted(set(edited["rho"]), reverse=True)
    for matrix, ax in zip(matrices_of(edited), axes.flat, strict=False):
        ax.axhline(0, color="0.6", linewidth=0.5)
        for number, (rho, colour) in enumerate(zip(rhos, sequence(len(rhos)), strict=True)):
            line = edited[(edited["matrix"] == matrix) & (edited["rho"] == rho)].sort_values("layer")
            layer, change = line["layer"], line["change"]
            marker = _MARKERS[number % len(_MARKERS)]
            ax.plot(layer, change, marker=marker, markersize=2.2, color=colour, label=f"{rho:g}")
            if metric == "loss":
                error = 1.96 * line["loss_change_se"]
                ax.fill_between(layer, change - error, change + error, color=colour, alpha=0.25, linewidth=0)
        if metric == "loss":
            ax.set_yscale("symlog", linthresh=0.1, linscale=1.0)
            ax.set_yticks([-1, -0.1, 0, 0.1, 1, 10], ["−1", "−.1", "0", ".1", "1", "10"])
            ax.minorticks_off()
            for edge in (-0.1, 0.1):
                ax.axhline(edge, color="0.85", linewidth=0.4, linestyle=":", zorder=0)
    label_panels(axes, y=METRICS[metric])
    if metric == "loss":
        label_panels(axes, "scale: linear between the dotted lines at ±.1, logarithmic beyond", fontsize=5.5)
    look = {"columnspacing": 0.8, "handlelength": 1.0, "handletextpad": 0.3, "title_fontsize": 6.5}
    legend(axes.flat[0], title="fraction of rank kept, ρ", ncols=min(8, len(rhos)), **look)


def _map(axes: np.ndarray, edited: pd.DataFrame, metric: str) -> None:
    """Colours over layers and ρ, with a dot where the change is better than 0 beyond its interval."""
    rhos, layers = sorted(set(edited["rho"])), sorted(set(edited["layer"]))
    most = max(float(edited["change"].abs().max()), 0.1)
    norm = SymLogNorm(0.1, vmin=-most, vmax=most)
    sign, colours = (-1, "RdBu_r") if metric == "loss" else (1, "RdBu")
    image: Any = None
    for matrix, ax in zip(matrices_of(edited), axes.flat, strict=False):
        rows = edited[edited["matrix"] == matrix]
        error = 1.96 * rows["loss_change_se"] if metric == "loss" else 0.0
        wide = rows.pivot_table(index="rho", columns="layer", values="change").reindex(index=rhos, columns=layers)
        image = ax.pcolormesh(layers, range(len(rhos)), wide, cmap=diverging(colours), norm=norm, rasterized=True)
        better = rows[sign * rows["change"] - error > 0]
        ax.plot(better["layer"], [rhos.index(rho) for rho in better["rho"]], ".", color="black", markersize=1.0)
        ax.set_yticks(range(len(rhos)), [f"{rho:g}" for rho in rhos], fontsize=5.5)
    label_panels(axes, "layer", "fraction of rank kept, ρ")
    panels = list(axes.flat)
    bar = panels[0].figure.colorbar(image, ax=panels, location="top", aspect=40, shrink=0.8, label=METRICS[metric])
    ticks = [tick for tick in (-10, -1, -0.1, 0, 0.1, 1, 10) if abs(tick) <= most]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()


def drawn_split(cells: pd.DataFrame) -> str:
    """The split whose rows are drawn: test, if it has LASER at more than one site; else validation, if it is there."""
    splits = set(cells["split"])
    tested = cells[(cells["split"] == "test") & (cells["kind"] == "laser")]
    if len(splits) == 1:
        return str(*splits)
    return "test" if tested["site"].nunique() > 1 else "validation"


def matrices_of(edited: pd.DataFrame) -> list[str]:
    """The matrices of the cells, in the order in which they are drawn.

    Raises:
        ValueError: there is none.
    """
    matrices = [m for m in MATRICES if m in set(edited["matrix"])]
    if not matrices:
        raise ValueError(
            "the cells hold no LASER at a single site: this figure is for the methods grid, race, gradient and random"
        )
    return matrices
