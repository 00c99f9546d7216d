"""Residual streams of the model as trained, kept from one run of edits to the next.

If the same prompts are scored again under an edit of the same layer or a later one, the run starts from a kept stream.
For example, a second `li.score` of an edit in the last layers computes only these layers, and one of an edit in the
middle starts from the nearest kept layer before it.
"""

import hashlib
from dataclasses import dataclass, field

from torch import Tensor

from laser_interp.models.bfloat16 import is_screened
from laser_interp.models.model import Model
from laser_interp.models.partial_runs import Batch
from laser_interp.models.weights import derived, stored_state, tensor_bytes

Key = tuple[str, bool]


@dataclass
class KeptStreams:
    """Streams by batch and layer. Of the batches with most streams, the one that was used longest ago loses one first,
    so that each batch keeps its last stream as long as there is room."""

    _of_batch: dict[Key, dict[int, Tensor]] = field(default_factory=dict)

    def nearest(self, key: Key, layer: int, above: int) -> tuple[int, Tensor] | None:
        """(layer, stream that enters it) for the last kept layer up to `layer`, if it is above `above`; else None."""
        streams = self._of_batch.get(key, {})
        layers = [at for at in streams if above < at <= layer]
        if not layers:
            return None
        self._of_batch[key] = self._of_batch.pop(key)  # the last used is the last to go
        return max(layers), streams[max(layers)]

    def keep(self, key: Key, layer: int, stream: Tensor, most_bytes: int) -> None:
        """Keep the stream that enters a layer, and drop streams until at most `most_bytes` are kept."""
        streams = self._of_batch.pop(key, {})
        streams.pop(layer, None)  # the last kept is the last to go
        self._of_batch[key] = streams | {layer: stream}
        n_bytes = sum(kept.nbytes for streams in self._of_batch.values() for kept in streams.values())
        while n_bytes > most_bytes:
            fullest = max(self._of_batch.values(), key=len)  # the first of several
            n_bytes -= fullest.pop(next(iter(fullest))).nbytes
            self._of_batch = {key: streams for key, streams in self._of_batch.items() if streams}

    def forget(self) -> None:
        """Drop all streams, so that two runs whose costs are compared start alike."""
        self._of_batch.clear()


def kept_streams(model: Model) -> KeptStreams:
    """The kept streams of a model; empty after a weight has changed."""
    return derived(model, "kept streams", KeptStreams, of=list(stored_state(model).values()))


def key_of(model: Model, batch: Batch) -> Key:
    """The tokens of a batch, and whether its products are in bfloat16."""
    digest = hashlib.sha256(repr(batch.shape).encode())
    digest.update(tensor_bytes(batch.ids))
    digest.update(tensor_bytes(batch.mask))
    return digest.hexdigest(), is_screened(model)
