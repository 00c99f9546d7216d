"""The simulation of `analyses/frequency_trap.py`."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import legend, new_figure, palette


@figure_function("trap_bins", "trap_rates")
def frequency_trap(bins: pd.DataFrame, rates: pd.DataFrame) -> Figure:
    """Simulated: an edit that ignores frequency, in the paper's plot and in ours; how often each finds an effect."""
    colour = palette()
    figure, axes = new_figure(1, 2, 2.5)
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
        "Spearman, top1: p < .05": "ρ of the gain",
        "Spearman, fixed: p < .05": "ρ of fixed",
        "frequency: p < .05": "report's p",
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
    legend(figure, [h for h, _ in handles], [label for _, label in handles], ncols=1,
                  handlelength=1.6, handletextpad=0.4)  # fmt: skip
    return figure
