"""Check the weights of a checkpoint: all that the model needs are there, there are no others, and all are finite.

transformers draws missing weights at random and drops unknown ones, and only writes a log message about it.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from laser_interp.choices import some_of

# Parts of a checkpoint that a language model is not asked for: BERT's pooler and its next-sentence head.
_OTHER_HEADS = ("pooler.", "seq_relationship.", "cls.seq_relationship.")
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
_BUFFERS += (".position_ids", ".token_type_ids")  # of BERT, RoBERTa and GPT-1
ADAPTER = "adapter_config.json"  # of peft
_WAY_OUT = (
    "Weights that were not trained are never used; if you do want them, load the model with transformers and give it "
    "as li.load_model((hf_model, tokenizer))"
)


class StoredTensor(NamedTuple):
    """A tensor of a safetensors file, without its values."""

    name: str
    dtype: str
    shape: tuple[int, ...]


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
        f"{len(names)} weights {what} ({some_of(names)})"
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


def check_finite(model: str, parameters: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that cannot be factored.

    Raises:
        ValueError: a weight is quantised, or holds NaN or infinity; the message names it.
    """
    for name, parameter in parameters.items():
        if not parameter.is_floating_point() or parameter.dtype.itemsize < 2:
            raise ValueError(
                f"the weight {name} of {model!r} is {parameter.dtype}: quantised weights cannot be factored; load the "
                "model in float32, bfloat16 or float16"
            )
        if parameter.numel() and not _is_finite(parameter):
            raise ValueError(f"the weight {name} of {model!r} holds NaN or infinity: nothing can be computed")


def check_readable(folder: Path) -> None:
    """Refuse files of weights that are empty, or stored in a way that can run code, and adapters of peft.

    Raises:
        ValueError: the message names the file.
        FileNotFoundError: there is none.
    """
    if (folder / ADAPTER).is_file():
        beside = " beside its weights" if (folder / "config.json").is_file() else ", and no model"
        raise ValueError(
            f"{folder} holds a LoRA adapter ({ADAPTER}){beside}: load it with peft, merge it by merge_and_unload() and "
            "save the result; or remove the adapter's files to load the model without it"
        )
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


def check_stored(stored: Sequence[StoredTensor], where: str) -> str | None:
    """Refuse weights that are stored as whole numbers. transformers reads them as if these were the weights.

    Returns:
        The name of an 8-bit float format, where weights are stored so, else None.

    Raises:
        ValueError: a weight is stored as a whole number or as true and false; the message names it.
    """
    dtypes = {tensor.name: tensor.dtype for tensor in stored if not _is_no_weight(tensor.name)}
    whole = sorted(name for name, dtype in dtypes.items() if dtype.startswith(("I", "U", "B")) and dtype != "BF16")
    if whole:
        raise ValueError(
            f"{len(whole)} weights of {where!r} are stored as {dtypes[whole[0]]} ({some_of(whole)}), where the config "
            "asks for floats: they are quantised, and their scales are not known; load a checkpoint in float32, "
            "bfloat16 or float16"
        )
    eight = sorted({dtype for dtype in dtypes.values() if dtype.startswith("F8")})
    if eight:
        warnings.warn(
            f"weights of {where!r} are stored as {eight[0]} without a scale: they are used as the 8-bit numbers that "
            "they are, which differ from what was trained by up to 6 %, or by any factor if the scales were lost",
            stacklevel=4,
        )
    return " ".join(eight) or None


def tensors_in(folder: Path) -> list[StoredTensor]:
    """The tensors in a folder's safetensors files; torch's files are not read."""
    from safetensors import SafetensorError, safe_open

    found: list[StoredTensor] = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 (no mapping)
                    part = stored.get_slice(name)
                    found.append(StoredTensor(name, part.get_dtype(), tuple(part.get_shape())))
        except (SafetensorError, OSError):
            break  # loading says what is wrong
    return found


def _is_finite(parameter: torch.Tensor) -> bool:
    least, most = torch.aminmax(parameter.detach())  # NaN if one weight is; it takes no memory, and little time
    return bool(least.isfinite() & most.isfinite())


def _is_no_weight(name: str) -> bool:
    name = f".{name}"
    return any(f".{head}" in name for head in _OTHER_HEADS) or name.endswith(_BUFFERS)
