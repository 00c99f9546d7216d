"""Which linear maps each layer has, and where its bridge holds them.

Most layers have attention with the matrices `q k v o` and an MLP with `in gate out`. A layer of a hybrid mixes tokens
by something else: a linear attention, a convolution, a state space. Its MLP has the same names, and the maps of its
mixer keep the names that they have in the checkpoint, as in "in_proj_qkv". A layer of a mixture has the maps of each of
its experts, as in "in.e7", and of the router that chooses among them.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from laser_interp.choices import MATRICES, SUBLAYER_OF
from laser_interp.models.experts import ROUTER, SHARED, ExpertMap, Mixture, RouterMap, experts_of

_BRIDGED = "_original_component"
# Where a bridge holds a standard matrix: in the sublayer of its kind, or under one of these names
_ELSEWHERE = ("mlp.dense_{}", "shared_mlp.{}")
_SHARED = {
    f"{module}.{name}": matrix
    for module in ("shared_expert", "shared_experts")
    for name, matrix in (("up_proj", "in"), ("gate_proj", "gate"), ("down_proj", "out"))
}
_NO_MIXERS = ("mlp", "shared_mlp", "per_layer_input_gate", "per_layer_projection")


@dataclass(frozen=True)
class LinearMap:
    """One linear map of a layer.

    Attributes:
        path: of its module below the bridge; a component of the bridge where it has hooks, else the map itself.
        sublayer: the part of the block that holds it, as in "attn", "mlp" or "linear_attn".
        mixes: whether that part mixes tokens, as attention does; an MLP does not.
        has_hooks: whether the bridge has hooks at its input and output.
        of_mixture: the map, where it is that of a router or of an expert which the router chooses.
    """

    path: str
    sublayer: str
    mixes: bool
    has_hooks: bool
    of_mixture: ExpertMap | RouterMap | None = None


def linear_maps(bridge: Any) -> dict[tuple[int, str], LinearMap]:
    """(layer, matrix) -> its map, for each layer in the order of `MATRICES`; the maps of other mixers follow."""
    hooks = set(bridge.hook_dict)
    maps: dict[tuple[int, str], LinearMap] = {}
    for layer, block in enumerate(bridge.blocks):
        experts = experts_of(getattr(block, "mlp", None))
        for matrix in MATRICES:
            kind = SUBLAYER_OF[matrix]
            if kind == "mlp" and experts is not None:
                continue  # what a bridge calls the gate is the router here
            for form in (f"{kind}.{{}}", *(_ELSEWHERE if kind == "mlp" else ())):
                at = form.format(matrix)
                if f"blocks.{layer}.{at}.hook_in" in hooks:
                    maps[layer, matrix] = LinearMap(
                        f"blocks.{layer}.{at}", at.partition(".")[0], mixes=kind == "attn", has_hooks=True
                    )
                    break
        if experts is not None:
            maps |= {(layer, name): at for name, at in _of_mixture(block.mlp, layer).items()}
        of_layer = {matrix: at for (n, matrix), at in maps.items() if n == layer}
        attention = of_layer["q"].sublayer if "q" in of_layer else ""
        own = {id(module_of(bridge, at)) for at in of_layer.values()}
        maps |= {(layer, name): of_mixer for name, of_mixer in _of_mixer(block, layer, own, attention).items()}
    return maps


def _of_mixer(block: Any, layer: int, known: set[int], attention: str) -> dict[str, LinearMap]:
    """The linear maps of what mixes tokens in a layer beside or instead of its attention, by their names in the
    checkpoint, without those that have a standard name."""
    maps: dict[str, LinearMap] = {}
    for sublayer, part in block.submodules.items():
        if sublayer in (*_NO_MIXERS, attention):
            continue
        for path, module in part.original_component.named_modules():
            if isinstance(module, nn.Linear) and id(module) not in known:
                steps = [step for step in path.split(".") if step and step != _BRIDGED]
                if steps:
                    maps[steps[-1]] = LinearMap(
                        f"blocks.{layer}.{sublayer}.{_BRIDGED}.{path}", sublayer, mixes=True, has_hooks=False
                    )
    return maps


def _of_mixture(mlp: Any, layer: int) -> dict[str, LinearMap]:
    """The maps of a layer's experts, of those that all tokens pass, and of the router."""
    path = f"blocks.{layer}.mlp.{_BRIDGED}"
    mixture = Mixture.of(mlp.original_component)
    maps = {
        name: LinearMap(f"{path}.experts", "mlp", mixes=False, has_hooks=False, of_mixture=own)
        for name, own in {**mixture.experts, ROUTER: mixture.router}.items()
    }
    shared = {}
    for name, module in mlp.original_component.named_modules():
        at = ".".join(step for step in name.split(".") if step != _BRIDGED)
        if isinstance(module, nn.Linear) and at in _SHARED:
            shared[_SHARED[at]] = LinearMap(f"{path}.{name}", "mlp", mixes=False, has_hooks=False)
    return maps | {f"{matrix}.{SHARED}": shared[matrix] for matrix in ("in", "gate", "out") if matrix in shared}


def module_of(bridge: Any, linear_map: LinearMap) -> Any:
    """The module that computes a linear map."""
    if linear_map.of_mixture is not None:
        return linear_map.of_mixture
    module = bridge.get_submodule(linear_map.path)
    return module.original_component if linear_map.has_hooks else module
