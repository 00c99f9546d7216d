"""Checkpoints: writing a model with some matrices replaced, and matrices stored as two factors."""

import copy
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.models.library_internals import is_conv1d, language_models, linear_slot, without_initialisation
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.weights import linear, stored_at, stored_state, weight
from laser_interp.storage.atomic import new_folder
from laser_interp.storage.checksums import CHECKSUMS, check_folder, write_checksums

GENERIC_WORDS = "generic_words.json"
# In a compressed checkpoint: "LAYER.MATRIX.down" [d_in, k] and "LAYER.MATRIX.up" [k, d_out].
FACTORS = "factors.safetensors"


class FactoredLinear(torch.nn.Module):
    """A linear map stored as two factors: `y = (x @ down) @ up + bias`."""

    def __init__(self, down: Float[Tensor, "d_in k"], up: Float[Tensor, "k d_out"], bias: Tensor | None) -> None:
        super().__init__()
        self.down = torch.nn.Parameter(down, requires_grad=False)
        self.up = torch.nn.Parameter(up, requires_grad=False)
        self.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
        self.in_features, self.out_features = down.shape[0], up.shape[1]

    @property
    def weight(self) -> Float[Tensor, "d_out d_in"]:
        """The dense weight as torch's Linear keeps it, made on demand."""
        return (self.down @ self.up).T

    def forward(self, x: Tensor) -> Tensor:
        y = (x @ self.down) @ self.up
        return y if self.bias is None else y + self.bias


def save(
    model: LoadedModel,
    out: str | Path,
    *,
    dense: Mapping[tuple[int, str], Tensor] | None = None,
    factors: Mapping[tuple[int, str], tuple[Tensor, Tensor]] | None = None,
    verify: Callable[[Path], None] | None = None,
) -> Path:
    """See `Model.save_checkpoint`; `verify` looks at the folder before it gets its name, and may refuse it."""
    try:
        with new_folder(Path(out)) as folder:
            _write(model, folder, dict(dense or {}), dict(factors or {}))
            write_checksums(folder)
            if verify is not None:
                verify(folder)
    except Exception as error:  # safetensors raises bare ones at a full disk
        if type(error) is not Exception and type(error).__module__.partition(".")[0] != "safetensors":
            raise
        raise OSError(
            f"{out} could not be written ({error}): no part of it was kept; free some disk space and try again"
        ) from error
    return Path(out)


def _write(
    model: LoadedModel,
    folder: Path,
    dense: dict[tuple[int, str], Tensor],
    factors: dict[tuple[int, str], tuple[Tensor, Tensor]],
) -> None:
    from safetensors.torch import save_file

    state = {name: tensor.detach() for name, tensor in stored_state(model).items()}
    for site, name in model._state.factored.items():
        rows_are_outputs = not name.startswith("~")
        name = name.removeprefix("~")
        down, up = state.pop(f"{name}.down"), state.pop(f"{name}.up")
        if site in dense:
            d_in, d_out = weight(model, *site).shape
            shape = (d_out, d_in) if rows_are_outputs else (d_in, d_out)
            state[name] = torch.empty(*shape, dtype=down.dtype, device=down.device)
        else:
            factors.setdefault(site, (down, up))
    for (layer, matrix), new_weight in dense.items():
        name, index = stored_at(model, layer, matrix)
        stored = state[name.removeprefix("~")] = state[name.removeprefix("~")].clone()
        (stored.T if name.startswith("~") else stored)[index.to(stored.device)] = new_weight.T.to(stored)
    factored = {}
    for (layer, matrix), (down, up) in factors.items():
        state.pop(stored_at(model, layer, matrix)[0].removeprefix("~"), None)
        dtype = linear(model, layer, matrix).weight.dtype
        factored[f"{layer}.{matrix}.down"] = down.to("cpu", dtype).contiguous()
        factored[f"{layer}.{matrix}.up"] = up.to("cpu", dtype).contiguous()

    original: Any = model.bridge.original_model
    config = copy.deepcopy(original.config)
    config.architectures = [type(original).__name__]
    config.dtype = model.dtype
    config.save_pretrained(folder)
    if getattr(original, "generation_config", None) is not None:
        original.generation_config.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    save_file({k: v.cpu().contiguous() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"})
    if factored:
        save_file(factored, folder / FACTORS)
    if model.generic_words is not None:
        (folder / GENERIC_WORDS).write_text(json.dumps(model.generic_words) + "\n", encoding="utf-8")


def read_factors(folder: Path) -> dict[str, Tensor] | None:
    """The factors beside a checkpoint, or None where there are none.

    Raises:
        ValueError: the folder was changed after `save` wrote it, or its file of factors holds no pairs of factors.
    """
    check_folder(folder, f"get it again, or if you changed it on purpose, remove {CHECKSUMS}")
    path = folder / FACTORS
    if not path.is_file():
        return None
    factors = _read_tensors(path)
    names = {name.rpartition(".")[0] for name in factors}
    whole = {f"{name}.{part}" for name in names for part in ("down", "up")}
    if whole != set(factors) or any(not re.fullmatch(r"\d+\.\w+", name) for name in names):
        raise ValueError(f"{path} holds no factors: expected LAYER.MATRIX.down and LAYER.MATRIX.up of each matrix")
    return factors


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def read_factored(folder: Path, dtype: Any, n_factored: int) -> Any:
    """A transformers model from a checkpoint that lacks the matrices it stores as factors.

    The dense forms of these matrices take no memory.

    Raises:
        ValueError: the checkpoint holds other weights than its configuration asks for.
    """
    import transformers

    try:
        config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        (architecture,) = config.architectures
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder} has no usable config.json: {error}") from error
    if architecture not in language_models():
        raise ValueError(
            f"{folder} asks for the architecture {architecture!r}, which is not a causal or masked language model of "
            "transformers"
        )
    weights = _read_tensors(folder / "model.safetensors")
    with without_initialisation():
        hf_model: Any = getattr(transformers, architecture)._from_config(config, dtype=config.dtype)
    try:
        missing, unexpected = hf_model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:  # other shapes
        raise ValueError(f"the weights of {folder} do not fit its config.json: {error}") from error
    if unexpected:
        raise ValueError(f"{folder} is not a checkpoint of {architecture}: it holds {', '.join(unexpected[:3])}")
    absent = set(missing) - set(hf_model.all_tied_weights_keys)
    if len(absent) != n_factored:
        raise ValueError(f"{folder} is incomplete: {len(absent)} weights are missing, {n_factored} stored as factors")
    hf_model.tie_weights()
    return hf_model if dtype == "auto" else hf_model.to(dtype)


def use_factors(model: LoadedModel, factors: Mapping[str, Tensor]) -> None:
    """Put factored linear maps where the checkpoint left matrices out."""
    for name in sorted({name.rpartition(".")[0] for name in factors}):
        layer, _, matrix = name.partition(".")
        if int(layer) >= model.n_layers or matrix not in model.matrices:
            raise ValueError(f"{model.name!r} has no matrix {name}, for which {FACTORS} holds factors")
        module = linear(model, int(layer), matrix)
        like = {"device": module.weight.device, "dtype": module.weight.dtype}
        down, up = (factors[f"{name}.{part}"].to(**like) for part in ("down", "up"))
        if (down.shape[0], up.shape[1]) != tuple(weight(model, int(layer), matrix).shape):
            raise ValueError(f"the factors of {name} in {FACTORS} have another shape than the matrix")
        parameters = model._state.parameters
        dense_name = next(k for k, p in parameters.items() if p is module.weight)
        del parameters[dense_name]
        model._state.factored[int(layer), matrix] = ("~" if is_conv1d(module) else "") + dense_name
        linear_slot(model.bridge, int(layer), matrix).set_original_component(FactoredLinear(down, up, module.bias))
        parameters |= {f"{dense_name}.down": down, f"{dense_name}.up": up}
    model._state.memo.clear()
