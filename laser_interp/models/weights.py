"""Weights of linear maps: reading them, where the checkpoint stores them, and what is derived from them."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.models.library_internals import is_conv1d, linear_map
from laser_interp.models.loaded_model import LoadedModel

T = TypeVar("T")


def linear(model: LoadedModel, layer: int, matrix: str) -> Any:
    """The module that computes a linear map."""
    return linear_map(model.bridge, layer, matrix)


def weight(model: LoadedModel, layer: int, matrix: str) -> Float[Tensor, "d_in d_out"]:
    """See `Model.weight`."""
    module = linear(model, layer, matrix)
    stored = module.weight.detach()
    if not stored.dtype.is_floating_point or stored.dtype.itemsize < 2:
        raise ValueError(
            f"the weight of {layer}.{matrix} of {model.name!r} is {stored.dtype}: quantised weights cannot be "
            "factored; load the model in float32, bfloat16 or float16"
        )
    return stored if is_conv1d(module) else stored.T


def bias(model: LoadedModel, layer: int, matrix: str) -> Float[Tensor, " d_out"] | None:
    """The bias of a linear map, or None."""
    stored = linear(model, layer, matrix).bias
    return None if stored is None else stored.detach()


def derived(model: LoadedModel, key: Hashable, make: Callable[[], T], *, of: Sequence[Tensor] = ()) -> T:
    """A result of the weights, computed once and kept with the model, and computed again if the weights changed.

    Args:
        of: the tensors it follows from; none for what follows from the architecture alone.
    """
    memo = model._state.memo
    stamp = tuple(map(_stamp, of))
    if key not in memo or memo[key][0] != stamp:
        memo[key] = stamp, make()
    return memo[key][1]


def stored_tensors(model: LoadedModel, layer: int, matrix: str) -> list[Tensor]:
    """The tensors that hold a linear map's weight, for `derived`."""
    return list(linear(model, layer, matrix).parameters())


def _stamp(tensor: Tensor) -> tuple[object, ...]:
    """A value that differs once a tensor is replaced or changed in place. torch counts most changes in place; some
    values of the tensor show many of the others."""
    version = None if tensor.is_inference() else tensor._version
    flat = tensor.detach().reshape(-1)
    some = flat[:: max(flat.numel() // 16, 1)][:16].tolist()
    return tensor.data_ptr(), version, repr(some)


def weights_sha256(model: LoadedModel) -> str:
    """See `Model.weights_sha256`."""

    def compute() -> str:
        digest = hashlib.sha256()
        for name, parameter in sorted(model._state.parameters.items()):
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
            digest.update(tensor_bytes(parameter))
        return digest.hexdigest()

    return derived(model, "weights_sha256", compute, of=list(model._state.parameters.values()))


def stored_at(model: LoadedModel, layer: int, matrix: str) -> tuple[str, Tensor]:
    """Where the checkpoint stores a matrix.

    It is found by value among the layer's parameters, so that no family needs a table of its own.

    Returns:
        The parameter's name, with "~" before it where its rows are inputs; and for each of the matrix's outputs the
        index at which the parameter holds it.

    Raises:
        ValueError: none of the layer's parameters holds it.
    """
    factored = model._state.factored
    if (layer, matrix) in factored:
        return factored[layer, matrix], torch.arange(linear(model, layer, matrix).out_features)
    wanted = weight(model, layer, matrix).T
    candidates = [
        (mark + name, p.detach().T if mark else p.detach())
        for name, p in model._state.parameters.items()
        if f".{layer}." in name and p.ndim == 2
        for mark in ("", "~")
    ]
    for name, values in candidates:  # most are stored on their own
        if values.shape == wanted.shape and torch.equal(values, wanted):
            return name, torch.arange(len(values))
    rows = _rows_by_value(wanted)
    for name, values in candidates:
        if values.shape[1] == wanted.shape[1] and values.shape[0] > wanted.shape[0]:
            at = {row: i for i, row in reversed(list(enumerate(_rows_by_value(values))))}
            if all(row in at for row in rows):
                index = torch.tensor([at[row] for row in rows])
                if len(index.unique()) == len(index):
                    return name, index
    raise ValueError(f"cannot tell where {model.name!r} stores {layer}.{matrix}: it is in none of the layer's weights")


def parameters(model: LoadedModel) -> dict[str, Tensor]:
    """All parameters, by their names in the checkpoint; tied ones once."""
    return model._state.parameters


def is_fused(model: LoadedModel, layer: int, matrix: str) -> bool:
    """Whether the checkpoint stores a matrix in one parameter with others."""
    if (layer, matrix) in model._state.factored:
        return False
    name, index = stored_at(model, layer, matrix)
    parameter = model._state.parameters[name.lstrip("~")]
    return parameter.shape[1 if name.startswith("~") else 0] != len(index)


def factored_sites(model: LoadedModel) -> tuple[tuple[int, str], ...]:
    """The (layer, matrix) pairs that are stored as factors; see `laser_interp.edits.compression`."""
    return tuple(sorted(model._state.factored))


def _rows_by_value(matrix: Tensor) -> list[bytes]:
    """Each row's bytes, hashed."""
    return [hashlib.blake2b(tensor_bytes(row), digest_size=16).digest() for row in matrix.detach().cpu()]


def tensor_bytes(tensor: Tensor) -> Any:
    """The raw bytes of a tensor, in row-major order, for hashing."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()
