"""The parts of the answer's loss over the steps of a training; interactively, with a slider over checkpoints."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.names import PARTS
from laser_interp.plots.style import label_panels, legend, new_figure, palette

CAPTION = (
    "The loss of the answer over training, in nats, divided into its parts: that a generic word is not said, that an "
    "answer of the right kind is, that it is the right one, and its further tokens. The edit is the same one at every "
    "checkpoint; it was chosen on validation facts, or given."
)
SHOWN = {"base": "as trained", "laser": "under the edit", "discarded": "discarded part alone"}


def step_axis(ax: Any, steps: Any) -> None:
    """A logarithmic axis of steps, where these are spaced so; marks at some of the steps themselves."""
    steps = np.unique(np.asarray(steps, float))
    if steps[-1] > 10 * max(steps[0], 1):
        ax.set_xscale("symlog" if steps[0] <= 0 else "log", **({"linthresh": 1} if steps[0] <= 0 else {}))
    shown = steps[np.unique(np.linspace(0, len(steps) - 1, 4).round().astype(int))]
    ax.set_xticks(shown, [f"{step:g}" if step < 10_000 else f"{step / 1000:g}k" for step in shown])
    ax.minorticks_off()


def _parts(table: pd.DataFrame) -> list[str]:
    return [name for name in PARTS if name in table and table[name].abs().max() > 1e-9]


def _with_slider(table: pd.DataFrame) -> Any:
    """Bars of the parts for frequent and rare facts (or for all), and a slider over checkpoints."""
    import plotly.graph_objects as go

    groups = [f for f in ("frequent", "rare") if f in set(table["facts"])] or ["all"]
    labels = {"base": "as trained", "laser": "edited", "discarded": "discarded"}
    names = [[f"{group} facts" for group in groups for _ in SHOWN], [labels[edit] for _ in groups for edit in SHOWN]]
    steps, parts = sorted(table["step"].unique()), _parts(table)
    at: Any = table.set_index(["step", "edit", "facts"])

    def bars(step: int) -> list[Any]:
        rows = [at.loc[(step, edit, group)] for group in groups for edit in SHOWN]
        return [go.Bar(x=names, y=[-row[part] for row in rows], name=PARTS[part]) for part in parts]

    figure = go.Figure(bars(steps[-1]), frames=[go.Frame(data=bars(step), name=str(step)) for step in steps])
    chosen = [
        {"label": str(s), "method": "animate", "args": [[str(s)], {"mode": "immediate", "frame": {"duration": 0}}]}
        for s in steps
    ]
    figure.update_layout(
        barmode="stack",
        yaxis={"title": "loss of the answer, nats", "range": [0, 1.05 * -float(table["logprob"].min())]},
        sliders=[{"steps": chosen, "active": len(steps) - 1, "currentvalue": {"prefix": "step "}, "pad": {"t": 110}}],
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    return figure


@figure_function("trajectory", caption=CAPTION, of_one_edit=True, interactive=_with_slider)
def loss_over_training(table: pd.DataFrame) -> Figure:
    """The loss of the answer and its parts over training: as trained, under the edit, and by its discarded part alone.

    Args:
        table: `Trajectory.tables["trajectory"]`.
    """
    colours = palette()
    everything = table[table["facts"] == "all"]
    parts = _parts(everything)
    figure, axes = new_figure(1, len(SHOWN), 1.9, sharex=True, sharey=True)
    for ax, (edit, name) in zip(axes.flat, SHOWN.items(), strict=True):
        rows = everything[everything["edit"] == edit].sort_values("step")
        ax.stackplot(
            rows["step"], *(-rows[part] for part in parts), labels=[PARTS[part] for part in parts], linewidth=0,
            colors=[colours[i] for i in (7, 1, 2, 0)[: len(parts)]],
        )  # fmt: skip
        step_axis(ax, rows["step"])
        ax.set_title(name)
        ax.margins(x=0)
    axes[0, 0].set_ylabel("loss of the answer, nats")
    label_panels(axes, "step of training")
    legend(axes[0, 0], ncols=4, columnspacing=0.8, handlelength=1.0)
    return figure
