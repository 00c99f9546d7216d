"""Residual streams of the model as trained, kept from one run of edits to the next.

Whoever scores the same prompts again, under another edit of the same layer or a later one, goes on from there: a second
`li.score` of an edit in the last layers computes these layers alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from torch import Tensor

from laser_interp.models.bfloat16 import is_in_bfloat16
from laser_interp.models.model import Model
from laser_interp.models.partial_runs import Batch
from laser_interp.models.weights import derived, parameters, tensor_bytes

Key = tuple[str, bool]


@dataclass
class KeptStreams:
    """What is known, by batch and layer; what was used longest ago goes first."""

    _known: dict[tuple[Key, int], Tensor] = field(default_factory=dict)

    def nearest(self, key: Key, layer: int, above: int) -> tuple[int, Tensor] | None:
        """The stream that enters the last layer up to `layer` and above another, or None."""
        layers = [at for of, at in self._known if of == key and above < at <= layer]
        if not layers:
            return None
        found = key, max(layers)
        self._known[found] = self._known.pop(found)
        return found[1], self._known[found]

    def keep(self, key: Key, layer: int, stream: Tensor, most_bytes: int) -> None:
        """Keep the stream that enters a layer; none is kept that has no room."""
        self._known.pop((key, layer), None)
        self._known[key, layer] = stream
        total = sum(kept.numel() * kept.element_size() for kept in self._known.values())
        while total > most_bytes and self._known:
            gone = self._known.pop(next(iter(self._known)))
            total -= gone.numel() * gone.element_size()

    def forget(self) -> None:
        """Keep nothing: whoever compares the cost of two runs lets both begin alike."""
        self._known.clear()


def kept_streams(model: Model) -> KeptStreams:
    """Those of a model; none once a weight has changed."""
    return derived(model, "kept streams", KeptStreams, of=list(parameters(model).values()))


def key_of(batch: Batch) -> Key:
    """The tokens of a batch, and whether its products are in bfloat16."""
    digest = hashlib.sha256(repr(batch.shape).encode())
    digest.update(tensor_bytes(batch.ids))
    digest.update(tensor_bytes(batch.mask))
    return digest.hexdigest(), is_in_bfloat16(batch.ids.device)
