"""Right answers under each edit, from the scores themselves."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.cluster_intervals import Clusters
from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import legend, new_figure, palette, sequence

MOST = 100  # bars
CAPTION = "Share of prompts that are answered right. Lines are 95 % intervals over subjects."


@figure_function("scores", caption=CAPTION)
def accuracy(scores: pd.DataFrame, by: str = "edit", hue: str | None = None) -> Figure:
    """Share of right answers, of any table that `li.score` returns.

    Args:
        by: the column that has a bar for each of its values, as "edit", "relation" or "split".
        hue: a column that divides each bar; None takes "edit" where the bars are of something else.

    Raises:
        ValueError: no such column, one with more than 100 values, or several edits that neither column tells apart.

    Example:
        >>> scores = li.score(model, facts.split("test"), [None, laser], progress=False)
        >>> li.plots.accuracy(scores, by="relation")
    """
    import seaborn as sns

    hue = "edit" if hue is None else hue
    columns = [by] if hue == by else [by, hue]  # the bars tell it already
    for column in columns:
        if column not in scores:
            raise ValueError(f"there is no column {column!r}: expected one of {', '.join(map(str, scores.columns))}")
        if (n := scores[column].nunique()) > MOST:
            raise ValueError(f"{column!r} has {n} values, and each has a bar: give a column with at most {MOST}")
    if "edit" not in columns and scores["edit"].nunique() > 1:
        raise ValueError("there are several edits in these scores: keep those of one, or give hue='edit'")
    rows = scores.reset_index(drop=True)
    rows = rows.assign(**{name: rows[name].astype(str) for name in columns}, y=rows["correct"].astype(float))
    n_hues = 1 if hue == by else rows[hue].nunique()
    figure, [[ax]] = new_figure(1, 1, 0.6 + 0.24 * max(rows[by].nunique() * n_hues, 3))
    distinct = palette()[:n_hues] if n_hues <= len(palette()) else sequence(n_hues)
    colours = {"color": distinct[0]} if hue == by else {"palette": distinct, "hue": hue, "legend": "full"}

    def interval(right: Any) -> tuple[float, float]:
        return Clusters(rows.loc[right.index, "subject"]).rate(right.to_numpy(float), np.ones(len(right)))[1:]

    look = {"linewidth": 0.7, "color": "0.15"}
    sns.barplot(rows, x="y", y=by, errorbar=interval, ax=ax, err_kws=look, **colours)
    ax.set_xlim(0, None)
    ax.set_xlabel("right answers (95 % interval)")
    ax.set_ylabel("" if by == "edit" else by)
    if hue != by:
        ax.legend_.remove()
        legend(ax, ncols=3)
    return figure
