"""Checkpoints with quantised weights: 8-bit floats with scales are dequantised while they are loaded; other formats are
refused by name.

Each weight of such a checkpoint is the product of its 8-bit number and the scale of its block, as Qwen and DeepSeek
store them. transformers multiplies them. The noise of 8 bits is then a part of the weights that are edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

_DEQUANTISED = "fp8"


def method_of(config: Any) -> str | None:
    """The name of a config's quantisation, or None."""
    stored = _stored(config)
    return None if stored is None else str(stored.get("quant_method", "unknown")).rpartition(".")[2].lower()


def refuse_quantised(config: Any, name: str) -> None:
    """Refuse weights that cannot be factored.

    Raises:
        ValueError: the config says that they are quantised; the message names the format.
    """
    if (method := method_of(config)) is not None:
        raise ValueError(
            f"{name!r} is quantised ({method}): quantised weights cannot be factored exactly; load the model in "
            "float32, bfloat16 or float16, or a checkpoint in fp8, which is dequantised"
        )


def dequantising(config: Any, name: str) -> tuple[dict[str, Any], str | None]:
    """Options with which transformers dequantises a checkpoint, and the name of its format; none for one that is not
    quantised.

    Raises:
        ValueError: another format than fp8, or a library is missing.
    """
    if method_of(config) != _DEQUANTISED:
        refuse_quantised(config, name)
        return {}, None
    if find_spec("accelerate") is None:
        raise ValueError(f"{name!r} is stored in fp8, and dequantising it needs accelerate: pip install accelerate")
    from transformers import FineGrainedFP8Config

    stored = _stored(config) or {}
    size = stored.get("weight_block_size")
    said = f"fp8 in blocks of {' x '.join(map(str, size))}" if size else "fp8"
    wanted: dict[str, Any] = {key: value for key, value in stored.items() if key != "quant_method"}
    wanted["dequantize"] = True
    return {"quantization_config": FineGrainedFP8Config(**wanted)}, said


def check_scales(dtypes: Mapping[str, str], where: str) -> None:
    """Refuse 8-bit numbers without scales, which transformers would take for the weights.

    Args:
        dtypes: name -> dtype of each stored tensor, as safetensors names them.

    Raises:
        ValueError: the message names the weights.
    """
    bare = sorted(
        name for name, dtype in dtypes.items() if dtype.startswith("F8") and f"{name}_scale_inv" not in dtypes
    )
    if bare:
        raise ValueError(
            f"{len(bare)} weights of {where!r} are stored in 8 bits without their scales ({bare[0]}): the checkpoint "
            "is not complete"
        )


def _stored(config: Any) -> dict[str, Any] | None:
    stored = getattr(config, "quantization_config", None)
    return stored if stored is None or isinstance(stored, dict) else stored.to_dict()
