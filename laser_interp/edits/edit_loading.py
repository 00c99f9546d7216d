"""Loading an edit: from its file, or from one line of text."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from laser_interp.choices import Path as SeenAlong
from laser_interp.choices import check_choice
from laser_interp.edits.edit import Edit
from laser_interp.edits.edit_files import gains_of, placement_of, read_edit_file
from laser_interp.edits.edit_spec import describe_edits
from laser_interp.edits.placement import Prompts
from laser_interp.edits.site_edit import SiteEdit
from laser_interp.edits.sites import Site, resolve
from laser_interp.edits.spectra import Spectrum, site_sha256, spectrum
from laser_interp.models.model import Model


def load_edit(path: str | Path, model: Model, *, other_weights: bool = False) -> Edit:
    """An edit that `Edit.save` wrote, made for a model.

    Args:
        other_weights: accept a model with other weights than those that the edit was made for, such as a later
            checkpoint. The gains are then put on this model's own directions.

    Raises:
        FileNotFoundError: no such file, or its tensors are missing.
        ValueError: a file of another form or a later version, a damaged one, a model without such a site, or with other
            weights.

    Example:
        >>> path = laser.save("laser.json", model=model)
        >>> li.load_edit(path, model)
    """
    path = Path(path)
    value, tensors = read_edit_file(path)
    parts: dict[Site, SiteEdit] = {}
    for name, about in value["sites"].items():
        (site,) = resolve(model, Site.parse(name))
        if site_sha256(model, site) != about["weight_sha256"] and not other_weights:
            was = (value["made_for"] or {}).get("model")
            raise ValueError(
                f"{path} was made for other weights of {site} than those of {model.name!r}"
                + (f" (for {was!r})" if was else "")
                + ": load that model, or give other_weights=True to use its gains on these weights"
            )
        of_site = spectrum(model, site, blocks=about["blocks"])
        gains = tensors[f"{name}.gains"] if about["gains"] is None else gains_of(about["gains"])
        if len(gains) != of_site.max_rank:
            raise ValueError(f"{path} has {len(gains)} gains for {site}, which has {of_site.max_rank} directions here")
        parts[site] = SiteEdit(of_site, gains, _added(tensors, name, of_site))
    check_choice("path", value["path"], SeenAlong)
    placement = None if value["places"] is None else placement_of(value["places"])
    return Edit(parts, value["kind"], value["rho"], value["alpha"], value["path"], placement)


def read_edit(model: Model, text: str, prompts: Prompts | None = None) -> Edit:
    """An edit from one line, as the command line has it: the name of an edit's file, or what `describe_edits` reads.

    Args:
        prompts: the prompts on which the edit acts, if it is described to act at chosen positions.

    Raises:
        FileNotFoundError, ValueError: see `load_edit` and `describe_edits`.
    """
    if text.strip().endswith(".json"):
        return load_edit(text.strip(), model)
    return describe_edits(model, text).edit(model, prompts)


def _added(tensors: Mapping[str, Tensor], name: str, of_site: Spectrum) -> tuple[Tensor, Tensor] | None:
    if f"{name}.added.0" not in tensors:
        return None
    down, up = tensors[f"{name}.added.0"], tensors[f"{name}.added.1"]
    if (len(down), up.shape[1]) != (len(of_site.U), of_site.Vh.shape[1]):
        raise ValueError(f"the matrix that the edit adds to {name} has another shape than the weight of this model")
    return down, up
