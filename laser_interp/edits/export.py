"""Exporting an edited model as a plain checkpoint with dense weights."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.edit import Edit
from laser_interp.edits.export_check import same_as_edited
from laser_interp.edits.spectra import Spectrum
from laser_interp.models.model import Model


def check_plain(edit: Edit) -> None:
    """Refuse an edit that cannot be written as a changed weight.

    Raises:
        ValueError: it acts at chosen positions, or on one path.
    """
    if not edit.is_plain:
        raise ValueError("an edit at chosen positions, or on one path, cannot be written as a changed weight")


def export_dense(model: Model, edit: Edit, out: str | Path) -> Path:
    """Write the edited model as a plain transformers checkpoint with dense weights, for `from_pretrained`.

    It is loaded again and compared with the edited model before it is kept, which takes the memory of a second model.

    Raises:
        FileExistsError: `out` is there and not empty.
        ValueError: the edit was made from another model.

    Example:
        >>> li.export_dense(model, laser, "dense")
    """
    edit.check(model)
    check_plain(edit)
    dense = {(site.layer, site.matrix): part.weight for site, part in edit.parts.items()}
    return model.save_checkpoint(out, dense=dense, verify=same_as_edited(model, edit))


def factors_of(
    spectrum: Spectrum, gains: Float[Tensor, " r"]
) -> tuple[Float[Tensor, "d_in k"], Float[Tensor, "k d_out"]]:
    """`U diag(S * gains) Vh` as two factors in fp64, of the k directions with a gain other than 0.

    The singular values are shared evenly between the two.
    """
    used = gains.nonzero().squeeze(1)
    scale = spectrum.S[used] * gains[used]
    root = scale.abs().sqrt()
    down = spectrum.U[:, used].double() * root
    up = (scale.sign() * root)[:, None] * spectrum.Vh[used].double()
    return down, up
