"""Several edits beside each other: change of accuracy, and which wrong answers are fixed."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.names import EDITS
from laser_interp.plots.style import new_figure, palette

SHOWN = 50.0  # largest odds ratio on the scale; intervals are very wide where few answers were fixed


CAPTION = (
    "Change of accuracy, and odds ratio of a wrong answer being fixed per tenfold frequency, of the edit and "
    "of random edits of equal norm. Intervals hold for all edits at once (Bonferroni, 95 %). An edit "
    "without an odds ratio fixed too few answers to estimate one. Intervals are cut at the edge of the scale, and "
    "an arrow marks an estimate beyond it."
)


@figure_function("rare_facts_placebo", caption=CAPTION, of_one_edit=True)
def compared_edits(table: pd.DataFrame) -> Figure:
    """Several edits: change of accuracy, and odds ratio of being fixed per tenfold frequency.

    Intervals are cut at the edge of the scale, and an arrow marks an estimate beyond it.
    """
    figure, axes = new_figure(1, 2, 0.7 + 0.24 * len(table), sharey=True)
    y = np.arange(len(table))[::-1]
    colours = [palette()[7 if placebo else 0] for placebo in table["placebo"]]
    for ax, name, lo, hi, neutral, label in (
        (axes.flat[0], "change", "change_lo", "change_hi", 0.0, "change of\naccuracy"),
        (axes.flat[1], "odds_ratio", "odds_lo", "odds_hi", 1.0, "odds ratio of fixed,\n10-fold frequency"),
    ):
        ax.axvline(neutral, color="0.7", linewidth=0.6)
        least, most = (1 / SHOWN, SHOWN) if name == "odds_ratio" else (-1.0, 1.0)
        for at, colour, row in zip(y, colours, table.to_dict("records"), strict=True):
            if np.isfinite(row[name]):
                ax.plot(np.clip([row[lo], row[hi]], least, most), [at, at], color=colour, linewidth=0.8)
                off = row[name] > most, row[name] < least
                ax.plot(
                    [np.clip(row[name], least, most)], [at], ">" if off[0] else "<" if off[1] else "o", color=colour
                )
        ax.set_xlabel(label)
    axes.flat[0].locator_params(axis="x", nbins=3)
    axes.flat[1].set_xscale("log")
    lo, hi = axes.flat[1].get_xlim()
    axes.flat[1].set_xlim(max(lo, 0.8 / SHOWN), min(hi, 1.2 * SHOWN))
    names = [_name(str(edit), bool(placebo)) for edit, placebo in zip(table["edit"], table["placebo"], strict=True)]
    axes.flat[0].set_yticks(y, names, fontsize=6, linespacing=0.9)
    return figure


def _name(edit: str, placebo: bool) -> str:
    """In plain words: "random subspace of equal norm removed (placebo, draw 1)"."""
    control, _, draw = edit.partition("/")
    more = ", ".join([*(["placebo"] if placebo else []), *([f"draw {int(draw) + 1}"] if draw.isdigit() else [])])
    return EDITS.get(control, control) + (f" ({more})" if more else "")
