"""The calls that users of TransformerLens know, on text or tokens, with whatever edits are on."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from laser_interp.models.forward import padding_id, takes_mask
from laser_interp.models.in_use import exclusive_use
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.tokens import encode

Input = str | Sequence[str] | Int[Tensor, "n length"] | Int[Tensor, " length"]


def to_tokens(model: LoadedModel, texts: str | Sequence[str]) -> Int[Tensor, "n length"]:
    """See `Model.to_tokens`."""
    return _padded(model, _rows(model, texts)).to(model.device)


def run(model: LoadedModel, how: str, given: Input, options: dict[str, Any]) -> Any:
    """A call of the bridge, whose edits know which tokens it runs on.

    Args:
        how: name of the bridge's method.
        given: texts, or token ids of rows of equal length.

    Raises:
        ValueError: no text, or tokens that are no table of whole numbers.
    """
    rows = _rows(model, given)
    ids = _padded(model, rows)
    padded = any(len(row) < ids.shape[1] for row in rows)
    if padded and takes_mask(model):
        lengths = torch.tensor([[len(row)] for row in rows])
        options = {"attention_mask": (torch.arange(ids.shape[1]) < lengths).long().to(model.device)} | options
    with exclusive_use(model):
        before = model._state.running
        model._state.running = rows, [0] * len(rows)
        try:
            return getattr(model.bridge, how)(ids.to(model.device), prepend_bos=False, **options)
        finally:
            model._state.running = before


def _rows(model: LoadedModel, given: Input) -> list[list[int]]:
    if isinstance(given, Tensor):
        if given.dtype.is_floating_point or given.ndim not in (1, 2) or given.numel() == 0:
            raise ValueError(
                f"the input is a tensor of {given.dtype} with the shape {list(given.shape)}: expected texts, or token "
                "ids [n, length] as model.to_tokens gives them"
            )
        return torch.atleast_2d(given).tolist()
    texts = [given] if isinstance(given, str) else list(given)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"the input is {given!r}: expected texts, or token ids as model.to_tokens gives them")
    return [encode(model, text) for text in texts]


def _padded(model: LoadedModel, rows: Sequence[Sequence[int]]) -> Int[Tensor, "n length"]:
    ids = torch.full((len(rows), max(map(len, rows))), padding_id(model), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids
