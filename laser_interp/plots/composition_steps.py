"""The steps of a composition."""

import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import legend, new_figure, palette

CAPTION = (
    "Composition: accuracy and loss after each edit that was kept, in order, on validation, which chose the "
    "edits, and on test, which did not. No intervals are drawn."
)


def _sample(_: pd.DataFrame, scores: pd.DataFrame) -> str:
    sizes = scores.drop_duplicates("split").set_index("split")["n"]
    return ", ".join(f"n = {n} prompts of the {split} split" for split, n in sizes.items())


@figure_function("composition", "composition_scores", caption=CAPTION, sample=_sample)
def composition(steps: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Composition: accuracy and loss on validation after each edit that was kept, and on test before and after.

    Args:
        steps, scores: of a `Composition`.
    """
    kept = steps[steps["kept"]]
    colour = palette()
    figure, axes = new_figure(1, 2, 2.4, sharex=True)
    names = ["as trained", *(f"{site}, ρ {rho:.2g}" for site, rho in zip(kept["site"], kept["rho"], strict=True))]
    ends = scores.set_index(["edit", "split"])
    for ax, column, label in zip(axes.flat, ("score", "loss"), ("accuracy", "loss (nats)"), strict=False):
        ax.plot(range(len(names)), [ends.loc[("base", "validation"), column], *kept[column]], "o-", color=colour[0],
                label="validation, which chose the edits")  # fmt: skip
        tested = [(x, name) for x, name in ((0, "base"), (len(kept), "composed")) if (name, "test") in ends.index]
        ax.plot([x for x, _ in tested], [ends.loc[(name, "test"), column] for _, name in tested], "D", color=colour[1],
                label="test")  # fmt: skip
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=6)
        ax.set_ylabel(label)
    figure.supxlabel("edit added", fontsize=7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend(figure, handles, labels, ncols=2, columnspacing=1.0)
    return figure
