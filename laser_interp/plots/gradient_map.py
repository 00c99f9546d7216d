"""Mean gradients of the answers by the gains, for all sites."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.style import new_figure


def attribution_map(table: pd.DataFrame, *, n_bins: int = 16) -> Figure:
    """Mean gradient of log p(answer) to the gain of each direction: a row a site, directions from large to small.

    Args:
        table: `Attribution.summary()`: `site, direction, gradient, n`, also by groups.
        n_bins: a matrix's gradients are summed over so many bins of directions.
    """
    weighed = table.assign(total=table["gradient"] * table["n"]).groupby(["site", "direction"], as_index=False)
    mean = weighed[["total", "n"]].sum()
    rank = mean.groupby("site")["direction"].transform("max") + 1
    mean["bin"] = (mean["direction"] * n_bins // rank).clip(upper=n_bins - 1)
    mean["value"] = mean["total"] / mean["n"]
    wide = mean.pivot_table(index="site", columns="bin", values="value", aggfunc="sum")
    order = sorted(wide.index, key=lambda site: (site.partition(".")[2], int(site.partition(".")[0])))
    wide = wide.loc[order]
    figure, axes = new_figure(1, 1, 0.8 + 0.11 * len(wide))
    ax = axes[0, 0]
    most = max(float(np.nanquantile(np.abs(wide.to_numpy()), 0.98)), 1e-9)
    image = ax.imshow(wide, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
    ax.set_yticks(range(len(wide)), list(wide.index), fontsize=5.5)
    ax.set_xticks([-0.5, n_bins - 0.5], ["largest", "smallest"])
    ax.set_xlabel("directions, by singular value")
    figure.colorbar(image, ax=ax, label="∂ log p(answer) / ∂ gain", fraction=0.05)
    return figure
