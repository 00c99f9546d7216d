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

# Widths in inches of one column and of the page's text, as each venue's template has them. NeurIPS has one column:
# half of its text stands for it.
WIDTHS = {
    "paper": (3.25, 6.75),
    "neurips": (2.75, 5.5),
    "icml": (3.25, 6.75),
    "acl": (3.03, 6.3),
    "nature": (3.5, 7.2),
}

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


def style_of(style: str = "paper", columns: int = 1) -> dict[str, Any]:
    """matplotlib settings of a venue: its fonts and sizes, its width, fonts embedded as TrueType.

    Args:
        style: one of `WIDTHS`. NeurIPS and ICML are tueplots', Nature is SciencePlots'; no maintained package has ACL,
            which is Times at the sizes of its template.
        columns: 1 or 2: the width of a column, or of the page's text.

    Raises:
        ValueError: another style or number of columns.
    """
    if style not in WIDTHS:
        raise ValueError(f"style is {style!r}: expected one of {', '.join(WIDTHS)}")
    if columns not in (1, 2):
        raise ValueError(f"columns is {columns}: expected 1 or 2")
    given: dict[str, Any] = {}
    if style in ("neurips", "icml"):
        from tueplots import bundles

        bundle = bundles.neurips2024 if style == "neurips" else bundles.icml2024
        given = {str(name): value for name, value in bundle(usetex=False).items()}
    elif style == "nature":
        import matplotlib.style
        import scienceplots  # noqa: F401  # registers its styles

        given = {str(name): value for name, value in matplotlib.style.library["nature"].items()}
        given["font.sans-serif"] = ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"]
    elif style == "acl":
        given = {"font.size": 9, "axes.labelsize": 9, "axes.titlesize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8}
        given |= {"legend.fontsize": 8}
    # Sizes and fonts are the venue's; colours and layout are ours.
    ours = ("axes.prop_cycle", "font.serif")
    wanted = {
        name: value
        for name, value in given.items()
        if name not in ours and (name.partition(".")[0] in ("font", "axes", "xtick", "ytick") or "fontsize" in name)
    }
    serif = {"font.serif": ["Times New Roman", "Times", "STIXGeneral", "DejaVu Serif"]} if style != "paper" else {}
    width = WIDTHS[style][columns - 1]
    if width < 3.2:  # a narrow column has no room for more
        wanted |= {k: min(v, 7.5) for k, v in wanted.items() if k.endswith("size") and isinstance(v, int | float)}
    return PAPER_STYLE | wanted | serif | {"figure.figsize": (width, 2.5), "text.usetex": False}


@contextmanager
def paper_style(style: str = "paper", columns: int = 1) -> Iterator[None]:
    """Figures made inside are drawn for print, see `style_of`; nothing changes outside."""
    import matplotlib as mpl

    told: Any = style_of(style, columns)
    with _quiet_fonts(), mpl.rc_context(told):
        yield


@contextmanager
def _quiet_fonts() -> Iterator[None]:
    """The first font of a list that is installed is taken, without a word for each other."""
    import logging

    log = logging.getLogger("matplotlib.font_manager")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _figure(rows: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """A figure of the style's width; `height` in inches. A notebook shows it, in its style, without `%matplotlib`."""
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Fonts are looked up when a figure is drawn, which may be after its style's block has ended.
    fonts: Any = {name: value for name, value in mpl.rcParams.items() if name.startswith(("font.", "mathtext."))}

    class Shown(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            data = io.BytesIO()
            with _quiet_fonts(), mpl.rc_context(fonts):
                self.savefig(data, format="png", dpi=220, metadata={"Software": None})
            return data.getvalue(), {"width": round(110 * self.get_figwidth())}

    figure = Shown(figsize=(mpl.rcParams["figure.figsize"][0], height))
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
            change = line["loss"] - base
            ax.plot(line["layer"], change, marker="o", color=colours[rho], label=f"{rho:g}")
            error = 1.96 * line["loss_change_se"]
            ax.fill_between(line["layer"], change - error, change + error, color=colours[rho], alpha=0.25, linewidth=0)
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
    metrics = [one for one in (("top1", "-"), ("top10", "--")) if f"{one[0]}_before" in cumulative.columns]
    for metric, line in metrics:
        for when, label, c in (("before", "as trained", colour[0]), ("after", "LASER", colour[1])):
            ax.plot(
                cumulative["n_both"], cumulative[f"{metric}_{when}"], line, color=c,
                label=label if metric == "top1" else f"{label}, top-10",
            )  # fmt: skip
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("frequency ≤ N")
    ax.set_ylabel(", ".join({"top1": "top-1", "top10": "top-10"}[metric] for metric, _ in metrics))
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
    axes[1, 1].set_title("(d) fixed, broken")
    for ax in axes[1]:
        _frequency_axis(ax, bins)
    entries = [entry for ax in (axes[0, 0], axes[1, 1]) for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    figure.legend(
        [handle for handle, _ in entries], [label for _, label in entries], loc="outside upper center", ncols=3,
        columnspacing=1.0, handlelength=1.6, handletextpad=0.4,
    )  # fmt: skip
    return figure


def _frequency_axis(ax: Axes, bins: pd.DataFrame) -> None:
    labels = [f"{lo:.0f}–{hi:.0f}" if lo != hi else f"{lo:.0f}" for lo, hi in zip(bins["lo"], bins["hi"], strict=True)]
    ax.set_xticks(np.arange(len(bins)), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=6)
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("frequency")


def accuracy_by_frequency(bins: pd.DataFrame) -> Figure:
    """How well a model knows facts, by how often training showed them."""
    figure, axes = _figure(1, 1, 2.0)
    ax = axes.flat[0]
    _points(ax, np.arange(len(bins), dtype=float), bins, "base_top1", None, _palette()[0])
    _frequency_axis(ax, bins)
    ax.set_ylabel("accuracy")
    return figure


def compared_edits(table: pd.DataFrame) -> Figure:
    """Several edits: change of accuracy, and odds ratio of being fixed per tenfold frequency."""
    figure, axes = _figure(1, 2, 0.7 + 0.17 * len(table), sharey=True)
    y = np.arange(len(table))[::-1]
    colours = [_palette()[7 if placebo else 0] for placebo in table["placebo"]]
    for ax, name, lo, hi, neutral, label in (
        (axes.flat[0], "change", "change_lo", "change_hi", 0.0, "change of\naccuracy"),
        (axes.flat[1], "odds_ratio", "odds_lo", "odds_hi", 1.0, "odds ratio of fixed,\n10-fold frequency"),
    ):
        ax.axvline(neutral, color="0.7", linewidth=0.6)
        for at, colour, row in zip(y, colours, table.to_dict("records"), strict=True):
            if np.isfinite(row[name]):
                ax.plot([row[lo], row[hi]], [at, at], color=colour, linewidth=0.8)
                ax.plot([row[name]], [at], "o", color=colour)
        ax.set_xlabel(label)
    axes.flat[0].locator_params(axis="x", nbins=3)
    axes.flat[1].set_xscale("log")
    lo, hi = axes.flat[1].get_xlim()
    axes.flat[1].set_xlim(max(lo, 1 / 50), min(hi, 50))  # an interval may reach anywhere where little was fixed
    axes.flat[0].set_yticks(
        y, [f"{e} (placebo)" if p else str(e) for e, p in zip(table["edit"], table["placebo"], strict=True)]
    )
    return figure


def frequency_trap(bins: pd.DataFrame, rates: pd.DataFrame) -> Figure:
    """Simulated: an edit that ignores frequency, in the paper's plot and ours; and how often each finds an effect."""
    colour = _palette()
    figure, axes = _figure(1, 2, 2.5)
    x = np.arange(len(bins))
    ax = axes.flat[0]
    ax.bar(x, 100 * bins["gain"], color=colour[4], width=0.6, label="(a) gain in accuracy, points: the paper's plot")
    ax.plot(x, 100 * bins["p_fixed_given_wrong"], "o-", color=colour[2], label="(a) fixed, % of those wrong before")
    ax.set_ylim(0)
    ax.set_xticks(x, [f"{lo:.0f}–{hi:.0f}" for lo, hi in zip(bins["lo"], bins["hi"], strict=True)], rotation=50,
                  ha="right", rotation_mode="anchor", fontsize=6)  # fmt: skip
    ax.set_xlabel("frequency")
    ax.set_title("(a) an edit that ignores it")
    ax = axes.flat[1]
    shown = {
        "Spearman, top1: permuted p < .05": "ρ of the gain",
        "Spearman, fixed: permuted p < .05": "ρ of fixed",
        "report finds an association": "report's p",
    }
    y = np.arange(len(shown))[::-1]
    effects = list(dict.fromkeys(rates["effect"]))
    for i, effect in enumerate(effects):
        share = rates[rates["effect"] == effect].set_index("statistic")["share"]
        ax.barh(y + 0.27 * (1 - i), [100 * share[name] for name in shown], 0.25,
                color=["0.7", colour[0], colour[1]][i], label=f"(b) effect: {effect}")  # fmt: skip
    ax.axvline(5, color="0.2", linewidth=0.6, linestyle=":")
    ax.set_yticks(y, list(shown.values()), fontsize=6)
    ax.set_xlabel("significant, % of data sets")
    ax.set_title("(b) what finds it")
    handles = [entry for ax in axes.flat for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    figure.legend([h for h, _ in handles], [label for _, label in handles], loc="outside upper center", ncols=1,
                  handlelength=1.6, handletextpad=0.4)  # fmt: skip
    return figure


def robustness(table: pd.DataFrame) -> Figure:
    """Facts right on every paraphrase, on any, and how far paraphrases agree, under each edit."""
    colour = _palette()
    figure, axes = _figure(1, 1, 1.9)
    ax = axes.flat[0]
    x = np.arange(len(table))
    for i, (name, label) in enumerate(
        (("all_right", "right on all prompts"), ("accuracy", "right, per prompt"), ("any_right", "right on any"),
         ("agreement", "prompts agree"))
    ):  # fmt: skip
        at = x + 0.2 * (i - 1.5)
        ax.bar(at, table[name], 0.18, color=colour[i], label=label)
        _whiskers(ax, at, table, name)
    ax.set_xticks(x, [_NAMES.get(str(e), str(e)) for e in table["edit"]])
    ax.set_ylim(0, 1.03)
    ax.set_ylabel("share of facts")
    figure.legend(loc="outside upper center", ncols=2, columnspacing=1.0)
    return figure


def transfer(table: pd.DataFrame) -> Figure:
    """Change of each task's score under the edit chosen for each, as a heat map."""
    wide = 100 * table.pivot(index="edit", columns="task", values="change")
    order = list(dict.fromkeys(table["edit"])), list(dict.fromkeys(table["task"]))
    wide = wide.loc[order]
    low, high = (
        100 * table.pivot(index="edit", columns="task", values=f"change_{end}").loc[order].to_numpy(float)
        for end in ("lo", "hi")
    )
    figure, axes = _figure(1, 1, 0.9 + 0.3 * len(wide))
    ax = axes.flat[0]
    most = max(float(np.nanmax(np.abs(wide.to_numpy()))), 1e-9)
    image = ax.imshow(wide, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
    for (i, j), value in np.ndenumerate(wide.to_numpy(float)):
        ink = "w" if abs(value) > 0.6 * most else "k"
        ax.text(j, i - 0.17, f"{value:+.1f}", ha="center", va="center", fontsize=6, color=ink)
        interval = f"{low[i, j]:+.0f}, {high[i, j]:+.0f}"
        ax.text(j, i + 0.25, interval, ha="center", va="center", fontsize=4.8, color=ink)
    ax.set_xticks(range(wide.shape[1]), list(wide.columns), rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(wide.shape[0]), [f"edit for {name}" for name in wide.index])
    figure.colorbar(image, ax=ax, label="points", fraction=0.05)
    return figure


def _ends(table: pd.DataFrame, name: str) -> np.ndarray:
    """An interval as distances, as matplotlib wants it; a percentile interval need not contain its estimate."""
    return np.abs(np.vstack([table[name] - table[f"{name}_lo"], table[f"{name}_hi"] - table[name]]))


def _points(ax: Axes, x: np.ndarray, table: pd.DataFrame, name: str, label: str | None, colour: Any) -> None:
    ax.errorbar(
        x, table[name], yerr=_ends(table, name), fmt="o", color=colour, label=label, elinewidth=0.7, capsize=1.2
    )


def _whiskers(ax: Axes, x: np.ndarray, table: pd.DataFrame, name: str, at: Any = None) -> None:
    """An interval on each bar."""
    ax.errorbar(
        x, table[name] if at is None else at, yerr=_ends(table, name), fmt="none", ecolor="0.15", elinewidth=0.6,
        capsize=1.2,
    )  # fmt: skip


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
        # Generic words are on top of the stack: their share is what is above the bar's last boundary
        upside_down = table.assign(generic_lo=table["generic_hi"], generic_hi=table["generic_lo"])
        _whiskers(ax, np.arange(len(table)), upside_down, "generic", at=1 - table["generic"])
        ax.set_xticks(range(len(table)), labels, rotation=60, ha="right", rotation_mode="anchor")
        ax.set_xlabel("share of the discarded part")
        ax.set_title(f"{'all prompts' if outcome == 'all' else 'fixed by LASER'} (n = {int(table['n'].iloc[0])})")
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
    ax.errorbar(order["top1"], y, xerr=_ends(order, "top1"), fmt="none", ecolor="0.15", elinewidth=0.7, capsize=1.5)
    drawn = (order["n_draws"] > 1).to_numpy()
    for name in ("top1_lowest", "top1_highest"):
        ax.plot(order.loc[drawn, name], y[drawn], "o", color="0.15", markersize=1.6, markeredgewidth=0)
    base = float(table.loc[table["control"] == "base", "top1"].iloc[0])
    ax.axvline(base, color=colour[0], linewidth=0.6, linestyle="--", zorder=0)
    ax.set_yticks(y, [_NAMES.get(name, name) for name in order["control"]], fontsize=6, linespacing=0.9)
    ax.set_xlim(0, 1)
    ax.set_xlabel("top-1 on test prompts")
    return figure


def spectrum(table: pd.DataFrame) -> Figure:
    """Singular values of each site, the largest value that noise alone would have, and where LASER cuts.

    Args:
        table: `site, direction, singular_value, noise_edge, rank_kept`.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    sites = list(dict.fromkeys(table["site"]))
    figure, axes = _figure(1, len(sites), 2.0, sharey=True)
    colour = _palette()
    for ax, site in zip(axes.flat, sites, strict=True):
        of = table[table["site"] == site].sort_values("direction")
        ax.plot(of["direction"] + 1, of["singular_value"], color=colour[0], label="singular values")
        ax.axhline(of["noise_edge"].iloc[0], color=colour[7], linestyle="--", linewidth=0.8, label="edge of noise")
        ax.axvline(
            of["rank_kept"].iloc[0] + 0.5, color=colour[1], linewidth=0.9, label="LASER keeps what is to its left"
        )
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("direction")
        ax.set_title(site)
    axes[0, 0].set_ylabel("singular value")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=1, handlelength=1.6)
    return figure


def composition(steps: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Greedy composition: accuracy and loss on validation after each edit that was kept, and on test before and after.

    Args:
        steps, scores: of a `Composition`.
    """
    kept = steps[steps["kept"]]
    colour = _palette()
    figure, axes = _figure(1, 2, 2.4, sharex=True)
    names = ["as trained", *(f"{site}, ρ {rho:g}" for site, rho in zip(kept["site"], kept["rho"], strict=True))]
    ends = scores.set_index(["edit", "split"])
    for ax, column, label in zip(axes.flat, ("top1", "loss"), ("top-1", "loss (nats)"), strict=False):
        ax.plot(range(len(names)), [ends.loc[("base", "validation"), column], *kept[column]], "o-", color=colour[0],
                label="validation, which chose the edits")  # fmt: skip
        tested = [(x, name) for x, name in ((0, "base"), (len(kept), "composed")) if (name, "test") in ends.index]
        ax.plot([x for x, _ in tested], [ends.loc[(name, "test"), column] for _, name in tested], "D", color=colour[1],
                label="test")  # fmt: skip
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=6)
        ax.set_ylabel(label)
    figure.supxlabel("edit added", fontsize=7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, columnspacing=1.0)
    return figure


def attribution_map(table: pd.DataFrame, *, n_bins: int = 16) -> Figure:
    """Mean gradient of log p(answer) to the gain of each direction: a row a site, directions from large to small.

    Args:
        table: `Attribution.summary()`: `site, direction, gradient, n`, also by groups.
        n_bins: a matrix's directions are averaged in so many bins.
    """
    weighed = table.assign(total=table["gradient"] * table["n"]).groupby(["site", "direction"], as_index=False)
    mean = weighed[["total", "n"]].sum()
    rank = mean.groupby("site")["direction"].transform("max") + 1
    mean["bin"] = (mean["direction"] * n_bins // rank).clip(upper=n_bins - 1)
    mean["value"] = mean["total"] / mean["n"]
    wide = mean.pivot_table(index="site", columns="bin", values="value", aggfunc="sum")
    order = sorted(wide.index, key=lambda site: (site.partition(".")[2], int(site.partition(".")[0])))
    wide = wide.loc[order]
    figure, axes = _figure(1, 1, 0.8 + 0.11 * len(wide))
    ax = axes[0, 0]
    most = max(float(np.nanquantile(np.abs(wide.to_numpy()), 0.98)), 1e-9)
    image = ax.imshow(wide, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
    ax.set_yticks(range(len(wide)), list(wide.index), fontsize=5.5)
    ax.set_xticks([-0.5, n_bins - 0.5], ["largest", "smallest"])
    ax.set_xlabel("directions, by singular value")
    figure.colorbar(image, ax=ax, label="∂ log p(answer) / ∂ gain", fraction=0.05)
    return figure


# name -> (function, the tables it draws, in order)
FIGURES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "layer_sweep": (layer_sweep, ("layer_sweep",)),
    "spectrum": (spectrum, ("spectrum",)),
    "rare_facts": (rare_facts, ("rare_facts_bins", "rare_facts_cumulative", "rare_facts_paper_ratio")),
    "discarded_answers": (discarded_answers, ("discarded_categories",)),
    "controls": (controls, ("controls",)),
    "robustness": (robustness, ("robustness",)),
    "composition": (composition, ("composition", "composition_scores")),
    "transfer": (transfer, ("transfer",)),
    "attribution_map": (attribution_map, ("directions_gradients",)),
    "compared_edits": (compared_edits, ("rare_facts_placebo",)),
    "frequency_trap": (frequency_trap, ("trap_bins", "trap_rates")),
}
CAPTIONS = {
    "layer_sweep": (
        "Change of the loss (mean −log p of the answer, nats) when one matrix keeps the fraction ρ of its rank, by"
        " layer and matrix; below zero is better. The axis is linear to ±.5 and logarithmic beyond. Bands are 95 % "
        "intervals, errors clustered by subject."
    ),
    "spectrum": (
        "Singular values of the edited matrix, the Marchenko–Pastur edge (the largest value that a matrix of noise"
        " alone would have, its scale estimated from the median), and the rank that LASER keeps."
    ),
    "rare_facts": (
        "(a, b) The paper's views: accuracy on facts of training frequency at most N, and corrected answers for "
        "each originally right one. (c) Top-1 by frequency in bins of equal numbers of facts. (d) Among prompts "
        "answered wrong before, the share fixed; among those right before, the share broken. Bars are 95 % "
        "intervals from a bootstrap over subjects; where all or none of a bin are hit, the exact binomial bound on"
        " subjects. (a) and (b) slope even for an edit that ignores frequency; (d) need not."
    ),
    "discarded_answers": (
        "Category of the most probable answer as trained, under LASER, and under growing shares of the discarded "
        "part alone (smallest singular values first). Lines are 95 % intervals of the share of generic words, from a "
        "bootstrap over subjects; those of the others are in the data."
    ),
    "controls": (
        "Top-1 under LASER, under controls that edit as much of the same matrix otherwise, and without an edit but"
        " with generic words masked. Lines are 95 % intervals from a bootstrap over subjects. Bars of controls drawn"
        " several times are means, their dots the lowest and highest draw."
    ),
    "robustness": (
        "Share of facts answered right on all their prompts, per prompt, on any prompt, and agreement among "
        "prompts. Lines are 95 % intervals from a bootstrap over subjects."
    ),
    "composition": (
        "Greedy composition: accuracy and loss after each edit that was kept, in order, on validation, which chose the "
        "edits, and on test, which did not. No intervals are drawn."
    ),
    "transfer": (
        "Change of each task's score on test, in points, under the edit chosen for each task; below each its 95 % "
        "interval from a bootstrap over subjects."
    ),
    "attribution_map": (
        "Mean gradient of log p(answer) with respect to the gain of each singular direction, summed in bins of "
        "directions from the largest to the smallest; below zero, removing the directions helps. No intervals are "
        "drawn."
    ),
    "compared_edits": (
        "Change of accuracy, and odds ratio of a wrong answer being fixed per tenfold frequency, of the edit and "
        "of random edits of equal norm. Intervals hold for all edits at once (Bonferroni, 95 %), resampling "
        "subjects."
    ),
    "frequency_trap": (
        "Simulated. (a) An edit that fixes wrong answers at a rate that ignores frequency: gain in accuracy, and "
        "share fixed of those wrong. (b) How often each statistic is significant at 5 %, by the size of the true "
        "effect."
    ),
}


# Figures of one edit, which their captions name; the others show many, or none.
_OF_ONE_EDIT = ("spectrum", "rare_facts", "discarded_answers", "controls", "robustness", "compared_edits")


def _numbers(name: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """How many prompts or facts a figure shows, and of which split."""
    first, last = (tables[FIGURES[name][1][k]] for k in (0, -1))
    if name in ("spectrum", "frequency_trap"):
        return ""
    if name == "composition":
        sizes = last.drop_duplicates("split").set_index("split")["n"]
        return ", ".join(f"n = {n} prompts of the {split} split" for split, n in sizes.items())
    if name == "attribution_map":  # summaries have a row a direction, or one a direction and group
        n = first.groupby(["site", "direction"])["n"].sum().max()
        return f"n = {int(n)} prompts"
    if name == "robustness":
        return f"n = {int(first['n_facts'].max())} facts, test split"
    if name == "transfer":
        lo, hi = int(first["n"].min()), int(first["n"].max())
        return f"n = {lo if lo == hi else f'{lo} to {hi}'} prompts a task, test split"
    if name == "layer_sweep":  # the split that it draws
        split = "test" if "test" in set(first["split"]) else str(first["split"].iloc[0])
        return f"n = {int(first.loc[first['split'] == split, 'n'].max())} prompts, {split} split"
    n = f"n = {int(first['n'].sum() if name == 'rare_facts' else first['n'].max())} prompts, " if "n" in first else ""
    return f"{n}test split"


def caption(name: str, tables: Mapping[str, pd.DataFrame], about: Mapping[str, Any]) -> str:
    """A caption in plain text: what is drawn, over how many, of which model and edit, and what draws it again."""
    told = [_numbers(name, tables), f"model {about['model']}" if about.get("model") else ""]
    if name in _OF_ONE_EDIT and about.get("edit"):
        told.append(f"edit {about['edit']}")
    tail = f" ({', '.join(filter(None, told))}.)" if any(told) else ""
    drawn = f" Drawn by `{about['command']}`." if about.get("command") else ""
    return f"{CAPTIONS[name]}{tail}{drawn}\n"


def draw_all(
    tables: Mapping[str, pd.DataFrame],
    folder: str | Path,
    *,
    style: str = "paper",
    columns: int = 1,
    about: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Draw every figure whose tables are there, as PDF and PNG, each with its caption (.txt) and its data (.csv).

    Equal tables give equal files: no dates are written into them.

    Args:
        style, columns: see `style_of`.
        about: `model`, `edit` and `command`, for the captions; what the tables' own provenance says is taken too.
    """
    style_of(style, columns)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (draw, needed) in FIGURES.items():
        if not all(table in tables and len(tables[table]) for table in needed):
            continue
        with paper_style(style, columns):
            figure = draw(*(tables[table] for table in needed))
            for suffix, metadata in (
                (".pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
                (".png", {"Software": None}),
            ):
                figure.savefig(folder / f"{name}{suffix}", metadata=metadata)
                written.append(folder / f"{name}{suffix}")
        known = tables[needed[0]].attrs.get("provenance", {}) | dict(about or {})
        (folder / f"{name}.txt").write_text(caption(name, tables, known), encoding="utf-8")
        for table in needed:
            path = folder / (f"{name}.csv" if len(needed) == 1 else f"{name}.{table.removeprefix(name + '_')}.csv")
            tables[table].to_csv(path, index=False)
    return written
