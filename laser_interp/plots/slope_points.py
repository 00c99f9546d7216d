"""Slopes per tenfold frequency within relations: of log p(answer), of its parts, and of right answers."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.names import PARTS
from laser_interp.plots.style import label_panels, new_figure, palette

CAPTION = (
    "Does a change depend on training frequency? Slopes per tenfold frequency, within relations, with 95 % intervals:"
    " (a) of the change of the answer's log-probability and of its parts, in nats; (b) of the share of right answers,"
    " in points. A share counts who passes a threshold, so that its slope depends on where the threshold lies; a slope"
    " in nats does not."
)
_NAMES = PARTS | {
    "whole": "log p(answer)",
    "rivals": "rivals",  # the label has little room
    "log_odds": "log-odds",
    "masked_log_odds": "…, no generic words",
    "top1": "top-1",
    "top5": "top-5",
    "top10": "top-10",
}
_WHOLE = ("whole", "log_odds", "masked_log_odds", "top1", "top5", "top10")


def _sample(table: pd.DataFrame) -> str:
    return f"n = {int(table['n_facts'].max())} facts of {int(table['n_relations'].max())} relations, test split"


def known_slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Those that could be computed, with an interval."""
    return table[np.isfinite(table["slope"]) & np.isfinite(table["lo"])]


@figure_function(
    "rare_facts_slopes",
    caption=CAPTION,
    sample=_sample,
    of_one_edit=True,
    worth_drawing=lambda table: len(known_slopes(table)) > 0,
)
def frequency_slopes(table: pd.DataFrame) -> Figure:
    """Slopes per tenfold frequency within relations, in nats and in points.

    Args:
        table: `Association.slopes`.
    """
    known = known_slopes(table)
    sides = [known[known["unit"] == unit] for unit in ("nats", "share")]
    figure, axes = new_figure(1, 2, 0.75 + 0.2 * max(map(len, sides)))
    titles = ("(a) nats", "(b) right answers, points")
    for ax, side, title, scale in zip(axes.flat, sides, titles, (1, 100), strict=True):
        draw_slopes(ax, side, scale)
        ax.set_title(title)
    label_panels(axes, "slope per tenfold frequency, within relations")
    return figure


def draw_slopes(ax: Any, rows: pd.DataFrame, scale: float = 1.0) -> None:
    """A point and its interval a row, the first above; those of whole answers are in colour."""
    y = np.arange(len(rows))[::-1]
    ax.axvline(0, color="0.6", linewidth=0.6)
    for at, row in zip(y, rows.to_dict("records"), strict=True):
        paint = palette()[0] if row["of"] in _WHOLE else "0.45"
        ax.plot([scale * row["lo"], scale * row["hi"]], [at, at], color=paint, linewidth=0.9)
        ax.plot([scale * row["slope"]], [at], "o", color=paint)
    ax.set_yticks(y, [_NAMES.get(name, name) for name in rows["of"]])
    ax.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    ax.locator_params(axis="x", nbins=4)
