"""The simulation of `analyses/frequency_simulation.py`."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import legend, new_figure, palette

_REPLACED = "rejected_dummies"


@figure_function("frequency_simulation")
def frequency_simulation(table: pd.DataFrame) -> Figure:
    """How often the frequency report finds an association: where there is none, and where there is one."""
    colour = palette()
    figure, axes = new_figure(1, 2, 3.0)
    ax = axes.flat[0]
    null = table[table["slope"] == 0]
    rng = np.random.default_rng(0)  # moves points sideways, so that they do not overlap
    events = np.sort(table["events"].unique())
    for name, label, c in ((_REPLACED, "replaced", "0.6"), ("rejected", "the report", colour[0])):
        x = np.searchsorted(events, null["events"]) + rng.uniform(-0.25, 0.25, len(null))
        ax.plot(x, 100 * null[name], "o", color=c, label=f"(a) {label}, each kind of data")
    ax.axhline(5, color="0.2", linewidth=0.6, linestyle=":")
    ax.set_yscale("symlog", linthresh=10)
    ax.set_ylim(-0.5, 110)
    ax.set_yticks([0, 5, 10, 50, 100], ["0", "5", "10", "50", "100"])
    ax.set_title("(a) frequency says nothing")
    ax.set_ylabel("finds something, % of data sets")
    ax = axes.flat[1]
    power = table[table["family"] == "power"]
    for i, slope in enumerate(sorted(power["slope"].unique())):
        rows = power[power["slope"] == slope].sort_values("events")
        rate, x = rows["rejected"].to_numpy(float), np.searchsorted(events, rows["events"])
        half_width = 1.96 * np.sqrt(rate * (1 - rate) / rows["n"].to_numpy(float))
        ax.errorbar(x, 100 * rate, yerr=100 * half_width, fmt="o-", color=colour[1 + i], elinewidth=0.7, capsize=1.2,
                    label=f"(b) odds × {np.exp(slope):.2f} per tenfold frequency")  # fmt: skip
    ax.set_ylim(-3, 103)
    ax.set_title("(b) it says something")
    for ax in axes.flat:
        ax.set_xticks(np.arange(len(events)), [f"{n:g}" for n in events], fontsize=6, rotation=45)
        ax.set_xlabel("fixed facts, expected")
    handles = [entry for ax in axes.flat for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    legend(figure, [h for h, _ in handles], [label for _, label in handles], ncols=1,
                  handlelength=1.6, handletextpad=0.4)  # fmt: skip
    return figure
