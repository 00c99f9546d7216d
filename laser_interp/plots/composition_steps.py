"""The steps of a composition."""

import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import label_panels, legend, new_figure, palette

CAPTION = (
    "Composition: accuracy and loss after each edit that was kept, in order, on validation, which chose the "
    "edits, and on test, which did not. No intervals are drawn."
)
_LABELS = {"validation": "validation, which chose the edits", "test": "test"}


def _sample(_: pd.DataFrame, scores: pd.DataFrame) -> str:
    sizes = scores.drop_duplicates("split").set_index("split")["n"]
    return ", ".join(f"n = {n} prompts of the {split} split" for split, n in sizes.items())


@figure_function("composition_by_step", "composition_scores", caption=CAPTION, sample=_sample)
def composition(by_step: pd.DataFrame, _: pd.DataFrame) -> Figure:
    """Composition: accuracy and loss on validation and on test after each edit that was kept.

    Args:
        by_step: of a `Composition`, whose `scores` say how many prompts there were.
    """
    figure, axes = new_figure(1, 2, 2.4, sharex=True)
    names = ["as trained", *map(_last, by_step["edit"].iloc[1:])]
    for ax, column, label in zip(axes.flat, ("score", "loss"), ("accuracy", "loss (nats)"), strict=False):
        for split, marker, colour in zip(_LABELS, "oD", palette(), strict=False):
            values = by_step[f"{split}_{column}"]
            if values.notna().any():
                ax.plot(range(len(names)), values, f"{marker}-", color=colour, label=_LABELS[split])
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=6)
        ax.set_ylabel(label)
    label_panels(axes, "edit added")
    legend(axes[0, 0], ncols=2, columnspacing=1.0)
    return figure


def _last(edit: str) -> str:
    """The last site of an edit, and its rank, from its text."""
    sites, _, values = edit.partition(" ")
    ranks = next((value.removeprefix("rank=") for value in values.split() if value.startswith("rank=")), "")
    return f"{sites.rpartition('+')[2]}, rank {ranks.rpartition('+')[2]}"
