"""Exporting an edited model as a plain checkpoint with dense weights, which is loaded again and compared with it."""

from collections.abc import Callable
from pathlib import Path

import torch

from laser_interp.edits.edit import Edit
from laser_interp.models.forward import forward
from laser_interp.models.load_check import rows_of
from laser_interp.models.model import Model
from laser_interp.models.plain_model import PlainModel

# Nats by which the export may diverge from the edited model (Kullback-Leibler). Weights are rounded to the model's
# dtype when they are written, while an edit that is on is rounded only at its output.
_ALLOWED = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def check_plain(edit: Edit) -> None:
    """Refuse an edit that cannot be written as a changed weight: one at chosen positions, or on one path."""
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
    return model.save_checkpoint(out, dense=dense, verify=_same_as_edited(model, edit))


def _same_as_edited(model: Model, edit: Edit) -> Callable[[Path], None]:
    """A function that refuses a folder which, loaded again, does not compute what the model does under the edit."""
    rows = rows_of(model.hf_model)
    with edit.on(model):
        expected = torch.stack([forward(model, [row], [0], [len(row) - 1])[0] for row in rows]).log_softmax(-1)

    def verify(folder: Path) -> None:
        reads = [(row, len(row) - 1) for row in rows]
        found = PlainModel(model, folder).next_token_logprobs(reads).to(expected.device)
        p = expected.exp()
        divergence = float((p * (expected - found)).masked_fill(p == 0, 0).sum(-1).max())
        if not divergence <= _ALLOWED[model.dtype]:
            raise ValueError(
                f"the export of {model.name!r} was loaded again and differs from the edited model by {divergence:.2g} "
                "nats: it was not kept; please report this"
            )

    return verify
