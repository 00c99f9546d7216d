"""Does a change depend on training frequency? In nats first; behind it accuracy by frequency, as the paper shows it."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.marks import frequency_axis, points
from laser_interp.plots.slope_points import draw_slopes, known_slopes
from laser_interp.plots.style import legend, new_figure, palette

CAPTION = (
    "(a) Slopes of the change of the answer's log-probability and log-odds per tenfold training frequency, within "
    "relations. (b) Top-1 by frequency in bins of equal numbers of facts. (c, d) The paper's views: accuracy on facts "
    "of training frequency at most N, and corrected answers for each originally right one. Bars are 95 % intervals "
    "over subjects. In b to d an edit that ignores frequency has a slope too, because frequent facts are nearer to "
    "being right; a slope in nats has no such threshold."
)


def _sample(bins: pd.DataFrame, *_: pd.DataFrame) -> str:
    return f"n = {int(bins['n'].sum())} prompts, test split"


@figure_function(
    "rare_facts_bins",
    "rare_facts_cumulative",
    "rare_facts_paper_ratio",
    "rare_facts_slopes",
    caption=CAPTION,
    sample=_sample,
    of_one_edit=True,
)
def rare_facts(bins: pd.DataFrame, cumulative: pd.DataFrame, paper_ratio: pd.DataFrame, slopes: pd.DataFrame) -> Figure:
    """The slope in nats and accuracy by frequency above, the paper's two frequency plots below, smaller."""
    colour = palette()
    figure, axes = new_figure(2, 2, 3.4, height_ratios=(1.35, 1))

    ax = axes[0, 0]
    known = known_slopes(slopes)
    draw_slopes(ax, known[known["of"].isin(["whole", "log_odds", "masked_log_odds"])])
    ax.set_xlabel("nats per tenfold frequency")
    ax.set_title("(a) slope of the change")

    ax = axes[0, 1]
    x = np.arange(len(bins))
    points(ax, x - 0.12, bins, "base_top1", colour[0])
    points(ax, x + 0.12, bins, "edit_top1", colour[1])
    frequency_axis(ax, bins)
    ax.set_ylim(*_limits(bins))
    ax.set_ylabel("top-1")
    ax.set_title("(b) by frequency")

    ax = axes[1, 0]
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
    ax.set_ylabel(", ".join(metric.replace("top", "top-") for metric, _ in metrics))
    ax.set_title("(c) paper: cumulative")

    ax = axes[1, 1]
    shown = paper_ratio[paper_ratio["n"] > 0]
    ax.bar(range(len(shown)), shown["ratio"], color="0.6", width=0.6)
    ax.set_xticks(
        range(len(shown)), [f"{f}\n{n}" for f, n in zip(shown["frequency"], shown["n"], strict=True)], fontsize=6
    )
    ax.set_xlabel("frequency, n")
    ax.set_ylabel("corrected ÷ right")
    ax.set_title("(d) paper: ratio")

    legend(axes[1, 0], ncols=2, columnspacing=1.0, handlelength=1.6, handletextpad=0.4)
    return figure


def _limits(bins: pd.DataFrame) -> tuple[float, float]:
    """Ends of the y axis: slightly below 0, so that points at 0 are not cut, and 1 or, for low values, a lower end."""
    ends = bins[["base_top1_hi", "edit_top1_hi"]].to_numpy(float)
    highest = float(np.nanmax(ends)) if np.isfinite(ends).any() else 1.0
    top = 1.03 if highest > 0.6 else 1.15 * highest
    return -0.03 * top, top


@figure_function(
    "rare_facts_bins",
    caption="Accuracy in bins of training frequency. Bars are 95 % intervals over subjects.",
    sample=_sample,
    worth_drawing=lambda bins: "edit_top1" not in bins,  # with an edit, `rare_facts` shows it
)
def accuracy_by_frequency(bins: pd.DataFrame) -> Figure:
    """How well a model knows facts, by how often training showed them."""
    figure, [[ax]] = new_figure(1, 1, 2.0)
    points(ax, np.arange(len(bins), dtype=float), bins, "base_top1", palette()[0])
    frequency_axis(ax, bins)
    ax.set_ylabel("accuracy")
    return figure
