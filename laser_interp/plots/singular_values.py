"""Singular values, the edge of noise, and where LASER cuts."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from laser_interp.plots.figure_functions import figure_function, no_sample
from laser_interp.plots.style import legend, new_figure, palette

CAPTION = (
    "Singular values of the edited matrix, the Marchenko–Pastur edge (the largest value that a matrix of noise"
    " alone would have, its scale estimated from the median), and the rank that LASER keeps."
)


@figure_function("spectrum", caption=CAPTION, sample=no_sample, of_one_edit=True)
def spectrum(table: pd.DataFrame) -> Figure:
    """Singular values of each site, the largest value that noise alone would have, and where LASER cuts.

    Args:
        table: `site, direction, singular_value, noise_edge, rank_kept`.
    """
    sites = list(dict.fromkeys(table["site"]))
    n_columns = min(len(sites), 3)
    n_rows = -(-len(sites) // n_columns)
    figure, axes = new_figure(n_rows, n_columns, 0.5 + 1.5 * n_rows, sharey=True)
    colour = palette()
    for ax in axes.flat[len(sites) :]:
        ax.set_visible(False)
    for ax, site in zip(axes.flat, sites, strict=False):
        of = table[table["site"] == site].sort_values("direction")
        ax.plot(of["direction"] + 1, of["singular_value"], color=colour[0])
        ax.axhline(of["noise_edge"].iloc[0], color=colour[7], linestyle="--", linewidth=0.8, label="edge of noise")
        if "rank_kept" in of and of["rank_kept"].notna().all():
            ax.axvline(
                of["rank_kept"].iloc[0] + 0.5, color=colour[1], linewidth=0.9, label="kept by LASER: left of the line"
            )
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("direction")
        ax.set_title(site)
    axes[0, 0].set_ylabel("singular value")
    legend(axes[0, 0], ncols=2, handlelength=1.4, columnspacing=1.0)
    return figure
