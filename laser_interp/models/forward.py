"""Whole forward passes: padded batches, logits where they are read, and activations with gradients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from laser_interp.models.hooks import Rewrite, hooked, rewriting
from laser_interp.models.in_use import running
from laser_interp.models.loaded_model import LoadedModel

HAVE_FLOAT64 = ("cpu", "cuda")  # devices that compute in fp64; Apple's mps does not


def takes_mask(model: LoadedModel) -> bool:
    """Whether the model can be given an attention mask. TransformerLens 4.3's GPT-1 then loses its causal mask."""
    return model.architecture != "OpenAIGPTLMHeadModel"


def may_run_together(model: LoadedModel, shorter: int, longer: int) -> bool:
    """Whether rows of two lengths may be padded to one.

    In fp64 they may not: eager attention casts the mask to fp32, which gives NaN. With longrope (Phi-3), all rows of a
    batch turn by the factors of the longest one, so that short and long rows run apart.
    """
    if model.dtype == torch.float64:
        return shorter == longer
    bound = _longrope_bound(model.bridge.original_model.config)
    return bound is None or (shorter <= bound) == (longer <= bound)


def _longrope_bound(config: Any) -> int | None:
    """The number of positions from which on a model with longrope uses other factors; None for other models."""
    rope = getattr(config, "rope_parameters", None) or {}
    if not isinstance(rope, dict) or rope.get("rope_type") != "longrope":
        return None
    bound = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return int(bound or config.max_position_embeddings)


def padding_id(model: LoadedModel) -> int:
    """The token id for padding. RoBERTa and OPT leave it out when they number positions; others use the mask alone."""
    config = model.bridge.original_model.config
    known = (getattr(config, "pad_token_id", None), model.tokenizer.pad_token_id)
    return next((i for i in known if i is not None and 0 <= i < model.d_vocab), 0)  # old LLaMA conversions say -1


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of results: fp32, or fp64 for an fp64 model."""
    return torch.promote_types(dtype, torch.float32)


def logits_at(
    model: LoadedModel,
    rows: Sequence[Sequence[int]],
    reads: Sequence[tuple[int, int]],
    *,
    batch_tokens: int = 4096,
    padding: str = "right",
) -> Iterator[tuple[list[int], Float[Tensor, "n d_vocab"]]]:
    """Next-token logits at chosen positions, a batch at a time.

    Args:
        rows: token ids, of any lengths.
        reads: (row, position) pairs; a row may be read at several positions.
        batch_tokens: rows x padded length of a batch.
        padding: "right" or "left"; it makes no difference to the result.

    Yields:
        Indices into `reads`, and their logits in fp32 (fp64 for an fp64 model). Rows that nobody reads are not run.
        Together the indices cover `reads` exactly once.
    """
    if padding not in ("right", "left"):
        raise ValueError(f"padding is {padding!r}: expected 'right' or 'left'")
    if padding == "left" and not takes_mask(model):
        raise ValueError(
            f"{model.name!r} cannot be padded on the left: TransformerLens's {model.architecture} stops being causal "
            "when it is given an attention mask, so it is run without one, padded on the right"
        )
    wanted: dict[int, list[int]] = {}
    for index, (row, _) in enumerate(reads):
        wanted.setdefault(row, []).append(index)
    for batch in batches(model, rows, list(wanted), batch_tokens):
        indices = [index for row in batch for index in wanted[row]]
        at = [slot for slot, row in enumerate(batch) for _ in wanted[row]]
        positions = [reads[index][1] for index in indices]
        yield indices, forward(model, [rows[row] for row in batch], at, positions, padding)


def batches(
    model: LoadedModel, rows: Sequence[Sequence[int]], chosen: Sequence[int], batch_tokens: int
) -> Iterator[list[int]]:
    """The chosen rows in batches: rows of about equal length together, as many as `batch_tokens` allows."""
    order = sorted(chosen, key=lambda row: (len(rows[row]), row))
    start = 0
    while start < len(order):
        stop = start + 1
        while (
            stop < len(order)
            and (stop + 1 - start) * len(rows[order[stop]]) <= batch_tokens
            and may_run_together(model, len(rows[order[start]]), len(rows[order[stop]]))
        ):
            stop += 1
        yield order[start:stop]
        start = stop


def padded(
    model: LoadedModel, rows: Sequence[Sequence[int]], padding: str = "right"
) -> tuple[Int[Tensor, "n length"], Int[Tensor, "n length"], list[int]]:
    """Pad rows to one length.

    Returns:
        Token ids; a mask, 1 for a row's own tokens and 0 for padding; and the position where each row starts.
    """
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), padding_id(model), dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    starts = [longest - len(row) if padding == "left" else 0 for row in rows]
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, start : start + len(row)] = torch.tensor(row)
        mask[i, start : start + len(row)] = 1
    return ids, mask, starts


def forward(
    model: LoadedModel,
    rows: Sequence[Sequence[int]],
    at: Sequence[int],
    positions: Sequence[int],
    padding: str = "right",
    *,
    gradients: bool = False,
) -> Float[Tensor, "n d_vocab"]:
    """Logits at (row, position) pairs of one padded batch."""
    ids, mask, starts = padded(model, rows, padding)
    row_index = torch.tensor(at)
    position_index = torch.tensor([starts[i] + p for i, p in zip(at, positions, strict=True)])

    def only_what_is_read(x: Tensor, hook: Any) -> Tensor:
        return x[row_index.to(x.device), position_index.to(x.device)].unsqueeze(1)

    # Logits are computed only at the positions that are read.
    only = [("unembed.hook_in", only_what_is_read)]
    with running(model, rows, starts), torch.set_grad_enabled(gradients), hooked(model, only):
        logits = model.bridge(
            ids.to(model.device),
            attention_mask=mask.to(model.device) if takes_mask(model) else None,
            return_type="logits",
            prepend_bos=False,
        )
    return logits[:, 0].to(score_dtype(logits.dtype))


Activations = Callable[[tuple[int, str]], tuple[Tensor, Tensor]]


def activations(
    model: LoadedModel,
    rows: Sequence[Sequence[int]],
    targets: Sequence[Sequence[tuple[int, int]]] | None,
    sites: Sequence[tuple[int, str]],
    *,
    batch_tokens: int = 2048,
) -> Iterator[tuple[list[int], Tensor, Activations]]:
    """Inputs of linear maps, and how much a small change of their outputs changes an answer's log-probability.

    Args:
        rows: token ids.
        targets: for each row the (position, next token) pairs whose log-probabilities are summed; None: no gradients
            are wanted.
        sites: (layer, matrix) pairs.

    Yields:
        Indices of rows; their summed log-probabilities, `[n]` (zeros without targets); and a function. For a site, the
        function gives its inputs `x [n, positions, d_in]` and the gradient with respect to its outputs
        `[n, positions, d_out]` (empty without targets), heads flattened. Beyond a row's end, gradients are zero and
        inputs have no meaning.
    """
    for batch in batches(model, rows, range(len(rows)), batch_tokens):
        of_batch = None if targets is None else [targets[i] for i in batch]
        yield batch, *_batch_activations(model, [rows[i] for i in batch], of_batch, sites)


def _batch_activations(
    model: LoadedModel,
    rows: Sequence[Sequence[int]],
    targets: Sequence[Sequence[tuple[int, int]]] | None,
    sites: Sequence[tuple[int, str]],
) -> tuple[Tensor, Activations]:
    inputs: dict[tuple[int, str], Tensor] = {}
    moved: dict[tuple[int, str], Tensor] = {}

    def watch(site: tuple[int, str]) -> Rewrite:
        def rewrite(x: Tensor, y: Tensor) -> Tensor:
            inputs[site] = x.detach()
            if targets is None:
                return y
            moved[site] = torch.zeros_like(y, requires_grad=True)
            return y + moved[site]

        return rewrite

    pairs = [(0, 0)] if targets is None else [(i, p) for i, row in enumerate(targets) for p, _ in row]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # whatever the caller's mode is
        stack.enter_context(torch.set_grad_enabled(targets is not None))
        stack.enter_context(rewriting(model, {site: watch(site) for site in sites}))
        logits = forward(model, rows, [i for i, _ in pairs], [p for _, p in pairs], gradients=targets is not None)
        total = torch.zeros(len(rows), dtype=torch.float64)
        gradients: dict[tuple[int, str], Tensor] = {}
        if targets is not None:
            tokens = torch.tensor([token for row in targets for _, token in row], device=logits.device)
            logprobs = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
            by_site = torch.autograd.grad(logprobs.sum(), [moved[site] for site in sites], allow_unused=True)
            gradients = {
                site: torch.zeros_like(moved[site]) if gradient is None else gradient
                for site, gradient in zip(sites, by_site, strict=True)
            }
            total.index_add_(0, torch.tensor([i for i, _ in pairs]), logprobs.detach().cpu().double())
    return total, lambda site: (inputs[site], gradients.get(site, inputs[site].new_zeros(0)))
