"""Where along the layers an answer appears: its log-probability, read off the residual stream after each layer."""

import pandas as pd
from matplotlib.figure import Figure

from laser_interp.plots.figure_functions import figure_function, no_sample
from laser_interp.plots.names import plain_name
from laser_interp.plots.style import legend, new_figure, palette

CAPTION = (
    "The log-probability of the answer's first token, in nats, read off the residual stream after each layer by the "
    "model's own final norm and unembedding; -1 is the stream before the first layer."
)


@figure_function("probe_layers", caption=CAPTION, sample=no_sample)
def answer_by_layer(table: pd.DataFrame) -> Figure:
    """The answer's log-probability along the layers, as trained and under each edit.

    Args:
        table: `Probe.layers`: `edit, layer, logprob`.

    Raises:
        ValueError: the prompt was probed without an answer.
    """
    if "logprob" not in table:
        raise ValueError("the prompt was probed without an answer, so there is none to follow: give li.probe an answer")
    figure, [[ax]] = new_figure(1, 1, 2.2)
    each = list(table.groupby("edit", sort=False))
    for i, ((label, rows), colour) in enumerate(zip(each, palette() * len(each), strict=False)):
        width = 1 + 2 * (len(each) - 1 - i) / len(each)  # lines below others are wider: most layers are alike
        ax.plot(rows["layer"], rows["logprob"], color=colour, linewidth=width, label=plain_name(str(label)))
    ax.set_xlabel("after layer")
    ax.set_ylabel("log p(answer's first token), nats")
    legend(ax, ncols=3)
    return figure
