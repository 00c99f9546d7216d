"""The categories of the answers that growing shares of the discarded part give."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.marks import whiskers
from laser_interp.plots.names import CATEGORIES
from laser_interp.plots.style import label_panels, legend, new_figure, palette

CAPTION = (
    "Category of the most probable answer as trained, under LASER, and under growing shares of the discarded "
    "part alone (smallest singular values first). For the facts that LASER fixed, the first two are left out: by "
    "definition all answers are wrong as trained and right under LASER. Lines are 95 % intervals of the share of "
    "generic words, over subjects; the data hold the intervals of the other categories."
)


@figure_function("discarded_categories", caption=CAPTION, of_one_edit=True)
def discarded_answers(categories: pd.DataFrame) -> Figure:
    """What is answered, by category: on all prompts, and by the discarded part on those that the edit fixed.

    Whiskers are intervals of the share of generic words, drawn in their own part of each bar.
    """
    colour = palette()
    colours = {"correct": colour[2], "generic": colour[7], "same_type": colour[1], "other": colour[4]}
    outcomes = [name for name in ("all", "fixed") if name in set(categories["outcome"])]
    tables = {name: categories[categories["outcome"] == name] for name in outcomes}
    if "fixed" in tables:  # as trained none of these is right, and under LASER all are, by definition
        tables["fixed"] = tables["fixed"][tables["fixed"]["edit"] == "discarded"]
    widths = [len(table) for table in tables.values()]
    figure, axes = new_figure(1, len(outcomes), 2.2, sharey=True, width_ratios=widths)
    for ax, (outcome, table) in zip(axes.flat, tables.items(), strict=True):
        labels = [
            {"base": "as trained", "edit": "LASER"}.get(e, f"{s:.0%}")
            for e, s in zip(table["edit"], table["share"], strict=True)
        ]
        bottom = np.zeros(len(table))
        for name in ("correct", "same_type", "other", "generic"):
            label = CATEGORIES[name] + " (whisker)" * (name == "generic")
            ax.bar(range(len(table)), table[name], bottom=bottom, color=colours[name], width=0.8, label=label)
            bottom += table[name].to_numpy()
        # Generic words are on top of the stack: their share is what is above the bar's last boundary
        upside_down = table.assign(generic_lo=table["generic_hi"], generic_hi=table["generic_lo"])
        whiskers(ax, np.arange(len(table)) + 0.25, upside_down, "generic", at=1 - table["generic"])
        ax.set_xticks(range(len(table)), labels, rotation=60, ha="right", rotation_mode="anchor")
        ax.set_title(f"{'all prompts' if outcome == 'all' else 'fixed by LASER'}\n(n = {int(table['n'].iloc[0])})")
    axes[0, 0].set_ylabel("share of answers")
    label_panels(axes, "as trained, under LASER, and by shares of the discarded part")
    legend(axes[0, 0], ncols=4, columnspacing=0.6, handlelength=0.9, handletextpad=0.3, fontsize=6)
    return figure
