"""A mixture of experts: for each expert the maps `in gate out`, as in "in.e7", and the map of the router.

A router chooses, token by token, which experts compute. transformers holds the experts of a layer as one tensor for
each kind of map, `[experts, d_out, d_in]`, so that an expert's map is a view of its slice. While an edit or an observer
is at it, the layer's other experts compute as before, without this one. This expert's maps compute at all tokens, and
their result counts with the weight that the router gave. A token that goes to other experts has the weight 0 and the
input 0. So the weights never change, and an input or a gradient of a map has a row for each token, as everywhere else.
The price is that the expert also computes for tokens that it does not get.

The router's module multiplies by its weight and chooses at once. While somebody is at it, that product is computed by
its map, so that the choice follows from what an edit makes of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from laser_interp.models.library_internals import swap_forward

ROUTED, SHARED = "e", "shared"  # "in.e7" of expert 7, "in.shared" of one that all tokens pass
ROUTER = "router"
_ROUTER = -1  # beside the numbers of experts


def expert_of(matrix: str) -> int | None:
    """The number of the expert that a matrix belongs to; None where a router does not choose.

    Example:
        >>> expert_of("in.e7"), expert_of("in")
        (7, None)
    """
    match = re.fullmatch(rf"\w+\.{ROUTED}(\d+)", matrix)
    return None if match is None else int(match[1])


class ExpertMap(nn.Module):
    """One linear map of one expert: a view of the tensor that holds those of all.

    Attributes:
        experts: the module of transformers that holds them.
        name: of the tensor.
        expert: which of them.
        outputs: where the map's outputs stand among those of the tensor.
    """

    def __init__(self, experts: Any, name: str, expert: int, outputs: slice) -> None:
        super().__init__()
        self.experts, self.name, self.expert, self.outputs = experts, name, expert, outputs

    def view(self, stored: Tensor) -> Tensor:
        """This map's weight `[d_out, d_in]` in the tensor that holds those of all experts."""
        own = stored[self.expert]
        return (own.T if self.experts.is_transposed else own)[self.outputs]

    @property
    def weight(self) -> Tensor:
        return self.view(getattr(self.experts, self.name))

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.experts, f"{self.name}_bias")[self.expert][self.outputs] if self.experts.has_bias else None

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The tensors that hold its weight and bias, for all experts."""
        names = [self.name, f"{self.name}_bias"] if self.experts.has_bias else [self.name]
        return (getattr(self.experts, name) for name in names)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class RouterMap(nn.Module):
    """The linear map of a router, a module of transformers: what it computes for each expert, before it chooses."""

    def __init__(self, router: Any) -> None:
        super().__init__()
        self.router = router

    @property
    def weight(self) -> Tensor:
        return self.router.weight

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.router, "bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class _ByMap(TorchFunctionMode):
    """A product with a weight of this shape is computed by a map, whose input is `[rows, positions, d_model]`."""

    def __init__(self, own: RouterMap, rows: int, positions: int) -> None:
        super().__init__()
        self.own, self.rows, self.positions = own, rows, positions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear and args[1].shape == self.own.weight.shape:
            y = self.own(args[0].reshape(self.rows, self.positions, -1))
            return y.reshape(*args[0].shape[:-1], -1)
        return func(*args, **(kwargs or {}))


def router_of(block: Any) -> Any:
    """The module that chooses, below what the bridge puts around it."""
    router = getattr(block, "gate", None) or block.router
    return getattr(router, "original_component", router)


def experts_of(mlp: Any) -> Any | None:
    """The module with a layer's experts, where it is of the form that transformers' own implementations share."""
    experts = getattr(getattr(mlp, "original_component", None), "experts", None)
    if not hasattr(experts, "is_concatenated") or getattr(experts, "has_post_expert_norm", False):
        return None
    return experts


def expert_maps(experts: Any) -> dict[str, ExpertMap]:
    """Matrix name -> its map, expert by expert: `in.e0 gate.e0 out.e0 in.e1 …`, without a gate where there is none."""
    wide = "gate_up_proj" if experts.has_gate else "up_proj"
    axis = 2 if experts.is_transposed else 1
    n = getattr(experts, wide).shape[axis] // 2
    if not experts.has_gate:
        outputs = {"in": slice(None)}
    elif experts.is_concatenated:
        outputs = {"in": slice(n, None), "gate": slice(0, n)}
    else:
        outputs = {"in": slice(1, None, 2), "gate": slice(0, None, 2)}
    maps = {}
    for expert in range(len(getattr(experts, wide))):
        for matrix, own in outputs.items():
            maps[f"{matrix}.{ROUTED}{expert}"] = ExpertMap(experts, wide, expert, own)
        maps[f"out.{ROUTED}{expert}"] = ExpertMap(experts, "down_proj", expert, slice(None))
    return maps


class Mixture:
    """The maps of a layer's router and experts, and which of these compute by them right now; one for each block.

    Hooks of torch let them do so. There is one set of these for all that ask, so that an edit and an observer of the
    same expert see each other, in any order.

    Attributes:
        block: the module that calls the router and the experts; its input is `[rows, positions, d_model]`.
        experts, router: their maps; those of the experts by the names of the matrices.
    """

    def __init__(self, block: Any) -> None:
        self.block = block
        self.experts = expert_maps(block.experts)
        self.router = RouterMap(router_of(block))
        self._apart: Counter[int] = Counter()  # numbers of experts; _ROUTER for the router
        self._undo: list[Callable[[], None]] = []
        self._seen: dict[str, Any] = {}

    @classmethod
    def of(cls, block: Any) -> Mixture:
        """That of a module of transformers, which keeps it."""
        own = vars(block)
        if "_laser_interp_mixture" not in own:
            own["_laser_interp_mixture"] = cls(block)
        return own["_laser_interp_mixture"]

    def compute_apart(self, matrices: Iterable[str]) -> Callable[[], None]:
        """Let the router, or experts with such matrices, compute by their own maps. Returns a function that ends it."""
        asked = Counter({_ROUTER if number is None else number for number in map(expert_of, matrices)})
        self._apart += asked
        if not self._undo:
            self._undo = [
                self.block.register_forward_pre_hook(self._before_block).remove,
                swap_forward(self.router.router, partial(self._route, self.router.router.forward)),
                self.block.experts.register_forward_pre_hook(self._before).remove,
                self.block.experts.register_forward_hook(self._after).remove,
            ]

        def end() -> None:
            self._apart -= asked  # drops those that nobody asks for any more
            if not self._apart:
                for undo in self._undo:
                    undo()
                self._undo = []

        return end

    def _before_block(self, module: Any, args: Any) -> None:
        self._seen["shape"] = args[0].shape

    def _route(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with _ByMap(self.router, *self._seen["shape"][:2]) if _ROUTER in self._apart else nullcontext():
            return original(*args, **kwargs)

    def _before(self, module: Any, args: Any) -> Any:
        """The others compute without these experts."""
        x, index, weights = args
        here = {expert: index == expert for expert in sorted(self._apart.keys() - {_ROUTER})}
        self._seen["x"] = x
        self._seen["weights"] = {expert: (weights * at).sum(-1, keepdim=True) for expert, at in here.items()}
        for of_expert in here.values():
            weights = weights.masked_fill(of_expert, 0.0)
        return x, index, weights

    def _after(self, module: Any, args: Any, others: Tensor) -> Tensor:
        x, out = self._seen.pop("x"), others
        for expert, weight in self._seen.pop("weights").items():
            own = x.masked_fill(weight == 0, 0.0)  # of the other tokens the expert may not even be finite
            y = _compute(module, self.experts, expert, own.reshape(self._seen["shape"]))
            out = out + (y.reshape(others.shape) * weight).to(others.dtype)
        return out


def _compute(experts: Any, maps: dict[str, ExpertMap], expert: int, x: Tensor) -> Tensor:
    """What one expert computes of all tokens, without the router's weight."""
    up, out = maps[f"in.{ROUTED}{expert}"], maps[f"out.{ROUTED}{expert}"]
    if not experts.has_gate:
        return out(experts.act_fn(up(x)))
    both = [maps[f"gate.{ROUTED}{expert}"](x), up(x)]
    wide = torch.cat(both, -1) if experts.is_concatenated else torch.stack(both, -1).flatten(-2)
    return out(experts._apply_gate(wide))
