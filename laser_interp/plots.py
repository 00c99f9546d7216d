"""Figures: tables in, matplotlib figures out; nothing is computed here that a table does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.25  # inches, one column of a two-column page

PAPER_STYLE: dict[str, Any] = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.0,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
}

_NAMES = {
    "base": "as trained",
    "laser": "LASER",
    "discarded": "discarded part alone",
    "same_spectrum_random": "same-spectrum random\nmatrix subtracted",
    "random_subspace": "random subspace of\nequal norm removed",
    "random_kept": "as many directions kept,\ndrawn at random",
    "random_equal_energy": "random directions of\nequal energy removed",
    "bottom_kept": "as many kept,\nthe smallest",
    "zeroed": "matrix zeroed",
    "layer_0": "same edit in layer 0",
    "generic_masked": "no edit, generic\nwords masked",
}
_CATEGORY_NAMES = {
    "correct": "correct",
    "generic": "generic word",
    "same_type": "wrong, same type",
    "other": "other",
}


def _palette() -> list[Any]:
    import seaborn as sns

    return list(sns.color_palette("colorblind"))


@contextmanager
def paper_style() -> Iterator[None]:
    """Figures made inside are drawn for print; nothing changes outside."""
    import matplotlib as mpl

    style: Any = PAPER_STYLE
    with mpl.rc_context(style):
        yield


def _figure(rows: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN_WIDTH, height))
    FigureCanvasAgg(figure)  # no global state, no window
    return figure, np.atleast_2d(figure.subplots(rows, columns, squeeze=False, **kwargs))


def layer_sweep(cells: pd.DataFrame) -> Figure:
    """Change of loss against layer: one panel a matrix, one line a ρ (below 0 is better)."""
    import seaborn as sns
    from matplotlib.ticker import MaxNLocator

    cells = cells[cells["split"] == "test"] if "test" in set(cells["split"]) else cells
    base = float(cells.loc[cells["kind"] == "base", "loss"].iloc[0])
    edited = cells[cells["kind"] == "laser"]
    matrices = [m for m in ("q", "k", "v", "o", "in", "gate", "out") if m in set(edited["matrix"])]
    rhos = sorted(set(edited["rho"]), reverse=True)
    colours = dict(zip(rhos, sns.color_palette("viridis_r", len(rhos)), strict=True))
    n_columns = 3
    n_rows = -(-len(matrices) // n_columns)
    figure, axes = _figure(n_rows, n_columns, 0.4 + 1.15 * n_rows, sharex=True, sharey=True)
    for ax, matrix in zip(axes.flat, matrices, strict=False):
        ax.axhline(0, color="0.6", linewidth=0.5)
        for rho in rhos:
            line = edited[(edited["matrix"] == matrix) & (edited["rho"] == rho)].sort_values("layer")
            ax.plot(line["layer"], line["loss"] - base, marker="o", color=colours[rho], label=f"{rho:g}")
        ax.set_title(f"$W_{{\\mathrm{{{matrix}}}}}$")
        ax.set_yscale("symlog", linthresh=0.5, linscale=1.5)
        ax.set_yticks([-0.5, 0, 0.5, 2, 8], ["−.5", "0", ".5", "2", "8"])
        ax.minorticks_off()
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes.flat[len(matrices) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    figure.supylabel("change of loss (nats)", fontsize=7.5)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, title="fraction of rank kept, ρ", loc="outside upper center", ncols=min(8, len(labels)),
        columnspacing=0.8, handlelength=1.0, handletextpad=0.3, title_fontsize=6.5,
    )  # fmt: skip
    return figure


def rare_facts(bins: pd.DataFrame, cumulative: pd.DataFrame, paper_ratio: pd.DataFrame) -> Figure:
    """The paper's two frequency plots above, what is fixed and broken by frequency below."""
    colour = _palette()
    figure, axes = _figure(2, 2, 3.4)

    ax = axes[0, 0]
    for metric, line in (("top1", "-"), ("top10", "--")):
        for when, label, c in (("before", "as trained", colour[0]), ("after", "LASER", colour[1])):
            ax.plot(
                cumulative["n_both"], cumulative[f"{metric}_{when}"], line, color=c,
                label=label if metric == "top1" else f"{label}, top-10",
            )  # fmt: skip
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("frequency ≤ N")
    ax.set_ylabel("top-1, top-10")
    ax.set_title("(a) paper: cumulative")

    ax = axes[0, 1]
    shown = paper_ratio[paper_ratio["n"] > 0]
    ax.bar(range(len(shown)), shown["ratio"], color="0.6", width=0.6)
    ax.set_xticks(range(len(shown)), [f"{f}\n(n = {n})" for f, n in zip(shown["frequency"], shown["n"], strict=True)])
    ax.set_xlabel("frequency")
    ax.set_ylabel("corrected ÷\noriginally correct")
    ax.set_title("(b) paper: ratio")

    x = np.arange(len(bins))
    _points(axes[1, 0], x - 0.12, bins, "base_top1", None, colour[0])
    _points(axes[1, 0], x + 0.12, bins, "edit_top1", None, colour[1])
    axes[1, 0].set_ylabel("top-1")
    axes[1, 0].set_title("(c) by frequency")
    _points(axes[1, 1], x - 0.12, bins, "p_fixed_given_wrong", "P(fixed | wrong before)", colour[2])
    _points(axes[1, 1], x + 0.12, bins, "p_broken_given_right", "P(broken | right before)", colour[3])
    axes[1, 1].set_ylabel("probability")
    axes[1, 1].set_title("(d) fixed and broken")
    for ax in axes[1]:
        labels = [
            f"{lo:.0f}–{hi:.0f}" if lo != hi else f"{lo:.0f}" for lo, hi in zip(bins["lo"], bins["hi"], strict=True)
        ]
        ax.set_xticks(x, labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=6)
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("frequency")
    entries = [entry for ax in (axes[0, 0], axes[1, 1]) for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    figure.legend(
        [handle for handle, _ in entries], [label for _, label in entries], loc="outside upper center", ncols=3,
        columnspacing=1.0, handlelength=1.6, handletextpad=0.4,
    )  # fmt: skip
    return figure


def _points(ax: Axes, x: np.ndarray, table: pd.DataFrame, name: str, label: str | None, colour: Any) -> None:
    value = table[name].to_numpy(float)
    # A percentile interval need not contain the estimate where a bin is small
    error = np.abs(np.vstack([value - table[f"{name}_lo"], table[f"{name}_hi"] - value]))
    ax.errorbar(x, value, yerr=error, fmt="o", color=colour, label=label, elinewidth=0.7, capsize=1.2)


def discarded_answers(categories: pd.DataFrame) -> Figure:
    """What is answered, by category: all prompts, and those the edit fixed."""
    colour = _palette()
    colours = {"correct": colour[2], "generic": colour[7], "same_type": colour[1], "other": colour[4]}
    outcomes = [name for name in ("all", "fixed") if name in set(categories["outcome"])]
    figure, axes = _figure(1, len(outcomes), 2.1, sharey=True)
    for ax, outcome in zip(axes.flat, outcomes, strict=True):
        table = categories[categories["outcome"] == outcome]
        labels = [
            {"base": "as trained", "edit": "LASER"}.get(e, f"{s:.0%}")
            for e, s in zip(table["edit"], table["share"], strict=True)
        ]
        bottom = np.zeros(len(table))
        for name in ("correct", "same_type", "other", "generic"):
            ax.bar(
                range(len(table)),
                table[name],
                bottom=bottom,
                color=colours[name],
                width=0.8,
                label=_CATEGORY_NAMES[name],
            )
            bottom += table[name].to_numpy()
        ax.axvline(1.5, color="white", linewidth=2)
        ax.set_xticks(range(len(table)), labels, rotation=60, ha="right", rotation_mode="anchor")
        ax.set_xlabel("share of the discarded part")
        ax.set_title(f"{'all prompts' if outcome == 'all' else 'prompts LASER fixed'} (n = {int(table['n'].iloc[0])})")
    axes[0, 0].set_ylabel("share of answers")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=4, columnspacing=0.8, handlelength=1.0, handletextpad=0.3
    )
    return figure


def controls(table: pd.DataFrame) -> Figure:
    """Top-1 of the edit beside its controls; a range where a control was drawn several times."""
    colour = _palette()
    order = table.iloc[::-1]
    figure, axes = _figure(1, 1, 0.45 + 0.24 * len(order))
    ax = axes[0, 0]
    colours = [
        colour[1] if name == "laser" else colour[0] if name == "base" else "0.75" if edits else colour[2]
        for name, edits in zip(order["control"], order["edits_weight"], strict=True)
    ]
    y = np.arange(len(order))
    ax.barh(y, order["top1"], color=colours, height=0.7)
    drawn = (order["n_draws"] > 1).to_numpy()
    mean = order["top1"].to_numpy()
    ax.errorbar(
        mean[drawn], y[drawn],
        xerr=np.vstack([mean - order["top1_lowest"], order["top1_highest"] - mean])[:, drawn],
        fmt="none", color="0.2", elinewidth=0.7, capsize=1.5,
    )  # fmt: skip
    base = float(table.loc[table["control"] == "base", "top1"].iloc[0])
    ax.axvline(base, color=colour[0], linewidth=0.6, linestyle="--", zorder=0)
    ax.set_yticks(y, [_NAMES.get(name, name) for name in order["control"]], fontsize=6, linespacing=0.9)
    ax.set_xlim(0, 1)
    ax.set_xlabel("top-1 on test prompts")
    return figure


# name -> (function, the tables it draws, in order)
FIGURES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "layer_sweep": (layer_sweep, ("layer_sweep",)),
    "rare_facts": (rare_facts, ("rare_facts_bins", "rare_facts_cumulative", "rare_facts_paper_ratio")),
    "discarded_answers": (discarded_answers, ("discarded_categories",)),
    "controls": (controls, ("controls",)),
}


def draw_all(tables: Mapping[str, pd.DataFrame], folder: str | Path) -> list[Path]:
    """Draw every figure whose tables are there, each as PDF and PNG.

    Equal tables give equal files: no dates are written into them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (draw, needed) in FIGURES.items():
        if not all(table in tables for table in needed):
            continue
        with paper_style():
            figure = draw(*(tables[table] for table in needed))
            for suffix, metadata in (
                (".pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
                (".png", {"Software": None}),
            ):
                figure.savefig(folder / f"{name}{suffix}", metadata=metadata)
                written.append(folder / f"{name}{suffix}")
    return written
