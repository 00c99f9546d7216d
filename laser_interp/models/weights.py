"""Weights of linear maps: where the checkpoint stores them, and what is derived from them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.models.experts import ExpertMap
from laser_interp.models.library_internals import is_conv1d, why_not_linear
from laser_interp.models.loaded_model import LoadedModel

T = TypeVar("T")


def check_linear(model: LoadedModel, layer: int, matrix: str) -> None:
    """Refuse a module that is not exactly the linear map of its weight and bias.

    Raises:
        ValueError: an adapter, a hook of torch, or anything else is in the way, which edits would drop.
    """
    if why := why_not_linear(model.linear(layer, matrix)):
        raise ValueError(f"{layer}.{matrix} of {model.name!r} {why}")


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


def _stamp(tensor: Tensor) -> tuple[object, ...]:
    """A value that differs once a tensor is replaced or changed in place. torch counts most changes in place; some
    values of the tensor show many of the others."""
    version = None if tensor.is_inference() else tensor._version
    flat = tensor.detach().reshape(-1)
    some = flat[:: max(flat.numel() // 16, 1)][:16].tolist()
    return tensor.data_ptr(), version, repr(some)


@dataclass(frozen=True, eq=False)
class StoredAt:
    """Where a checkpoint stores a matrix.

    Attributes:
        name: of the parameter.
        index: for each of the matrix's outputs the row at which the parameter holds it.
        transposed: whether the parameter has a column for each output, not a row.
        expert: whose part of the parameter it is, where that holds the matrices of several experts.
    """

    name: str
    index: Tensor
    transposed: bool = False
    expert: int | None = None

    def rows(self, parameter: Tensor) -> Float[Tensor, "outputs inputs"]:
        """A view of the parameter, with a row for each output."""
        own = parameter if self.expert is None else parameter[self.expert]
        return own.T if self.transposed else own


def stored_at(model: LoadedModel, layer: int, matrix: str) -> StoredAt:
    """Where the checkpoint stores a matrix.

    Most matrices are a parameter of their own, which is found by what it is, whatever its values are. A matrix that is
    stored in one parameter with others is found by the values of its rows among the layer's other parameters.

    Raises:
        ValueError: none of the layer's parameters holds it, or it cannot be told which rows are its own.
    """
    names = {id(parameter): name for name, parameter in model._state.parameters.items()}
    module = model.linear(layer, matrix)
    if isinstance(own := model.maps[layer, matrix].of_mixture, ExpertMap):
        parameter, transposed = getattr(own.experts, own.name), own.experts.is_transposed
        index = torch.arange(parameter.shape[2 if transposed else 1])[own.outputs]
        return StoredAt(names[id(parameter)], index, transposed, own.expert)
    d_in, d_out = model.weight(layer, matrix).shape
    if (name := names.get(id(module.weight))) is not None:
        return StoredAt(name, torch.arange(d_out), is_conv1d(module))
    own_names = [m for m in model.matrices_of(layer) if model.maps[layer, m].of_mixture is None]
    own = {id(model.linear(layer, m).weight) for m in own_names}
    rows = _rows_by_value(model.weight(layer, matrix).T)
    found: list[StoredAt] = []
    for name, parameter in model._state.parameters.items():
        if f".{layer}." not in name or parameter.ndim != 2 or id(parameter) in own:
            continue
        for transposed, values in ((False, parameter), (True, parameter.T)):
            if values.shape[1] != d_in or values.shape[0] <= d_out:
                continue
            of_parameter = _rows_by_value(values)
            times, at = Counter(of_parameter), {row: i for i, row in enumerate(of_parameter)}
            if any(row not in at for row in rows):
                continue
            if any(times[row] > 1 for row in rows):
                raise ValueError(
                    f"{name} of {model.name!r} holds rows of {layer}.{matrix} more than once: it cannot be told which "
                    "of them are this matrix, so it is not exported"
                )
            found.append(StoredAt(name, torch.tensor([at[row] for row in rows]), transposed))
    if len(found) != 1:
        held = " and ".join(place.name for place in found) or "none"
        raise ValueError(f"cannot tell where {model.name!r} stores {layer}.{matrix}: {held} of its parameters hold it")
    return found[0]


def stored_state(model: LoadedModel) -> dict[str, Tensor]:
    """All that a checkpoint of the model stores, by name: its parameters, tied ones once, and persistent buffers."""
    return model._state.parameters | model._state.buffers


def _rows_by_value(matrix: Tensor) -> list[bytes]:
    """Each row's bytes, hashed."""
    return [hashlib.blake2b(tensor_bytes(row), digest_size=16).digest() for row in matrix.detach().cpu()]


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of tensors with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> Any:
    """The raw bytes of a tensor, in row-major order, for hashing."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()
