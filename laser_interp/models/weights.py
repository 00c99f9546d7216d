"""Weights of linear maps: reading them, where the checkpoint stores them, and what is derived from them."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.models.experts import ExpertMap
from laser_interp.models.library_internals import is_conv1d, why_not_linear
from laser_interp.models.linear_maps import module_of
from laser_interp.models.loaded_model import LoadedModel

T = TypeVar("T")


def linear(model: LoadedModel, layer: int, matrix: str) -> Any:
    """The module that computes a linear map."""
    return module_of(model.bridge, model.maps[layer, matrix])


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


def check_linear(model: LoadedModel, layer: int, matrix: str) -> None:
    """Refuse a module that is not exactly the linear map of its weight and bias.

    Raises:
        ValueError: an adapter, a hook of torch, or anything else is in the way, which edits would drop.
    """
    if why := why_not_linear(linear(model, layer, matrix)):
        raise ValueError(f"{layer}.{matrix} of {model.name!r} {why}")


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
    stored = stored_state(model)

    def compute() -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(stored.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()

    return derived(model, "weights_sha256", compute, of=list(stored.values()))


def stored_at(model: LoadedModel, layer: int, matrix: str) -> tuple[str, Tensor]:
    """Where the checkpoint stores a matrix.

    Most matrices are a parameter of their own, which is found by what it is, whatever its values are. A matrix that is
    stored in one parameter with others is found by the values of its rows among the layer's other parameters.

    Returns:
        The parameter's name, with "~" before it where its rows are inputs and with the number of the expert, as in
        "[7]", where it holds those of several; see `parameter_name` and `rows_in`. And for each of the matrix's outputs
        the index at which the parameter holds it.

    Raises:
        ValueError: none of the layer's parameters holds it, or it cannot be told which rows are its own.
    """
    names = {id(parameter): name for name, parameter in model._state.parameters.items()}
    module = linear(model, layer, matrix)
    if isinstance(own := model.maps[layer, matrix].of_mixture, ExpertMap):
        mark = "~" if own.experts.is_transposed else ""
        name = f"{mark}{names[id(getattr(own.experts, own.name))]}[{own.expert}]"
        return name, torch.arange(len(rows_in(getattr(own.experts, own.name), name)))[own.outputs]
    if (name := names.get(id(module.weight))) is not None:
        return ("~" if is_conv1d(module) else "") + name, torch.arange(weight(model, layer, matrix).shape[1])
    own_names = [m for m in model.matrices_of(layer) if model.maps[layer, m].of_mixture is None]
    own = {id(linear(model, layer, m).weight) for m in own_names}
    rows = _rows_by_value(weight(model, layer, matrix).T)
    found: list[tuple[str, Tensor]] = []
    for name, parameter in model._state.parameters.items():
        if f".{layer}." not in name or parameter.ndim != 2 or id(parameter) in own:
            continue
        for mark, values in (("", parameter.detach()), ("~", parameter.detach().T)):
            if values.shape[1] == len(weight(model, layer, matrix)) and values.shape[0] > len(rows):
                of_parameter = _rows_by_value(values)
                at = {row: i for i, row in enumerate(of_parameter)}
                if all(row in at for row in rows):
                    if any(of_parameter.count(row) > 1 for row in rows):
                        raise ValueError(
                            f"{name} of {model.name!r} holds rows of {layer}.{matrix} more than once: it cannot be "
                            "told which of them are this matrix, so it is not exported"
                        )
                    found.append((mark + name, torch.tensor([at[row] for row in rows])))
    if len(found) != 1:
        held = "none" if not found else " and ".join(name.lstrip("~") for name, _ in found)
        raise ValueError(f"cannot tell where {model.name!r} stores {layer}.{matrix}: {held} of its parameters hold it")
    return found[0]


def parameter_name(name: str) -> str:
    """The parameter's name in the checkpoint, from what `stored_at` returned."""
    return name.removeprefix("~").partition("[")[0]


def rows_in(parameter: Tensor, name: str) -> Float[Tensor, "outputs inputs"]:
    """A view of the parameter that `stored_at` named, with a row for each output."""
    expert = name.partition("[")[2].rstrip("]")
    own = parameter[int(expert)] if expert else parameter
    return own.T if name.startswith("~") else own


def parameters(model: LoadedModel) -> dict[str, Tensor]:
    """All parameters, by their names in the checkpoint; tied ones once."""
    return model._state.parameters


def stored_state(model: LoadedModel) -> dict[str, Tensor]:
    """All that a checkpoint of the model stores, by name: its parameters, tied ones once, and persistent buffers."""
    return model._state.parameters | model._state.buffers


def is_fused(model: LoadedModel, layer: int, matrix: str) -> bool:
    """Whether the checkpoint stores a matrix in one parameter with others."""
    name, index = stored_at(model, layer, matrix)
    return len(rows_in(model._state.parameters[parameter_name(name)], name)) != len(index)


def _rows_by_value(matrix: Tensor) -> list[bytes]:
    """Each row's bytes, hashed."""
    return [hashlib.blake2b(tensor_bytes(row), digest_size=16).digest() for row in matrix.detach().cpu()]


def tensor_bytes(tensor: Tensor) -> Any:
    """The raw bytes of a tensor, in row-major order, for hashing."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()
