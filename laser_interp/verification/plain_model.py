"""The same model in plain transformers, without anything of this package, and with weights that can be edited."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.sites import Site
from laser_interp.models.forward import score_dtype
from laser_interp.models.model import Model
from laser_interp.models.plain_copy import load_plain
from laser_interp.models.tokens import questions
from laser_interp.models.weights import parameter_name, rows_in, stored_at

Factors = tuple[str, Tensor, tuple[Tensor, Tensor, Tensor]]


class PlainModel:
    """A model as transformers loads it from a checkpoint: it takes as much memory again as the model itself."""

    def __init__(self, model: Model) -> None:
        with tempfile.TemporaryDirectory(prefix="laser-interp-check-") as folder:
            model.save_checkpoint(folder + "/model")
            self.hf_model = load_plain(model, folder + "/model")
        self._model = model

    def next_token_logprobs(self, prompts: Sequence[str]) -> Float[Tensor, "n_prompts d_vocab"]:
        """Log-probabilities of the next token, each prompt run alone."""
        out = []
        with torch.no_grad():
            for row, at in questions(self._model, prompts):
                logits = self.hf_model(torch.tensor([row], device=self._model.device)).logits[0, at]
                out.append(logits.to(score_dtype(logits.dtype)).log_softmax(-1))
        return torch.stack(out)

    def factors(self, site: Site) -> Factors:
        """Where a site's weight is (see `stored_at`), and its factors by torch's own decomposition, in fp64."""
        name, index = stored_at(self._model, site.layer, site.matrix)
        rows = self._rows(name)
        return name, index, torch.linalg.svd(rows[index.to(rows.device)].cpu().double(), full_matrices=False)

    @contextmanager
    def edited(self, where: Factors, kept: slice, *, nudged: bool = False) -> Iterator[None]:
        """While the block runs, the weight of `factors` has only some of its singular directions.

        Args:
            nudged: also move each number of the weight by one rounding, up or down, as another order of sums might.
        """
        name, index, (U, S, Vh) = where
        rows = self._rows(name)
        before = rows.clone()
        try:
            weight = ((U[:, kept] * S[kept]) @ Vh[kept]).to(rows)
            if nudged:
                signs = torch.randint(0, 2, weight.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
                weight = weight * (1 + torch.finfo(weight.dtype).eps * signs.to(weight))
            rows[index.to(rows.device)] = weight
            yield
        finally:
            rows.copy_(before)

    def _rows(self, name: str) -> Tensor:
        """A parameter as `[outputs, inputs]`, a view; see `stored_at`."""
        return rows_in(self.hf_model.get_parameter(parameter_name(name)).data, name)
