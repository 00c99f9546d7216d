"""Accuracy, fixed and broken answers by training frequency."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.marks import frequency_axis, points
from laser_interp.plots.style import legend, new_figure, palette

_SHARES = ("p_fixed_given_wrong", "p_broken_given_right")


CAPTION = (
    "(a, b) The paper's views: accuracy on facts of training frequency at most N, and corrected answers for "
    "each originally right one. (c) Top-1 by frequency in bins of equal numbers of facts. (d) Among prompts "
    "answered wrong before, the share fixed; among those right before, the share broken. Bars are 95 % "
    "intervals over subjects (Wilson's, at the effective number of prompts). "
    "An edit that ignores frequency also gives a slope in all four, because frequent facts are nearer to being right: "
    "slopes in nats (frequency_slopes) and an edit that is blind to frequency (the report) tell more."
)


def _sample(bins: pd.DataFrame, *_: pd.DataFrame) -> str:
    return f"n = {int(bins['n'].sum())} prompts, test split"


@figure_function(
    "rare_facts_bins",
    "rare_facts_cumulative",
    "rare_facts_paper_ratio",
    caption=CAPTION,
    sample=_sample,
    of_one_edit=True,
)
def rare_facts(bins: pd.DataFrame, cumulative: pd.DataFrame, paper_ratio: pd.DataFrame) -> Figure:
    """The paper's two frequency plots above, what is fixed and broken by frequency below."""
    colour = palette()
    figure, axes = new_figure(2, 2, 3.4)

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
    ax.set_xticks(range(len(shown)), [f"{f}\n{n}" for f, n in zip(shown["frequency"], shown["n"], strict=True)])
    ax.set_xlabel("frequency, and prompts")
    ax.set_ylabel("corrected ÷\noriginally correct")
    ax.set_title("(b) paper: ratio")

    x = np.arange(len(bins))
    points(axes[1, 0], x - 0.12, bins, "base_top1", None, colour[0])
    points(axes[1, 0], x + 0.12, bins, "edit_top1", None, colour[1])
    axes[1, 0].set_ylabel("top-1")
    axes[1, 0].set_title("(c) by frequency")
    points(axes[1, 1], x - 0.12, bins, "p_fixed_given_wrong", "P(fixed | wrong before)", colour[2])
    points(axes[1, 1], x + 0.12, bins, "p_broken_given_right", "P(broken | right before)", colour[3])
    axes[1, 1].set_ylabel("probability")
    axes[1, 1].set_title("(d) fixed, broken")
    for ax, columns in zip(axes[1], (("base_top1", "edit_top1"), _SHARES), strict=True):
        frequency_axis(ax, bins)
        ax.set_ylim(*_limits(bins, columns))
    entries = [entry for ax in (axes[0, 0], axes[1, 1]) for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    legend(
        figure, [handle for handle, _ in entries], [label for _, label in entries], ncols=3,
        columnspacing=1.0, handlelength=1.6, handletextpad=0.4,
    )  # fmt: skip
    return figure


def _limits(bins: pd.DataFrame, columns: Sequence[str]) -> tuple[float, float]:
    """Ends of the y axis: slightly below 0, so that points at 0 are not cut, and 1 or, for low values, a lower end."""
    ends = bins[[f"{column}_hi" for column in columns]].to_numpy(float)
    highest = float(np.nanmax(ends)) if np.isfinite(ends).any() else 1.0
    top = 1.03 if highest > 0.6 else 1.15 * highest
    return -0.03 * top, top


@figure_function(
    "rare_facts_bins",
    caption="Accuracy in bins of training frequency. Bars are 95 % intervals over subjects.",
    sample=_sample,
)
def accuracy_by_frequency(bins: pd.DataFrame) -> Figure:
    """How well a model knows facts, by how often training showed them."""
    figure, axes = new_figure(1, 1, 2.0)
    ax = axes.flat[0]
    points(ax, np.arange(len(bins), dtype=float), bins, "base_top1", None, palette()[0])
    frequency_axis(ax, bins)
    ax.set_ylabel("accuracy")
    return figure
