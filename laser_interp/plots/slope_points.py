"""Slopes per tenfold frequency within relations: of log p(answer), of its parts, and of right answers."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import new_figure, palette

CAPTION = (
    "Does a change depend on training frequency? Slopes per tenfold frequency, within relations, with 95 % intervals:"
    " (a) of the change of the answer's log-probability and of its parts, in nats; (b) of the share of right answers,"
    " in points. A share counts who passes a threshold, so that its slope depends on where the threshold lies; a slope"
    " in nats does not."
)
_NAMES = {
    "whole": "the whole",
    "generic": "generic words",
    "kind": "kind of answer",
    "rivals": "rivals",
    "others": "all other words",
    "rest": "further tokens",
    "log_odds": "log-odds",
    "masked_log_odds": "…, no generic words",
    "top1": "top-1",
    "top5": "top-5",
    "top10": "top-10",
}


def _sample(table: pd.DataFrame) -> str:
    return f"n = {int(table['n_facts'].max())} facts of {int(table['n_relations'].max())} relations, test split"


def _known(table: pd.DataFrame) -> pd.DataFrame:
    return table[np.isfinite(table["slope"]) & np.isfinite(table["lo"])]


@figure_function(
    "rare_facts_slopes",
    caption=CAPTION,
    sample=_sample,
    of_one_edit=True,
    worth_drawing=lambda table: len(_known(table)) > 0,
)
def frequency_slopes(table: pd.DataFrame) -> Figure:
    """Slopes per tenfold frequency within relations, in nats and in points.

    Args:
        table: `Association.slopes`.
    """
    colour = palette()
    known = _known(table)
    sides = [known[known["unit"] == unit] for unit in ("nats", "share")]
    figure, axes = new_figure(1, 2, 0.75 + 0.2 * max(map(len, sides)))
    titles = ("(a) log p(answer), nats", "(b) right answers, points")
    for ax, side, title, scale in zip(axes.flat, sides, titles, (1, 100), strict=True):
        y = np.arange(len(side))[::-1]
        ax.axvline(0, color="0.6", linewidth=0.6)
        for at, row in zip(y, side.to_dict("records"), strict=True):
            paint = (
                colour[0] if row["of"] in ("whole", "log_odds", "masked_log_odds", "top1", "top5", "top10") else "0.45"
            )
            ax.plot([scale * row["lo"], scale * row["hi"]], [at, at], color=paint, linewidth=0.9)
            ax.plot([scale * row["slope"]], [at], "o", color=paint)
        ax.set_yticks(y, [_NAMES.get(name, name) for name in side["of"]])
        ax.set_ylim(-0.6, len(side) - 0.4)
        ax.set_title(title)
        ax.locator_params(axis="x", nbins=4)
    figure.supxlabel("slope per tenfold frequency, within relations", fontsize=7)
    return figure
