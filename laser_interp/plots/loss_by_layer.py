"""Change of loss, or of another mean, by layer, matrix and ρ."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.choices import MATRICES, names_with_suggestion
from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import diverging, legend, new_figure, sequence

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
    from matplotlib.ticker import MaxNLocator

    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}: expected {names_with_suggestion(METRICS, metric)}")
    cells = cells[cells["split"] == drawn_split(cells)]
    base = float(cells.loc[cells["kind"] == "base", metric].iloc[0])
    edited = cells[cells["kind"] == "laser"]
    matrices = matrices_of(edited)
    rhos = sorted(set(edited["rho"]), reverse=True)
    colours = dict(zip(rhos, sequence(len(rhos)), strict=True))
    n_columns = min(3, len(matrices))
    n_rows = -(-len(matrices) // n_columns)
    figure, axes = new_figure(n_rows, n_columns, 0.75 + 1.15 * n_rows, sharex=True, sharey=True)
    if edited["layer"].nunique() > _MOST_LINES:
        return _map(figure, axes, edited, base, metric)
    for ax, matrix in zip(axes.flat, matrices, strict=False):
        ax.axhline(0, color="0.6", linewidth=0.5)
        for number, rho in enumerate(rhos):
            line = edited[(edited["matrix"] == matrix) & (edited["rho"] == rho)].sort_values("layer")
            change = line[metric] - base
            ax.plot(
                line["layer"], change, marker=_MARKERS[number % len(_MARKERS)], markersize=2.2, color=colours[rho],
                label=f"{rho:g}",
            )  # fmt: skip
            if metric == "loss":
                error = 1.96 * line["loss_change_se"]
                ax.fill_between(
                    line["layer"], change - error, change + error, color=colours[rho], alpha=0.25, linewidth=0
                )
        ax.set_title(f"$W_{{\\mathrm{{{matrix}}}}}$")
        if metric == "loss":
            ax.set_yscale("symlog", linthresh=0.1, linscale=1.0)
            ax.set_yticks([-1, -0.1, 0, 0.1, 1, 10], ["−1", "−.1", "0", ".1", "1", "10"])
            ax.minorticks_off()
            for edge in (-0.1, 0.1):
                ax.axhline(edge, color="0.85", linewidth=0.4, linestyle=":", zorder=0)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    for ax in _lowest_shown(axes, len(matrices)):
        ax.set_xlabel("layer")
        ax.tick_params(labelbottom=True)
    figure.supylabel(METRICS[metric], fontsize=7)
    if metric == "loss":
        figure.supxlabel("scale: linear between the dotted lines at ±.1, logarithmic beyond", fontsize=5.5)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    legend(
        figure, handles, labels, title="fraction of rank kept, ρ", ncols=min(8, len(labels)), columnspacing=0.8,
        handlelength=1.0, handletextpad=0.3, title_fontsize=6.5,
    )  # fmt: skip
    return figure


def _map(figure: Figure, axes: np.ndarray, edited: pd.DataFrame, base: float, metric: str) -> Figure:
    """A panel a matrix: colours over layers and ρ."""
    from matplotlib.colors import SymLogNorm
    from matplotlib.ticker import MaxNLocator

    matrices, rhos = matrices_of(edited), sorted(set(edited["rho"]))
    layers = sorted(set(edited["layer"]))
    change = edited[metric] - base
    norm = SymLogNorm(0.1, vmin=-(most := max(float(change.abs().max()), 0.1)), vmax=most)
    sign = -1 if metric == "loss" else 1
    image: Any = None
    for ax, matrix in zip(axes.flat, matrices, strict=False):
        rows = edited[edited["matrix"] == matrix].assign(change=change)
        error = 1.96 * rows["loss_change_se"] if metric == "loss" else 0.0
        wide = rows.pivot_table(index="rho", columns="layer", values="change").reindex(index=rhos, columns=layers)
        colours = diverging("RdBu_r" if metric == "loss" else "RdBu")
        image = ax.pcolormesh(layers, range(len(rhos)), wide, cmap=colours, norm=norm, rasterized=True)
        better = rows[sign * rows["change"] - error > 0]
        ax.plot(better["layer"], [rhos.index(rho) for rho in better["rho"]], ".", color="black", markersize=1.0)
        ax.set_yticks(range(len(rhos)), [f"{rho:g}" for rho in rhos], fontsize=5.5)
        ax.set_title(f"$W_{{\\mathrm{{{matrix}}}}}$")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    for ax in _lowest_shown(axes, len(matrices)):
        ax.tick_params(labelbottom=True)
    figure.supxlabel("layer", fontsize=7)
    figure.supylabel("fraction of rank kept, ρ", fontsize=7)
    bar = figure.colorbar(image, ax=list(axes.flat), location="top", aspect=40, shrink=0.8, label=METRICS[metric])
    ticks = [tick for tick in (-10, -1, -0.1, 0, 0.1, 1, 10) if abs(tick) <= most]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    return figure


def _lowest_shown(axes: np.ndarray, n: int) -> list[Any]:
    """Hide all panels but the first n. Returns the lowest one of each column."""
    for ax in axes.flat[n:]:
        ax.set_visible(False)
    return [[ax for ax in column if ax.get_visible()][-1] for column in axes.T]


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
