"""Check the weights of a checkpoint: all that the model needs are there, there are no others, and all are finite.

transformers draws missing weights at random and drops unknown ones, and only writes a log message about it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from laser_interp.models.loaded_model import LoadedModel

# Parts of a checkpoint that a language model is not asked for: BERT's pooler and its next-sentence head.
_OTHER_HEADS = ("pooler.", "seq_relationship.", "cls.seq_relationship.")
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
_SHOWN = 3
_WAY_OUT = (
    "Weights that were not trained are never used; if you do want them, load the model with transformers and give it "
    "as li.load_model((hf_model, tokenizer))"
)


def check_complete(report: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint that does not fit its configuration.

    Args:
        report: what transformers returns with `output_loading_info=True`. Tied weights are not in it.

    Raises:
        ValueError: weights are missing, left over, or of another shape; the message names them.
    """
    missing = sorted(report.get("missing_keys", ()))
    unexpected = sorted(name for name in report.get("unexpected_keys", ()) if not _is_no_weight(name))
    mismatched = sorted(str(entry[0]) for entry in report.get("mismatched_keys", ()))
    errors = [str(error) for error in report.get("error_msgs", ()) or ()]
    problems = [
        f"{len(names)} weights {what} ({_some(names)})"
        for what, names in (
            ("are missing", [name for name in missing if name not in mismatched]),
            ("belong to no part of the model", unexpected),
            ("have another shape", mismatched),
        )
        if names
    ]
    if problems or errors:
        said = "; ".join([*problems, *errors[:1]])
        raise ValueError(f"the weights of {where!r} do not fit its config.json: {said}. {_WAY_OUT}")


def check_finite(model: LoadedModel) -> None:
    """Refuse weights that are not numbers.

    Raises:
        ValueError: a weight holds NaN or infinity; the message names it.
    """
    for name, parameter in model._state.parameters.items():
        if parameter.is_floating_point() and parameter.numel() and not _is_finite(parameter):
            raise ValueError(f"the weight {name} of {model.name!r} holds NaN or infinity: nothing can be computed")


def check_readable(folder: Path) -> None:
    """Refuse files of weights that are empty, or stored in a way that can run code.

    Raises:
        ValueError: the message names the file.
        FileNotFoundError: there is none.
    """
    files = [path for kind in ("*.safetensors", "*.bin", "*.gguf") for path in folder.glob(kind)]
    if not (folder / "config.json").is_file() and not files:
        raise FileNotFoundError(f"{folder} holds no model: expected config.json and weights (model.safetensors)")
    pickles = sorted(path.name for kind in ("*.pt", "*.pth", "*.pkl", "*.ckpt") for path in folder.glob(kind))
    if pickles and not files:
        raise ValueError(
            f"{folder} holds its weights as {pickles[0]}: expected safetensors; save it again with transformers"
        )
    for path in files:
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty: the checkpoint is not complete")


def _is_finite(parameter: torch.Tensor) -> bool:
    # If one weight is NaN or infinite, so is the sum of all, which takes no memory. The sum may also overflow; then
    # each weight is checked.
    total = parameter.detach().sum(dtype=torch.float64 if parameter.device.type != "mps" else None)
    return bool(total.isfinite()) or bool(parameter.detach().isfinite().all())


def _is_no_weight(name: str) -> bool:
    return any(f".{name}".find(f".{head}") >= 0 for head in _OTHER_HEADS) or name.endswith(_BUFFERS)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
