"""The calls that users of TransformerLens know, on text or tokens, with whatever edits are on."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from laser_interp.models.forward import padded, takes_mask
from laser_interp.models.in_use import running
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.tokens import encode

Input = str | Sequence[str] | Int[Tensor, "n length"] | Int[Tensor, " length"]


def to_tokens(model: LoadedModel, texts: str | Sequence[str]) -> Int[Tensor, "n length"]:
    """See `Model.to_tokens`."""
    return padded(model, _rows(model, texts))[0].to(model.device)


def run(model: LoadedModel, method: str, input: Input, options: dict[str, Any]) -> Any:
    """Call a method of the bridge, so that edits at chosen positions know which tokens it runs on.

    Args:
        method: name of the bridge's method.
        input: texts, or token ids of rows of equal length.

    Raises:
        ValueError: no text, or tokens that are no table of whole numbers.
    """
    rows = _rows(model, input)
    ids, mask, starts = padded(model, rows)
    if not mask.all() and takes_mask(model):
        options = {"attention_mask": mask.to(model.device)} | options
    with running(model, rows, starts):
        return getattr(model.bridge, method)(ids.to(model.device), prepend_bos=False, **options)


def _rows(model: LoadedModel, input: Input) -> list[list[int]]:
    if isinstance(input, Tensor):
        if input.dtype.is_floating_point or input.ndim not in (1, 2) or input.numel() == 0:
            raise ValueError(
                f"the input is a tensor of {input.dtype} with the shape {list(input.shape)}: expected texts, or token "
                "ids [n, length] as model.to_tokens gives them"
            )
        return torch.atleast_2d(input).tolist()
    texts = [input] if isinstance(input, str) else list(input)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"the input is {input!r}: expected texts, or token ids as model.to_tokens gives them")
    return [encode(model, text) for text in texts]
