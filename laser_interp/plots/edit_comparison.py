"""Several edits beside each other: change of accuracy, and how the change of log-odds depends on frequency."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.names import EDITS
from laser_interp.plots.style import new_figure, palette

CAPTION = (
    "Change of accuracy, and slope of the answer's log-odds per tenfold frequency, within relations, of the edit, of "
    "deleting the matrix, and of random edits of equal norm (placebos, a point for each draw). Generic words are "
    "forbidden in the slopes where the scores tell what is right without them. Intervals hold for all edits at once "
    "(Bonferroni, 95 %)."
)
PANELS = {"change": "change of accuracy", "slope": "slope, nats"}


@figure_function("rare_facts_placebo", caption=CAPTION, of_one_edit=True)
def compared_edits(table: pd.DataFrame) -> Figure:
    """Several edits: change of accuracy, and slope of log-odds per tenfold frequency. Draws of one control share a
    row."""
    names = [str(e).partition("/")[0] if placebo else str(e) for e, placebo in table[["edit", "placebo"]].to_numpy()]
    groups = [group for _, group in table.groupby(names, sort=False)]
    panels = [name for name in PANELS if table[name].notna().any()]
    figure, axes = new_figure(1, len(panels), 0.7 + 0.34 * len(groups), sharey=True)
    for ax, name in zip(axes.flat, panels, strict=True):
        ax.axvline(0.0, color="0.7", linewidth=0.6)
        for row, group in enumerate(groups):
            y = -row - (np.linspace(-0.3, 0.3, len(group)) if len(group) > 1 else np.zeros(1))
            colour = palette()[7 if group["placebo"].all() else 0]
            ax.hlines(y, group[f"{name}_lo"], group[f"{name}_hi"], color=colour, linewidth=0.8)
            ax.plot(group[name], y, "o", color=colour, markersize=3)
        ax.set_xlabel(PANELS[name])
        ax.locator_params(axis="x", nbins=4)
    shown = [
        EDITS.get(name, name) + "\n(placebo)" * bool(group["placebo"].all())
        for name, group in zip(dict.fromkeys(names), groups, strict=True)
    ]
    axes.flat[0].set_yticks(-np.arange(len(groups)), shown, fontsize=6, linespacing=1.05)
    return figure
