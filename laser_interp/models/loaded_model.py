"""A loaded model, and the state that this package keeps with it. The other files of this folder work on these."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.choices import MATRICES
from laser_interp.models.library_internals import is_conv1d
from laser_interp.models.linear_maps import LinearMap, linear_maps, module_of


@dataclass
class ModelState:
    """The state that this package keeps with a model, for its own use.

    Attributes:
        parameters: name in the checkpoint -> parameter; tied ones once.
        buffers: name in the checkpoint -> tensor that is stored with the weights and is no parameter, such as the
            `layer_scalar` of Gemma 4.
        entered: the edits that are on, the last one last; see `laser_interp.models.in_use`.
        lock: held by the thread that uses the model.
        memo: results computed from the weights, each with a stamp of the weights that it was computed from; see
            `laser_interp.models.weights.derived`.
        screening: whether matrices are multiplied in bfloat16 right now; see `laser_interp.models.bfloat16`.
        attached: the hooks of the edits that are on: (point, handle).
        running: the token ids that a forward pass is running on, and where each row starts; None between passes.
        prompted: while a text is generated, the sites that have seen the prompts; later tokens are not the prompts'.
    """

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor] = field(default_factory=dict)
    entered: list[Any] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock, repr=False)
    memo: dict[Any, Any] = field(default_factory=dict)
    screening: bool = False
    attached: list[tuple[Any, Any]] = field(default_factory=list)
    running: tuple[Sequence[Sequence[int]], Sequence[int]] | None = None
    prompted: set[Any] | None = None

    def __reduce__(self) -> Any:  # a copy of the bridge has other weights, and nothing that is known of these
        return ModelState, ({},)


_STATE = "_laser_interp_state"  # two models of one bridge share it


def check_model(model: object) -> None:
    """Refuse what is no model of `li.load_model`.

    Raises:
        ValueError: the message says what was given instead.
    """
    if not isinstance(model, LoadedModel):
        given = repr(model) if isinstance(model, str) else f"a {type(model).__name__}"
        raise ValueError(f"the model is {given}: expected one of li.load_model, before the facts and the edit")


class LoadedModel:
    """A transformers model in its TransformerLens bridge, with its tokenizer. `Model` describes the attributes."""

    def __init__(
        self, bridge: Any, tokenizer: Any, *, name: str, parameters: dict[str, Tensor], buffers: dict[str, Tensor]
    ) -> None:
        self.bridge = bridge
        self.tokenizer = tokenizer
        self.name = name
        self.revision: str | None = None
        self.n_layers: int = int(bridge.cfg.n_layers)
        self.d_model: int = int(bridge.cfg.d_model)
        self.d_vocab: int = int(bridge.cfg.d_vocab)
        self.n_heads: int = int(bridge.cfg.n_heads)
        self.d_mlp: int = int(getattr(bridge.cfg, "d_mlp", None) or 4 * self.d_model)
        self.max_positions: int | None = getattr(bridge.cfg, "n_ctx", None)
        self.generic_words: tuple[str, ...] | None = None
        self.source: dict[str, Any] | None = None
        self.quantisation: str | None = None
        self.left_out: tuple[str, ...] = ()
        self.architecture = str(bridge.cfg.architecture)
        self.masked = self.architecture.endswith("ForMaskedLM")
        if self.masked and tokenizer.mask_token_id is None:
            raise ValueError(f"{name!r} is a masked language model, but its tokenizer has no mask token")
        self.use_maps(linear_maps(bridge))
        self.runs_in_parts = True
        state = bridge.__dict__.get(_STATE)
        if state is None or list(map(id, state.parameters.values())) != list(map(id, parameters.values())):
            state = bridge.__dict__[_STATE] = ModelState(parameters, buffers)
        self._state: ModelState = state

    def use_maps(self, maps: Mapping[tuple[int, str], LinearMap]) -> None:
        """Take these as the linear maps of its layers."""
        self.maps = dict(maps)
        names = dict.fromkeys(matrix for _, matrix in maps)
        self.matrices: tuple[str, ...] = (
            *(m for m in MATRICES if m in names),
            *(m for m in names if m not in MATRICES),
        )
        self._matrices_of = [tuple(m for m in self.matrices if (layer, m) in maps) for layer in range(self.n_layers)]

    def matrices_of(self, layer: int) -> tuple[str, ...]:
        """The matrices of one layer."""
        return self._matrices_of[layer]

    @property
    def sites(self) -> tuple[str, ...]:
        """Every matrix of every layer, as in "3.in"."""
        return tuple(f"{layer}.{m}" for layer in range(self.n_layers) for m in self.matrices_of(layer))

    def linear(self, layer: int, matrix: str) -> Any:
        """The module that computes a linear map."""
        return module_of(self.bridge, self.maps[layer, matrix])

    def weight(self, layer: int, matrix: str) -> Float[Tensor, "d_in d_out"]:
        """The raw weight of a linear map, so that its output is `x @ weight + bias`."""
        module = self.linear(layer, matrix)
        stored = module.weight.detach()
        return stored if is_conv1d(module) else stored.T

    def bias(self, layer: int, matrix: str) -> Float[Tensor, " d_out"] | None:
        """The bias of a linear map, or None."""
        stored = self.linear(layer, matrix).bias
        return None if stored is None else stored.detach()

    @property
    def public_name(self) -> str:
        """What another machine may load to get this model: its hub id or short name, or else its name alone. A path of
        this machine is never written into files that are shared."""
        source = str((self.source or {}).get("source", self.name))
        return self.name if Path(source).is_absolute() else source

    @property
    def device(self) -> torch.device:
        """Where the first parameter is."""
        return next(iter(self.bridge.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """The first parameter's dtype."""
        return next(iter(self.bridge.parameters())).dtype

    @property
    def n_params(self) -> int:
        """Number of parameters; tied ones count once."""
        return sum(p.numel() for p in self._state.parameters.values())

    @property
    def n_bytes(self) -> int:
        """Bytes of all parameters; tied ones count once."""
        return sum(p.numel() * p.element_size() for p in self._state.parameters.values())
