"""Several studies side by side."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.names import PARTS
from laser_interp.plots.style import new_figure, palette

CAPTION = (
    "Studies side by side. Above: the change of the answer's log-probability by the edit, in nats, and its parts. "
    "Parts that lose stand left of 0. The diamond is the whole, with its 95 % interval over subjects. Below: the share "
    "of right answers as trained (open) and under the edit (filled), as asked, with generic words forbidden, and with "
    "solved examples before the prompt."
)
_ASKED = {"": "as asked", "_masked": "generic words forbidden", "_examples": "examples in the prompt"}


def _sizes(table: pd.DataFrame) -> str:
    return ", ".join(f"{row['model']}: n = {row['n']} test prompts" for row in table.to_dict("records"))


@figure_function("atlas", caption=CAPTION, sample=_sizes)
def atlas(table: pd.DataFrame) -> Figure:
    """For each study, the parts of the change in nats, and accuracy as trained and edited, however it is asked.

    Args:
        table: of `li.compare_runs`.
    """
    colour = palette()
    figure, axes = new_figure(2, 1, 2.0 + 0.7 * len(table))
    nats, shares = axes.flat
    names = table["run"] + "\n" + table["edit"].str.partition(" ")[0]  # the edit without its ranks
    y = np.arange(len(table))[::-1]
    shown = [part for part in PARTS if part in table and (table[part].abs() > 5e-4).any()]
    up, down = np.zeros(len(table)), np.zeros(len(table))
    for part, paint in zip(shown, colour, strict=False):
        values = np.nan_to_num(table[part].to_numpy(float))
        nats.barh(y, values, left=np.where(values > 0, up, down), height=0.5, color=paint, label=PARTS[part])
        up, down = up + np.maximum(values, 0), down + np.minimum(values, 0)
    nats.hlines(y, table["whole_lo"], table["whole_hi"], color="0.1", linewidth=1.0)
    nats.plot(table["whole"], y, "D", color="0.1", markersize=3.5, label="whole change")
    nats.axvline(0, color="0.4", linewidth=0.6)
    nats.set_xlabel("change of log p(answer), nats")
    for place, (suffix, label) in enumerate(_ASKED.items()):
        at, paint = y + 0.22 - 0.22 * place, colour[place]
        before, after = (table[f"{name}{suffix}"].to_numpy(float) for name in ("as_trained", "edited"))
        shares.hlines(at, before, after, color=paint, linewidth=0.8)
        shares.plot(before, at, "o", color=paint, markersize=3.5, markerfacecolor="white")
        shares.plot(after, at, "o", color=paint, markersize=3.5, label=label)
    shares.set_xlim(left=0)
    shares.set_xlabel("right answers (open: as trained, filled: edited)")
    for ax in axes.flat:
        ax.set_yticks(y, names, fontsize=6)
        ax.set_ylim(-0.6, len(table) - 0.4)
        ax.legend(
            loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize=5.5, frameon=False, columnspacing=1.0
        )
    return figure
