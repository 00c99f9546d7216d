"""The same model in plain transformers, without anything of this package, and with weights that can be edited."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.edit import Edit
from laser_interp.models.forward import score_dtype
from laser_interp.models.model import Model
from laser_interp.models.tokens import questions
from laser_interp.models.weights import stored_at


class PlainModel:
    """A model as transformers loads it from a checkpoint: it takes as much memory again as the model itself."""

    def __init__(self, model: Model) -> None:
        original: Any = model.bridge.original_model
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

    @contextmanager
    def edited(self, edit: Edit) -> Iterator[None]:
        """While the block runs, the edit's weights stand in the place of the trained ones."""
        before: dict[str, Tensor] = {}
        try:
            for site, part in edit.parts.items():
                name, index = stored_at(self._model, site.layer, site.matrix)
                parameter = self.hf_model.get_parameter(name.removeprefix("~"))
                before.setdefault(name.removeprefix("~"), parameter.detach().clone())
                rows = parameter.data.T if name.startswith("~") else parameter.data
                rows[index.to(parameter.device)] = part.weight.T.to(parameter)
            yield
        finally:
            for name, values in before.items():
                self.hf_model.get_parameter(name).data.copy_(values)
