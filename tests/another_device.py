"""A device that is not the processor, without having one: real values behind tensors that say that they are elsewhere.

A CUDA device refuses to compute with a tensor of the processor's memory. Here that refusal is imitated: a model's
weights are wrapped, so that their device is torch's "meta", and every operation runs on what is inside. An operation
that mixes wrapped and plain tensors raises, as on a GPU. It has no float64 either,
like Apple's mps. So whatever runs here takes every device from the model or the data, and its results can be compared
with those of the processor.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

DEVICE = torch.device("meta")
_aten = torch.ops.aten
# Operations that move between devices, and one that reads a number
_MOVES = {_aten._to_copy.default, _aten.copy_.default}
# A GPU's tensor may be indexed by one of the processor's
_INDEXED = {_aten.index.Tensor, _aten.index_put_.default, _aten._index_put_impl_.default}
_READS = {_aten._local_scalar_dense.default}


class Elsewhere(torch.Tensor):
    """A tensor on the imitated device; `inside` holds its values."""

    inside: torch.Tensor

    @staticmethod
    def __new__(cls, inside):
        wrapped = torch.Tensor._make_wrapper_subclass(
            cls, inside.shape, strides=inside.stride(), storage_offset=inside.storage_offset(), dtype=inside.dtype,
            device=DEVICE,
        )  # fmt: skip
        wrapped.inside = inside
        return wrapped

    def __repr__(self, **_):
        return f"Elsewhere({self.inside})"

    def tolist(self):
        return self.inside.tolist()

    def data_ptr(self):
        return self.inside.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _FromData(TorchFunctionMode):
    """`torch.tensor(data, device=…)` makes a tensor without values where the device is "meta"."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            kwargs.pop("device")
            return Elsewhere(func(*args, **kwargs))
        return func(*args, **kwargs)


class AnotherDevice(TorchDispatchMode):
    """While it is on, tensors that are made on the imitated device hold values too."""

    def __enter__(self):
        self._from_data = _FromData()
        self._from_data.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._from_data.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    flat, spec = tree_flatten((args, kwargs))
    wrapped = [one for one in flat if isinstance(one, Elsewhere)]
    plain = [one for one in flat if isinstance(one, torch.Tensor) and not isinstance(one, Elsewhere) and one.ndim]
    indexed = func in _INDEXED and isinstance(flat[0], Elsewhere)
    if wrapped and plain and func not in _MOVES and not indexed:
        raise RuntimeError(f"{func} mixes tensors of the processor and of another device: expected one device")
    args, kwargs = tree_unflatten([one.inside if isinstance(one, Elsewhere) else one for one in flat], spec)
    asked = kwargs.get("device")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*args, **kwargs)
    if func in _READS:
        return out
    if func._schema.is_mutable and isinstance(flat[0], torch.Tensor):
        return flat[0]
    if (torch.device(asked) == DEVICE) if asked is not None else bool(wrapped):
        values, out_spec = tree_flatten(out)
        if any(isinstance(one, torch.Tensor) and one.dtype == torch.float64 for one in values):
            raise TypeError("this device has no float64, as Apple's mps: move to the processor first")
        out = tree_unflatten([Elsewhere(one) if isinstance(one, torch.Tensor) else one for one in values], out_spec)
    return out


def move(model):
    """A loaded model's weights, moved to the imitated device for good."""
    for module in dict.fromkeys([*model.bridge.modules(), *model.bridge.original_model.modules()]):
        for name, value in list(module._parameters.items()):
            if value is not None and not isinstance(value.data, Elsewhere):
                module._parameters[name] = torch.nn.Parameter(Elsewhere(value.detach()), requires_grad=False)
        for name, value in list(module._buffers.items()):
            if value is not None and not isinstance(value, Elsewhere):
                module._buffers[name] = Elsewhere(value)
    model.weights_changed()
    return model
