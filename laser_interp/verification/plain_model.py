"""The same model in plain transformers, without anything of this package, and with weights that can be edited."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.sites import Site
from laser_interp.models.forward import score_dtype
from laser_interp.models.model import Model
from laser_interp.models.tokens import questions
from laser_interp.models.weights import stored_at


class PlainModel:
    """A model as transformers loads it from a checkpoint: it takes as much memory again as the model itself."""

    def __init__(self, model: Model) -> None:
        original: Any = model.hf_model
        with tempfile.TemporaryDirectory(prefix="laser-interp-check-") as folder:
            model.save_checkpoint(folder + "/model")
            self.hf_model = type(original).from_pretrained(
                folder + "/model",
                dtype=model.dtype,
                attn_implementation=original.config._attn_implementation,
                local_files_only=True,
            )
        self.hf_model.to(model.device).eval().requires_grad_(False)
        self._model = model

    def next_token_logprobs(self, prompts: Sequence[str]) -> Float[Tensor, "n_prompts d_vocab"]:
        """Log-probabilities of the next token, each prompt run alone."""
        out = []
        with torch.no_grad():
            for row, at in questions(self._model, prompts):
                logits = self.hf_model(torch.tensor([row], device=self._model.device)).logits[0, at]
                out.append(logits.to(score_dtype(logits.dtype)).log_softmax(-1))
        return torch.stack(out)

    def factors(self, site: Site) -> tuple[str, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Where a site's weight is (see `stored_at`), and its factors by torch's own decomposition, in fp64."""
        name, index = stored_at(self._model, site.layer, site.matrix)
        parameter = self.hf_model.get_parameter(name.removeprefix("~")).data
        rows = parameter.T if name.startswith("~") else parameter
        return name, index, torch.linalg.svd(rows[index.to(rows.device)].double(), full_matrices=False)

    @contextmanager
    def edited(self, where: tuple[str, Tensor, tuple[Tensor, Tensor, Tensor]], kept: slice) -> Iterator[None]:
        """While the block runs, the weight of `factors` is made of some of its singular directions alone."""
        name, index, (U, S, Vh) = where
        parameter = self.hf_model.get_parameter(name.removeprefix("~"))
        before = parameter.detach().clone()
        rows = parameter.data.T if name.startswith("~") else parameter.data
        try:
            rows[index.to(rows.device)] = ((U[:, kept] * S[kept]) @ Vh[kept]).to(rows)
            yield
        finally:
            parameter.data.copy_(before)
