"""The parts of a change of log p(answer), as a waterfall, and by frequency."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import new_figure, palette

CAPTION = (
    "Where the change of the answer's log-probability comes from, in nats: each part begins where the one before ends,"
    " and together they are the whole. Lines are 95 % intervals of each part over subjects, from where it begins."
)


@figure_function("decomposition", caption=CAPTION, of_one_edit=True)
def decomposition(table: pd.DataFrame) -> Figure:
    """A waterfall: each part of the change of log p(answer), and the whole.

    Args:
        table: of `li.decompose`: `part, name, change, lo, hi`.
    """
    colour = palette()
    shown = table[(table["part"] == "whole") | (table[["change", "lo", "hi"]].abs().max(axis=1) > 1e-9)]
    y = np.arange(len(shown))[::-1]
    figure, [[ax]] = new_figure(1, 1, 0.6 + 0.27 * len(shown))
    start = 0.0
    for at, row in zip(y, shown.to_dict("records"), strict=True):
        begin = 0.0 if row["part"] == "whole" else start
        paint = colour[0] if row["part"] == "whole" else colour[2] if row["change"] >= 0 else colour[3]
        ax.barh(at, row["change"], left=begin, height=0.62, color=paint)
        if np.isfinite(row["lo"]):
            ax.plot([begin + row["lo"], begin + row["hi"]], [at, at], color="0.15", linewidth=0.8)
        ax.annotate(
            f"{row['change']:+.2f}", (max(begin + row["change"], begin, begin + row["hi"]), at), xytext=(3, 0),
            textcoords="offset points", va="center", fontsize=6.5,
        )  # fmt: skip
        start = begin + row["change"]
        if row["part"] != "whole":
            ax.plot([start, start], [at - 1, at], color="0.6", linewidth=0.5, zorder=0)
    ax.axvline(0, color="0.4", linewidth=0.6, zorder=0)
    ax.set_yticks(y, shown["name"].tolist())
    ax.margins(x=0.14)
    ax.set_xlabel("change of log p(answer), nats")
    return figure
