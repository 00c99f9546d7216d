"""How often a generic word is more probable than the answer, over the steps of several trainings."""

import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function, no_sample
from laser_interp.plots.style import label_panels, legend, new_figure, palette
from laser_interp.plots.training_loss import SHOWN, step_axis

CAPTION = (
    "The share of test prompts on which a generic word is more probable than the answer, over the training of organisms"
    " with several seeds (lines), for frequent and for rare facts, and of the control organism, whose text has no"
    " generic words in place of answers (dotted). The edit is the same one at every checkpoint."
)


@figure_function("training", caption=CAPTION, sample=no_sample)
def generic_ahead(table: pd.DataFrame) -> Figure:
    """How often a generic word is ahead of the answer, over training.

    Args:
        table: of `laser-interp analyse training`.
    """
    figure, axes = new_figure(1, 2, 2.2, sharey=True)
    for ax, facts in zip(axes.flat, ("frequent", "rare"), strict=True):
        some = table[table["facts"] == facts]
        for i, (edit, name) in enumerate(SHOWN.items()):
            for j, (history, rows) in enumerate(some[some["edit"] == edit].groupby("history", sort=False)):
                style = ":" if "control" in str(history) else "-"
                label = name if j == 0 else None
                ax.plot(
                    rows["step"], rows["generic_ahead"], style, marker="os^"[i], markersize=2, linewidth=0.8,
                    color=palette()[(7, 0, 3)[i]], label=label,
                )  # fmt: skip
        if some["history"].str.contains("control").any():
            ax.plot([], [], ":", color="0.2", linewidth=0.8, label="of the control")
        step_axis(ax, table["step"])
        ax.set_title(f"{facts} facts")
    axes[0, 0].set_ylabel("generic word ahead, share")
    label_panels(axes, "step of training")
    legend(axes[0, 0], ncols=4, columnspacing=0.8, handlelength=1.2)
    return figure
