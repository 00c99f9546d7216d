"""The spectra of the edited matrices over the steps of a training."""

import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function, no_sample
from laser_interp.plots.style import label_panels, legend, new_figure, palette
from laser_interp.plots.training_loss import step_axis

CAPTION = (
    "The edited matrices over training: (a) stable rank; (b) the share of the squared norm in directions above the edge"
    " of the Marchenko–Pastur law; (c) overlap of the kept input directions with those of the last checkpoint, as the"
    " mean squared cosine of the principal angles."
)


@figure_function("trajectory_spectra", caption=CAPTION, sample=no_sample, of_one_edit=True)
def spectrum_over_training(table: pd.DataFrame) -> Figure:
    """Stable rank, share above the noise edge, and overlap with the end, over training.

    Args:
        table: `Trajectory.tables["trajectory_spectra"]`.
    """
    figure, axes = new_figure(1, 3, 1.75, sharex=True)
    shown = {"stable_rank": "(a) stable rank", "energy_above_noise": "(b) above noise", "overlap_in": "(c) overlap"}
    for ax, (column, title) in zip(axes.flat, shown.items(), strict=True):
        for i, (site, rows) in enumerate(table.groupby("site", sort=False)):
            ax.plot(rows["step"], rows[column], "osD^v"[i % 5] + "-", color=palette()[i % 10], label=site)
        step_axis(ax, table["step"])
        ax.set_ylim(0, None if column == "stable_rank" else 1.03)
        ax.set_title(title)
    label_panels(axes, "step of training")
    legend(axes[0, 0], ncols=4)
    return figure
