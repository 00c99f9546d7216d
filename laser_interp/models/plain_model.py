"""A saved model in plain transformers, without anything of this package, and with weights that can be edited."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.models.forward import score_dtype
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.tokens import Read
from laser_interp.models.weights import StoredAt, stored_at, stored_state

Factors = tuple[StoredAt, tuple[Tensor, Tensor, Tensor]]


class PlainModel:
    """A model as transformers loads it from a folder that `Model.save_checkpoint` wrote. It takes as much memory again
    as the model itself."""

    def __init__(self, model: LoadedModel, folder: Path) -> None:
        kind: Any = type(model.bridge.original_model)
        plain = kind.from_pretrained(
            folder, dtype=model.dtype, attn_implementation=_attention(model), local_files_only=True
        )
        self.hf_model = plain.to(model.device).eval().requires_grad_(False)
        self._model = model

    def next_token_logprobs(self, reads: Sequence[Read]) -> Float[Tensor, "n_reads d_vocab"]:
        """Log-probabilities of the next token, each row run alone."""
        out = []
        with torch.no_grad():
            for row, at in reads:
                ids = torch.tensor([row], device=self._model.device)
                logits = self.hf_model(ids, return_dict=True).logits[0, at]
                out.append(logits.to(score_dtype(logits.dtype)).log_softmax(-1))
        return torch.stack(out)

    def factors(self, layer: int, matrix: str) -> Factors:
        """Where a weight is (see `stored_at`), and its factors by torch's own decomposition, in fp64."""
        at = stored_at(self._model, layer, matrix)
        rows = self._rows(at)
        return at, torch.linalg.svd(rows[at.index.to(rows.device)].cpu().double(), full_matrices=False)

    @contextmanager
    def edited(self, where: Factors, kept: slice, *, nudged: bool = False) -> Iterator[None]:
        """While the block runs, the weight of `factors` has only some of its singular directions.

        Args:
            nudged: also move each number of the weight by one rounding, up or down, as another order of sums might.
        """
        at, (U, S, Vh) = where
        rows = self._rows(at)
        before = rows.clone()
        try:
            weight = ((U[:, kept] * S[kept]) @ Vh[kept]).to(rows)
            if nudged:
                signs = torch.randint(0, 2, weight.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
                weight = weight * (1 + torch.finfo(weight.dtype).eps * signs.to(weight))
            rows[at.index.to(rows.device)] = weight
            yield
        finally:
            rows.copy_(before)

    def _rows(self, at: StoredAt) -> Tensor:
        return at.rows(self.hf_model.get_parameter(at.name).data)


def _attention(model: LoadedModel) -> str:
    """Which of transformers' attentions has the precision of the model's own.

    Eager's softmax is in fp32 whatever the model's dtype, and so is TransformerLens's; but where it splits a fused q, k
    and v it computes all in the model's dtype, as sdpa does.
    """
    original: Any = model.bridge.original_model
    with_queries = [layer for layer in range(model.n_layers) if "q" in model.matrices_of(layer)]
    alibi = getattr(original.config, "alibi", False)  # see `with_bridges_attention`
    if alibi or not with_queries or not getattr(original, "_supports_sdpa", False):
        return "eager"
    at = stored_at(model, with_queries[0], "q")
    is_fused = len(at.rows(stored_state(model)[at.name])) > len(at.index)
    return "sdpa" if is_fused else "eager"
