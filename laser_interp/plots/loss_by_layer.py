"""Change of loss by layer, matrix and ρ."""

import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.style import new_figure


def layer_sweep(cells: pd.DataFrame) -> Figure:
    """Change of loss against layer: one panel a matrix, one line a ρ (below 0 is better)."""
    import seaborn as sns
    from matplotlib.ticker import MaxNLocator

    cells = cells[cells["split"] == "test"] if "test" in set(cells["split"]) else cells
    base = float(cells.loc[cells["kind"] == "base", "loss"].iloc[0])
    edited = cells[cells["kind"] == "laser"]
    matrices = [m for m in ("q", "k", "v", "o", "in", "gate", "out") if m in set(edited["matrix"])]
    rhos = sorted(set(edited["rho"]), reverse=True)
    colours = dict(zip(rhos, sns.color_palette("viridis_r", len(rhos)), strict=True))
    n_columns = 3
    n_rows = -(-len(matrices) // n_columns)
    figure, axes = new_figure(n_rows, n_columns, 0.4 + 1.15 * n_rows, sharex=True, sharey=True)
    for ax, matrix in zip(axes.flat, matrices, strict=False):
        ax.axhline(0, color="0.6", linewidth=0.5)
        for rho in rhos:
            line = edited[(edited["matrix"] == matrix) & (edited["rho"] == rho)].sort_values("layer")
            change = line["loss"] - base
            ax.plot(line["layer"], change, marker="o", color=colours[rho], label=f"{rho:g}")
            error = 1.96 * line["loss_change_se"]
            ax.fill_between(line["layer"], change - error, change + error, color=colours[rho], alpha=0.25, linewidth=0)
        ax.set_title(f"$W_{{\\mathrm{{{matrix}}}}}$")
        ax.set_yscale("symlog", linthresh=0.5, linscale=1.5)
        ax.set_yticks([-0.5, 0, 0.5, 2, 8], ["−.5", "0", ".5", "2", "8"])
        ax.minorticks_off()
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes.flat[len(matrices) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    figure.supylabel("change of loss (nats)", fontsize=7.5)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, title="fraction of rank kept, ρ", loc="outside upper center", ncols=min(8, len(labels)),
        columnspacing=0.8, handlelength=1.0, handletextpad=0.3, title_fontsize=6.5,
    )  # fmt: skip
    return figure
