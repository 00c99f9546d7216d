"""A panel for notebooks: move layer, matrix, ρ and α, and probe one prompt under each edit (extra:
`laser-interp[notebook]`)."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from laser_interp.discarded.one_prompt import Probe, probe
from laser_interp.edits.constructors import laser, rank_of
from laser_interp.edits.sites import Site, weight
from laser_interp.extras import require
from laser_interp.models.experts import ROUTER
from laser_interp.models.model import Model

if TYPE_CHECKING:
    from ipywidgets import VBox


def explore(
    model: Model, prompt: str, *, answer: str | None = None, top_k: int = 8, site: str | None = None, rho: float = 0.1
) -> VBox:
    """A panel of sliders (ipywidgets) that choose an edit, and what `li.probe` shows of a prompt under it.

    α is the strength of the part that LASER discards: 0 is LASER, 1 is the model as trained. The panel never changes
    the model itself.

    Args:
        prompt: the text that the model continues; it can be changed in the panel.
        answer: the right answer, as in `li.probe`; it can be changed too.
        top_k: number of answers shown.
        site, rho: where the sliders begin, as in "3.in"; default: the last layer's `in`, or its last matrix.

    Raises:
        ModuleNotFoundError: without ipywidgets.
        ValueError: a site that the model does not have.

    Example:
        >>> li.explore(model, "Mira Tolen was taught by", site="3.in")
    """
    require("notebook", "ipywidgets", what="li.explore")
    import ipywidgets as widgets

    last = model.matrices_of(model.n_layers - 1)
    first = Site.parse(site) if site is not None else Site(model.n_layers - 1, "in" if "in" in last else last[-1])
    matrices = tuple(matrix for matrix in model.matrices if matrix != ROUTER)
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
    right = widgets.Text(value=answer or "", description="answer")
    shown = widgets.HTML()

    def update(_: object = None) -> None:
        where = Site(layer.value, str(matrix.value))
        try:
            most = min(weight(model, where).shape)
            rank = max(1, rank_of(kept.value, most))
            found = probed(model, text.value, where, rank, alpha.value, right.value or None, top_k)
        except ValueError as error:
            shown.value = f"<p>{escape(str(error))}</p>"
            return
        shown.value = f"<p><code>{where}</code>, rank {rank} of {most}, α = {alpha.value:g}</p>{found._repr_html_()}"

    controls = (text, right, layer, matrix, kept, alpha)
    for control in controls:
        control.observe(update, names="value")
    update()
    return widgets.VBox([*controls, shown])


def probed(
    model: Model, prompt: str, site: Site, rank: int, alpha: float, answer: str | None = None, k: int = 8
) -> Probe:
    """The prompt under LASER at a site, with a share α of what it discards."""
    edit = laser(model, site, rank=rank)
    edits = {f"α = {alpha:g}": edit.inject(alpha)} if alpha else {}
    return probe(model, prompt, {"laser": edit, **edits}, answer=answer, k=k)
