"""Sites: which matrix of which layer."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from jaxtyping import Float
from torch import Tensor

from laser_interp.choices import MATRICES, SUBLAYER_OF, names_with_suggestion, parse_layers, whole_number
from laser_interp.models.experts import ROUTER, expert_of
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(m for m in MATRICES if SUBLAYER_OF[m] == group) for group in ("attn", "mlp")
} | {"all": MATRICES}
EXPERTS = "experts"  # the group of all matrices of all experts that a router chooses

# Names that the paper, its code and checkpoints use for matrices.
_ALIASES = {
    "q_proj": "q", "query": "q", "k_proj": "k", "key": "k", "v_proj": "v", "value": "v", "o_proj": "o", "out_proj": "o",
    "gate_proj": "gate", "up_proj": "in", "fc_up": "in", "down_proj": "out", "fc_out": "out", "U_out": "out",
}  # fmt: skip


def standard_name(name: str, *, gated: bool) -> str:
    """The standard name of a matrix, from any name the paper, its code or checkpoints give it.

    In a gated MLP, the published code calls the gate `fc_in` and the other `fc_up`. The paper's U_in is the gate.
    """
    if name in ("fc_in", "U_in"):
        return "gate" if gated else "in"
    return _ALIASES.get(name, name)


@dataclass(frozen=True, order=True)
class Site:
    """One linear map: a layer, counted from 0, and a matrix of `q k v o in gate out`, of another mixer by its own name,
    or of an expert, as in "in.e7". `model.sites` lists those of a model.

    Raises:
        ValueError: what cannot be a matrix, or a negative layer.
    """

    layer: int
    matrix: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z]\w*)?", str(self.matrix)):
            raise ValueError(f"unknown matrix {self.matrix!r}: expected {names_with_suggestion(MATRICES, self.matrix)}")
        object.__setattr__(self, "layer", whole_number("layer", self.layer))
        if self.layer < 0:
            raise ValueError(f"layer is {self.layer}: layers count from 0")

    def __str__(self) -> str:
        return f"{self.layer}.{self.matrix}"

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read the one-line form, as in "3.in"."""
        match = re.fullmatch(r"(\d+)\.([\w.]+)", text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no site: expected LAYER.MATRIX, as in '3.in'")
        return cls(int(match[1]), match[2])


Where = Site | str | tuple[int, str] | Iterable[Site | str | tuple[int, str]]

# Where a layer stands in the names of TransformerLens, and of parameters and modules of transformers
_LIBRARY_NAME = re.compile(r"(?:[\w.]*\.)?(?:blocks?|layers?|h)\.(-?\d+)\.([\w.]+?)(?:\.weight)?")
# The end of such a name -> the matrices; the longest that fits counts.
_LIBRARY_MATRICES: dict[str, tuple[str, ...]] = {
    "W_Q": ("q",), "W_K": ("k",), "W_V": ("v",), "W_O": ("o",), "W_in": ("in",), "W_out": ("out",), "W_gate": ("gate",),
    "attn.c_attn": ("q", "k", "v"), "query_key_value": ("q", "k", "v"), "qkv_proj": ("q", "k", "v"),
    "attn.c_proj": ("o",), "mlp.c_proj": ("out",), "c_fc": ("in",), "fc_in": ("in",), "fc1": ("in",), "fc2": ("out",),
    "attention.dense": ("o",), "self_attn.dense": ("o",), "attention.output.dense": ("o",),
    "intermediate.dense": ("in",), "output.dense": ("out",), "dense_h_to_4h": ("in",), "dense_4h_to_h": ("out",),
    "w1": ("gate",), "w2": ("out",), "w3": ("in",),
    "shared_expert.up_proj": ("in.shared",), "shared_experts.up_proj": ("in.shared",),
    "shared_expert.gate_proj": ("gate.shared",), "shared_experts.gate_proj": ("gate.shared",),
    "shared_expert.down_proj": ("out.shared",), "shared_experts.down_proj": ("out.shared",),
    "mlp.router": (ROUTER,), "block_sparse_moe.gate": (ROUTER,), "block_sparse_moe.router": (ROUTER,),
    "gate_up_proj": ("gate", "in"), "experts.gate_up_proj": ("gate.e*", "in.e*"), "experts.down_proj": ("out.e*",),
}  # fmt: skip


def _of_library(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Layer and matrices of a name of TransformerLens or transformers; None for text of another form."""
    match = _LIBRARY_NAME.fullmatch(text)
    if match is None:
        return None
    layer, name = match.groups()
    if (of_expert := re.fullmatch(r"(?:\w+\.)*experts\.(\d+)\.(\w+)", name)) is not None:
        number, own = of_expert.groups()
        return layer, tuple(f"{standard_name(m, gated=True)}.e{number}" for m in _LIBRARY_MATRICES.get(own, (own,)))
    fits = [end for end in _LIBRARY_MATRICES if name == end or name.endswith(f".{end}")]
    if fits:
        return layer, _LIBRARY_MATRICES[max(fits, key=len)]
    return layer, (name.rpartition(".")[2],)


def _of_layer(model: Model, layer: int, name: str) -> tuple[str, ...]:
    """The matrices of one layer that a name, a group (see `GROUPS` and `EXPERTS`) or a pattern ("in.e*") stands for.

    "mlp" stands for those of experts too, and "all" for every matrix but a router's, which is only meant by its name.
    The paper's names are translated for the model (see `standard_name`).
    """
    has = model.matrices_of(layer)
    if name in has:  # a mixer's own name, such as out_proj, comes before the paper's names of attention's matrices
        return (name,)
    has = tuple(m for m in has if m != ROUTER)
    name = standard_name(name, gated="gate" in model.matrices)
    if name == "all":
        return has
    if name == EXPERTS:
        return tuple(m for m in has if expert_of(m) is not None)
    if name.partition(".")[0] == "*" or name.endswith("*"):  # "*.e7", "in.e*"
        return tuple(fnmatch.filter(has, name))
    return tuple(m for m in has if m in GROUPS.get(name, (name,)) or m.partition(".")[0] in GROUPS.get(name, ()))


def _without_other_experts(matrices: Iterable[str]) -> list[str]:
    """Matrix names for a message: of the experts only the first, as all have the same."""
    return [m for m in matrices if expert_of(m) in (None, 0)]


def _of_experts(matrices: Iterable[str]) -> str:
    """What a message says of the other experts."""
    numbers = [number for matrix in matrices if (number := expert_of(matrix)) is not None]
    return f"; experts are e0 to e{max(numbers)}, and in.e* are those of all" if numbers else ""


def sites_in(model: Model, layers: Iterable[int], matrices: str | Iterable[str]) -> tuple[Site, ...]:
    """The sites that some layers have of some matrices or groups, layer by layer. In a hybrid, not every layer has
    every matrix.

    Raises:
        ValueError: the model, or none of these layers, has such a matrix.
    """
    layers, names = list(layers), [matrices] if isinstance(matrices, str) else list(matrices)
    sites: list[Site] = []
    for layer in layers:
        wanted = {matrix for name in names for matrix in _of_layer(model, layer, name)}
        sites += [Site(layer, matrix) for matrix in model.matrices_of(layer) if matrix in wanted]
    for name in names if not sites or len(names) > 1 else ():  # each must stand for something
        if name not in GROUPS and not any(_of_layer(model, layer, name) for layer in range(model.n_layers)):
            groups = (*GROUPS, EXPERTS) if any(map(expert_of, model.matrices)) else GROUPS
            known = names_with_suggestion((*_without_other_experts(model.matrices), *groups), name)
            raise ValueError(f"{model.name!r} has no matrix {name!r}: expected {known}{_of_experts(model.matrices)}")
    if not sites:
        where = f"layer {layers[0]}" if len(layers) == 1 else f"none of the layers {layers}"
        there = dict.fromkeys(m for layer in layers for m in model.matrices_of(layer))
        has, others = " ".join(_without_other_experts(there)), _of_experts(there)
        verb = "has no" if len(layers) == 1 else "has a"
        raise ValueError(f"{where} of {model.name!r} {verb} matrix {', '.join(names)}: expected one of {has}{others}")
    return tuple(sites)


def resolve_layers(model: Model, layers: str | int | Iterable[int | str]) -> tuple[int, ...]:
    """Layer numbers of the model from "all", "*", a number, "0,3", "0-3", or several; -1 is the last layer."""
    asked = parse_layers(layers)
    if asked is None:
        return tuple(range(model.n_layers))
    numbers = [layer + model.n_layers if -model.n_layers <= layer < 0 else layer for layer in asked]
    for layer in numbers:
        if not 0 <= layer < model.n_layers:
            raise ValueError(f"layer {layer} is out of range: {model.name!r} has layers 0 to {model.n_layers - 1}")
    return tuple(sorted(set(numbers)))


def resolve(model: Model, where: Where) -> tuple[Site, ...]:
    """Sites of a model from a `Site`, "3.in", "-1.in" (the last layer), "0-3.mlp", `"*.in"`, (3, "in"), or several. Of
    a mixture of experts, "3.in.e7" is expert 7's, "3.*.e7" all of that expert's, "3.experts" those of all experts, and
    "3.router" the router's.

    In text the paper's own names are accepted too ("27.U_in", "3.fc_in", "0.k_proj") and translated for the model; and
    so are the names of TransformerLens ("blocks.3.mlp.W_in") and of the checkpoint's parameters
    ("transformer.h.3.mlp.c_fc.weight"). A parameter that holds several matrices stands for all of them.

    Raises:
        ValueError: an unknown matrix, a layer out of range, or text of another form.
    """
    check_model(model)
    if isinstance(where, Site):
        if (where.layer, where.matrix) in model.maps:  # each score of an edit asks
            return (where,)
        return sites_in(model, resolve_layers(model, where.layer), where.matrix)
    if isinstance(where, str):
        if (of_library := _of_library(where.strip())) is not None:
            layer, matrices = of_library
            if matrices == ("gate",) and "gate" not in model.matrices and ROUTER in model.matrices:
                matrices = (ROUTER,)  # many checkpoints call it mlp.gate
            return sites_in(model, resolve_layers(model, layer), matrices)
        layer, dot, matrix = where.strip().partition(".")
        if not dot or not re.fullmatch(r"[-\d,]+|\*", layer):
            raise ValueError(f"{where!r} is no site: expected LAYER.MATRIX, as in '3.in' or '*.mlp'")
        return sites_in(model, resolve_layers(model, layer), matrix)
    if isinstance(where, tuple) and len(where) == 2 and isinstance(where[0], Integral) and isinstance(where[1], str):
        return resolve(model, f"{whole_number('layer', where[0])}.{where[1]}")
    if not isinstance(where, Iterable):
        raise ValueError(f"{where!r} is no site: expected LAYER.MATRIX, as in '3.in', (3, 'in'), or several")
    several: Any = where
    sites = tuple(dict.fromkeys(site for part in several for site in resolve(model, part)))
    if not sites:
        raise ValueError("no sites given: expected at least one, as in '3.in'")
    return sites


def resolve_site(model: Model, where: Site | str) -> Site:
    """The one site that is meant.

    Raises:
        ValueError: see `resolve`; or several sites.
    """
    sites = resolve(model, where)
    if len(sites) != 1:
        raise ValueError(f"{where!r} names {len(sites)} sites: expected one, as in '3.in'")
    return sites[0]


def weight(model: Model, site: Site) -> Float[Tensor, "d_in d_out"]:
    """The raw weight of a site: its output is `x @ weight + bias`."""
    resolve(model, site)
    return model.weight(site.layer, site.matrix)
