"""A panel for notebooks: move layer, matrix, ρ and α, and see the answers change (extra: `laser-interp[notebook]`)."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from laser_interp.edits.constructors import laser, rank_of
from laser_interp.edits.sites import Site, resolve_matrices
from laser_interp.extras import require
from laser_interp.models.model import Model

if TYPE_CHECKING:
    from ipywidgets import VBox


def explore(model: Model, prompt: str, *, top_k: int = 8, site: str | None = None, rho: float = 0.1) -> VBox:
    """A panel of sliders (ipywidgets) that choose an edit and show the most probable next tokens under it.

    α is the strength of the part that LASER discards: 0 is LASER, 1 is the model as trained. The panel never changes
    the model itself.

    Args:
        prompt: the text that the model continues; it can be changed in the panel.
        top_k: number of answers shown.
        site, rho: where the sliders begin, as in "3.in"; default: the last layer's `in`.

    Raises:
        ModuleNotFoundError: without ipywidgets.
        ValueError: a site that the model does not have.

    Example:
        >>> li.explore(model, "Mira Tolen was taught by", site="3.in")
    """
    require("notebook", "ipywidgets", what="li.explore")
    import ipywidgets as widgets

    first = Site.parse(site) if site is not None else Site(model.n_layers - 1, "in")
    matrices = resolve_matrices(model, "all")
    if first.matrix not in matrices or not 0 <= first.layer < model.n_layers:
        raise ValueError(
            f"{model.name!r} has no {first}: it has layers 0 to {model.n_layers - 1}, each with {' '.join(matrices)}"
        )
    text = widgets.Text(value=prompt, description="prompt", layout=widgets.Layout(width="95%"))
    layer = widgets.IntSlider(first.layer, 0, model.n_layers - 1, description="layer", continuous_update=False)
    matrix = widgets.ToggleButtons(options=matrices, value=first.matrix, description="matrix")
    matrix.style.button_width = "3.5em"
    kept = widgets.FloatLogSlider(rho, base=10, min=-3, max=0, step=0.05, description="ρ", continuous_update=False)
    alpha = widgets.FloatSlider(0.0, min=-1, max=2, step=0.05, description="α", continuous_update=False)
    shown = widgets.HTML()

    def update(_: object = None) -> None:
        where = Site(layer.value, str(matrix.value))
        most = min(model.weight(where.layer, where.matrix).shape)
        rank = max(1, rank_of(kept.value, most))
        try:
            table = answers(model, text.value, where, rank, alpha.value, top_k)
        except ValueError as error:
            shown.value = f"<p>{escape(str(error))}</p>"
            return
        html = table.to_html(index=False, float_format=lambda v: f"{v:.3f}")  # escapes what the model says
        shown.value = f"<p><code>{where}</code>, rank {rank} of {most}, α = {alpha.value:g}</p>{html}"

    for control in (text, layer, matrix, kept, alpha):
        control.observe(update, names="value")
    update()
    return widgets.VBox([text, layer, matrix, kept, alpha, shown])


def answers(model: Model, prompt: str, site: Site, rank: int, alpha: float, top_k: int = 8) -> pd.DataFrame:
    """The most probable next tokens as trained, under the edit, and under what it discards, side by side."""
    edit = laser(model, site, rank=rank)
    runs = {"as trained": None, f"α = {alpha:g}": edit if alpha == 0 else edit.inject(alpha)}
    if rank < min(model.weight(site.layer, site.matrix).shape):
        runs["discarded part"] = edit.discarded()
    columns = {}
    for name, component in runs.items():
        top = model.next_token_logprobs([prompt], edit=component)[0].topk(min(top_k, model.d_vocab))
        columns[name] = [model.decode(int(token)) for token in top.indices]
        columns[f"p, {name}"] = top.values.exp().tolist()
    return pd.DataFrame(columns)
