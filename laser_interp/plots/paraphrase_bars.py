"""Facts that are right on all of their prompts, on any, and how far prompts agree."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.marks import whiskers
from laser_interp.plots.names import EDITS
from laser_interp.plots.style import legend, new_figure, palette

CAPTION = (
    "Share of facts that are right on all of their prompts; share of prompts that are right; share of facts that "
    "are right on any prompt; and share of pairs of a fact's prompts that get the same answer. Lines are 95 % "
    "intervals over subjects."
)


def _sample(table: pd.DataFrame) -> str:
    return f"n = {int(table['n_facts'].max())} facts, test split"


@figure_function("robustness", caption=CAPTION, sample=_sample, of_one_edit=True)
def robustness(table: pd.DataFrame) -> Figure:
    """Facts right on every paraphrase, on any, and how far paraphrases agree, under each edit."""
    colour = palette()
    figure, [[ax]] = new_figure(1, 1, 1.9)
    x = np.arange(len(table))
    for i, (name, label) in enumerate(
        (("all_right", "right on all prompts"), ("accuracy", "right, per prompt"), ("any_right", "right on any"),
         ("agreement", "prompts agree"))
    ):  # fmt: skip
        at = x + 0.2 * (i - 1.5)
        ax.bar(at, table[name], 0.18, color=colour[i], label=label)
        whiskers(ax, at, table, name)
    ax.set_xticks(x, [EDITS.get(str(e), str(e)) for e in table["edit"]])
    ax.set_ylim(0, 1.03)
    ax.set_ylabel("share of facts")
    legend(ax, ncols=2, columnspacing=1.0)
    return figure
