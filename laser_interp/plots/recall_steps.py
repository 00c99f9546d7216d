"""The step of training at which a fact is first answered, against its frequency."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import legend, new_figure, palette

CAPTION = (
    "The checkpoint at which each prompt is first answered, as trained and under the edit, against how often training "
    "showed its fact. Lines: medians of groups of equal size, in which a prompt that is never answered counts as later "
    "than all. Points are moved a little, so that they do not cover each other."
)
_BINS = 6


def _sample(table: pd.DataFrame) -> str:
    return f"n = {len(table)} prompts, test split"


def _is_known(table: pd.DataFrame) -> bool:
    return "frequency" in table and bool(table[["base", "laser"]].notna().any(axis=None))


@figure_function("trajectory_recall", caption=CAPTION, sample=_sample, of_one_edit=True, worth_drawing=_is_known)
def first_recall(table: pd.DataFrame) -> Figure:
    """The step of first recall against frequency, as trained and under the edit.

    Args:
        table: `Trajectory.tables["trajectory_recall"]`.

    Raises:
        ValueError: the frequencies are not known, or no prompt is ever answered.
    """
    if not _is_known(table):
        raise ValueError(
            "no prompt is answered at any checkpoint, or its frequency is not known: give li.trajectory counts"
        )
    table = table[table["frequency"].notna()]
    colours = palette()
    first = table[["base", "laser"]].clip(lower=0.5)  # step 0 has no place on a logarithmic axis
    steps = np.unique(first.stack().dropna().to_numpy(float)).tolist()
    never = steps[-1] * max((steps[-1] / steps[0]) ** 0.12, 1.2)
    x = 1 + table["frequency"]
    bins = pd.qcut(x.rank(method="first"), min(_BINS, len(x)), labels=False)
    jitter = np.random.default_rng(0).uniform(-0.03, 0.03, (2, len(table)))
    figure, [[ax]] = new_figure(1, 1, 2.3)
    for i, (column, name) in enumerate((("base", "as trained"), ("laser", "under the edit"))):
        y, colour = first[column].fillna(never), colours[(7, 0)[i]]
        ax.plot(
            x * 10 ** jitter[0], y * 10 ** (jitter[1] - 0.02 + 0.04 * i), ".", color=colour, alpha=0.5, markersize=2.5,
            markeredgewidth=0,
        )  # fmt: skip
        of_bins = pd.DataFrame({"x": x, "y": y}).groupby(bins).median()
        ax.plot(of_bins["x"], of_bins["y"], "os"[i] + "-", color=colour, label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_yticks([*steps, never], [*(f"{int(step)}" for step in steps), "never"])
    ax.minorticks_off()
    ax.set_xlabel("1 + times that training showed the fact")
    ax.set_ylabel("step of first recall")
    legend(ax, ncols=2)
    return figure
