"""Weights stored as whole numbers in groups, AWQ's and compressed-tensors': what they stand for, in float32.

A weight is `(code - zero) * scale`, with a scale, and maybe a zero, for each group of inputs. Codes of fewer than 8
bits are packed in words of 32. transformers reads the files and hands the parts of each weight to `Dequantise`; its own
loaders of these formats need other libraries, or take one scheme for all layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

OURS = "laser_interp"  # what transformers calls this way of reading
PARTS = {
    "awq": ("weight", "qweight", "qzeros", "scales"),
    "compressed-tensors": (
        "weight", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx",
        "input_scale", "input_zero_point", "output_scale", "output_zero_point",
    ),
}  # fmt: skip
_NEEDS = {"qweight": ("qzeros", "scales"), "weight_packed": ("weight_scale", "weight_shape")}
_AWQ_AT = [0, 4, 1, 5, 2, 6, 3, 7]  # output j of eight lies in this part of a word
_PACKED, _SCALED = "pack-quantized", ("float-quantized", "int-quantized", "naive-quantized")
_STRATEGIES = ("tensor", "channel", "group", "block", None)


def why_not_read(stored: Mapping[str, Any]) -> str | None:
    """What of a checkpoint's `quantization_config` cannot be dequantised here, or None."""
    if stored.get("quant_method") == "awq":
        version, bits = str(stored.get("version") or stored.get("format") or "gemm").lower(), stored.get("bits", 4)
        zeros = stored.get("zero_point", True)
        return None if (version, bits, zeros) == ("gemm", 4, True) else f"AWQ {version} of {bits} bits, zeros {zeros}"
    if (status := stored.get("quantization_status")) not in ("compressed", "frozen"):
        return f"compressed-tensors with the status {status}"
    if (stored.get("sparsity_config") or {}).get("format", "dense") != "dense":
        return "compressed-tensors with sparse weights"
    if stored.get("transform_config") or stored.get("moe_sparsity_config"):
        return "compressed-tensors with rotated weights or removed experts"
    groups = list(stored.get("config_groups", {}).values())
    for group in groups:
        weights = (group.get("weights") if isinstance(group, dict) else None) or {}
        form, bits = group.get("format") or stored.get("format"), weights.get("num_bits")
        kind = weights.get("type", "int")
        packed = form == _PACKED and kind == "int" and bits in (2, 4, 8)
        if not (packed or (form in _SCALED and bits == 8)) or weights.get("strategy") not in _STRATEGIES:
            return f"compressed-tensors {form} of {bits}-bit {kind} by {weights.get('strategy')}"
        if weights.get("strategy") == "block" and len(groups) > 1:
            return "compressed-tensors with blocks in one of several groups"
    return None


def lost_part(names: Mapping[str, Any]) -> str | None:
    """A stored weight without all of its parts, or None.

    Args:
        names: name of a stored tensor -> anything.
    """
    for name in names:
        stem, _, last = name.rpartition(".")
        if any(f"{stem}.{part}" not in names for part in _NEEDS.get(last, ())):
            return name
    return None


def unpacked(words: Tensor, bits: int, dim: int) -> Tensor:
    """Codes from words of 32 bits, the lowest bits first, along a dimension."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)
    codes = (words.movedim(dim, -1).unsqueeze(-1) >> shifts) & (2**bits - 1)
    return codes.flatten(-2).movedim(-1, dim)


def in_groups(codes: Tensor, scales: Tensor, zeros: Tensor | None = None, group: Tensor | None = None) -> Tensor:
    """`(codes - zeros) * scales`, for codes `[out, in]` and scales and zeros `[out, groups]`.

    Args:
        group: `[in]`, the group of each input; None: neighbours, in groups of equal size.

    Raises:
        ValueError: the inputs do not divide into the groups.
    """
    if group is None:
        if codes.shape[1] % scales.shape[1]:
            raise ValueError(f"{codes.shape[1]} inputs do not divide into {scales.shape[1]} groups")
        group = torch.arange(codes.shape[1], device=codes.device) // (codes.shape[1] // scales.shape[1])
    group = group.long()
    if not 0 <= int(group.min()) <= int(group.max()) < scales.shape[1]:
        raise ValueError("an input belongs to no group of scales")
    centred = codes.float() if zeros is None else codes.float() - zeros.float()[:, group]
    return centred * scales.float()[:, group]


def awq(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> Tensor:
    """AWQ's gemm format in 4 bits: `qweight [in, out / 8]`, `qzeros [groups, out / 8]`, `scales [groups, out]`."""
    if scales.shape[1] != 8 * qweight.shape[1] or qzeros.shape != (scales.shape[0], qweight.shape[1]):
        raise ValueError(
            f"qweight is {tuple(qweight.shape)} with scales {tuple(scales.shape)}: expected AWQ's gemm format"
        )
    codes, zeros = (unpacked(x, 4, 1).unflatten(1, (-1, 8))[..., _AWQ_AT].flatten(1) for x in (qweight, qzeros))
    return in_groups(codes.T, scales.T, zeros.T)


def packed_integers(
    weight_packed: Tensor,
    weight_scale: Tensor,
    weight_shape: Tensor,
    weight_zero_point: Tensor | None = None,
    weight_g_idx: Tensor | None = None,
) -> Tensor:
    """compressed-tensors' pack-quantized, in 2, 4 or 8 bits, by group, channel or tensor."""
    rows, columns = (int(n) for n in weight_shape)
    bits = next((b for b in (2, 4, 8) if -(-columns * b // 32) == weight_packed.shape[1]), None)
    if bits is None or weight_packed.shape[0] != rows:
        raise ValueError(f"{tuple(weight_packed.shape)} words do not hold {rows} x {columns} numbers of 2, 4 or 8 bits")
    half = 2 ** (bits - 1)  # a signed number is stored with half of the range added; a zero too
    codes = unpacked(weight_packed, bits, 1)[:, :columns] - half
    scale, zero = weight_scale.reshape(-1, 1) if weight_scale.ndim < 2 else weight_scale, weight_zero_point
    if zero is not None:
        zero = unpacked(zero, bits, 0)[:rows] - half if zero.dtype == torch.int32 else zero.reshape(scale.shape)
        zero = zero.expand(rows, -1)
    if weight_g_idx is not None and bool((weight_g_idx == -1).any()):
        weight_g_idx = None  # it was not set: the inputs are in order
    return in_groups(codes, scale.expand(rows, -1), zero, weight_g_idx)


def scaled(
    weight: Tensor, weight_scale: Tensor, weight_zero_point: Tensor | None = None, block: list[int] | None = None
) -> Tensor:
    """compressed-tensors' float-quantized, int-quantized and naive-quantized: one number of 8 bits a weight.

    Args:
        weight_scale: of the tensor, of channels `[out, 1]`, of groups `[out, groups]`, or of blocks of this size.
    """
    if weight.dtype not in (torch.int8, torch.float8_e4m3fn):
        raise ValueError(f"a weight of {weight.dtype} stands beside scales: expected 8 bits")
    rows, columns = weight.shape

    def for_each(x: Tensor) -> Tensor:
        x = x.float().reshape(1, 1) if x.numel() == 1 else x.float()
        x = x.reshape(rows, -1) if x.ndim < 2 else x
        high, wide = block if block and x.numel() > 1 else (rows // x.shape[0], columns // x.shape[1])
        if (-(-rows // high), -(-columns // wide)) != tuple(x.shape):
            raise ValueError(f"{tuple(x.shape)} scales do not fit a weight of {rows} x {columns}")
        return x.repeat_interleave(high, 0)[:rows].repeat_interleave(wide, 1)[:, :columns]

    codes = weight.float()
    return (codes if weight_zero_point is None else codes - for_each(weight_zero_point)) * for_each(weight_scale)


def _weight(stored: Mapping[str, Any], parts: dict[str, Tensor]) -> Tensor:
    """A weight from its parts; parts for the rounding of activations are not used."""
    if "qweight" in parts:
        return awq(**{name: parts[name] for name in ("qweight", "qzeros", "scales")})
    parts = {name: part for name, part in parts.items() if name.startswith("weight")}
    if "weight_packed" in parts:
        return packed_integers(**parts)
    if "weight_scale" not in parts:
        return parts["weight"]
    schemes = [group.get("weights", {}) for group in stored.get("config_groups", {}).values()]
    return scaled(**parts, block=next((s["block_structure"] for s in schemes if s.get("strategy") == "block"), None))


@cache
def _known_to_transformers() -> type:
    """The configuration under which transformers hands the parts of each weight to us."""
    from transformers.core_model_loading import ConversionOps
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    @register_quantization_config(OURS)
    class Stored(QuantizationConfigMixin):
        def __init__(self, stored: dict[str, Any] | None = None, **_: Any) -> None:
            self.quant_method: Any = OURS
            self.stored = stored or {}
            self.dequantize = True

    class Dequantise(ConversionOps):
        def __init__(self, hf_quantizer: Any) -> None:
            self.stored = hf_quantizer.quantization_config.stored

        def convert(self, input_dict: Any, *_: Any, full_layer_name: str, model: Any, **__: Any) -> Any:
            """The weight of one module, or those of many experts, which come together."""
            dtype = model.get_parameter(full_layer_name).dtype
            of_module: dict[str, dict[str, list[Tensor]]] = {}
            for key, value in input_dict.items():
                stem, _, part = key.rpartition(".")
                of_module.setdefault(stem, {})[part] = value if isinstance(value, list) else [value]
            made: dict[str, Any] = {}
            for stem, parts in of_module.items():
                owner = model.get_submodule(full_layer_name.rpartition(".")[0])
                if not stem and set(parts) != {"weight"} and not isinstance(owner, torch.nn.Linear):
                    raise ValueError(
                        f"{full_layer_name} belongs to a {type(owner).__name__}: expected a torch.nn.Linear"
                    )
                one = [dict(zip(parts, of, strict=True)) for of in zip(*parts.values(), strict=True)]
                weights = [_weight(self.stored, each).to(dtype) for each in one]
                made[f"{stem}.weight" if stem else full_layer_name] = weights if stem else weights[0]
            return made

    @register_quantizer(OURS)
    class Quantizer(HfQuantizer):
        is_trainable: Any = True

        def __init__(self, config: Any, **options: Any) -> None:
            super().__init__(config, **options)
            self.serialized_names = {"weight": list(PARTS[config.stored["quant_method"]])}

        def get_load_operations(self) -> dict[str, Any]:
            return {"dequantize": Dequantise}

        def is_serializable(self, *_: Any, **__: Any) -> bool:
            return True

    return Stored


def for_transformers(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's `quantization_config` as transformers has to read it, so that its weights are dequantised here."""
    _known_to_transformers()
    return {"quant_method": OURS, "stored": dict(stored)}
