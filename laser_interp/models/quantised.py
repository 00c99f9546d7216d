"""Checkpoints with quantised weights: those whose arithmetic is documented are dequantised while they are loaded; other
formats are refused by name.

Each weight is the product of a number of 8 bits (fp8, as Qwen and DeepSeek store them) or 4 bits (MXFP4, as gpt-oss
stores its experts) and the scale of its block, which transformers multiplies; or it is a whole number in a group, see
`laser_interp.models.packed_weights`. The noise of so few bits is then a part of the weights that are edited.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from math import prod
from typing import Any

from laser_interp.models.complete_weights import StoredTensor
from laser_interp.models.packed_weights import OURS, PARTS, for_transformers, lost_part, why_not_read

_FP8, _MXFP4 = "fp8", "mxfp4"
_SCALE, _BLOCKS, _SCALES = "_scale_inv", "_blocks", "_scales"


def _method_of(config: Any) -> str | None:
    """The name of a config's quantisation, or None."""
    stored = _stored_of(config)
    return None if stored is None else str(stored.get("quant_method", "unknown")).rpartition(".")[2].lower()


def refuse_quantised(config: Any, name: str) -> None:
    """Refuse weights that cannot be factored.

    Raises:
        ValueError: the config says that they are quantised; the message names the format.
    """
    if (method := _method_of(config)) is not None:
        raise ValueError(
            f"{name!r} is quantised ({method}): quantised weights cannot be factored exactly; load the model in "
            "float32, bfloat16 or float16, or a checkpoint in fp8, MXFP4, AWQ or compressed-tensors, which is "
            "dequantised"
        )


def dequantising(config: Any, name: str) -> tuple[dict[str, Any], str | None]:
    """Options with which transformers dequantises a checkpoint, and the name of its format; none for one that is not
    quantised.

    Raises:
        ValueError: another format than fp8 and MXFP4, or a library is missing.
    """
    method, stored = _method_of(config), _stored_of(config) or {}
    if method in PARTS:
        if (why := why_not_read(stored)) is not None:
            raise ValueError(
                f"{name!r} is stored as {why}, which cannot be dequantised here: load it in float32 or bfloat16"
            )
        config.quantization_config = for_transformers(stored)
        bits = {group["weights"]["num_bits"] for group in stored.get("config_groups", {}).values()} or {4}
        return {"config": config}, f"{method} of {' and '.join(map(str, sorted(bits)))} bits"
    if method not in (_FP8, _MXFP4):
        refuse_quantised(config, name)
        return {}, None
    if find_spec("accelerate") is None:
        raise ValueError(
            f"{name!r} is stored in {method}, and dequantising it needs accelerate: pip install accelerate"
        )
    from transformers import FineGrainedFP8Config
    from transformers.utils.quantization_config import Mxfp4Config

    wanted: dict[str, Any] = {key: value for key, value in stored.items() if key != "quant_method"}
    wanted["dequantize"] = True
    if method == _MXFP4:
        return {"quantization_config": Mxfp4Config(**wanted)}, "MXFP4"
    size = stored.get("weight_block_size")
    said = f"fp8 in blocks of {' x '.join(map(str, size))}" if size else "fp8"
    return {"quantization_config": FineGrainedFP8Config(**wanted)}, said


def check_scales(stored: Sequence[StoredTensor], config: Any, where: str) -> None:
    """Refuse weights whose scales are lost, or whose blocks transformers would not find.

    transformers divides a matrix into as many blocks as there are scales. This is right only where the sides of the
    matrix are multiples of the block.

    Raises:
        ValueError: the message names a weight.
    """
    if not stored:
        raise ValueError(f"{where!r} is quantised, which is read from safetensors files only: convert it")
    shapes = {tensor.name: tensor.shape for tensor in stored}
    if (_stored_of(config) or {}).get("quant_method") == OURS:
        if (name := lost_part(shapes)) is not None:
            raise ValueError(f"the weight {name} of {where!r} is stored without all of its scales: it is not complete")
        if not any(name.endswith(("qweight", "weight_packed", "weight_scale")) for name in shapes):
            raise ValueError(
                f"config.json of {where!r} says that its weights are quantised, and none is: remove "
                "quantization_config there, or get the weights again"
            )
        return
    block = (_stored_of(config) or {}).get("weight_block_size")
    for name, dtype, shape in stored:
        if name.endswith(_BLOCKS) and shapes.get(name.removesuffix(_BLOCKS) + _SCALES) != shape[:-1]:
            raise ValueError(f"the weight {name} of {where!r} is stored in 4 bits without all of its scales")
        if not dtype.startswith("F8") or name.endswith(_SCALE):
            continue
        scales = shapes.get(name + _SCALE)
        if scales is None:
            raise ValueError(
                f"the weight {name} of {where!r} is stored in 8 bits without its scales: the checkpoint is not complete"
            )
        whole = block and [side / size for side, size in zip(shape, block, strict=False)]
        if prod(scales) != 1 and list(scales) != whole:
            raise ValueError(
                f"the weight {name} of {where!r} is {' x '.join(map(str, shape))} with {' x '.join(map(str, scales))} "
                f"scales: expected sides that are multiples of the blocks ({block}); transformers would dequantise it "
                "wrongly"
            )


def _stored_of(config: Any) -> dict[str, Any] | None:
    """What a config, or that of the language model inside it, says of its quantisation."""
    inner = getattr(config, "text_config", None)
    stored = getattr(config, "quantization_config", None) or getattr(inner, "quantization_config", None)
    return stored if stored is None or isinstance(stored, dict) else stored.to_dict()
