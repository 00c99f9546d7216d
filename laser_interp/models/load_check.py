"""What every load compares: the wrapped model with itself before it was wrapped, on a prompt alone and in a batch.

A class in the table of tested families may have a config that changes its arithmetic, and a library may have changed.
So each load runs two short prompts through the model as transformers runs it, and again through each way in which this
package runs it: alone, in a padded batch, and layer by layer. It also checks a few linear maps against their weights.
`laser-interp check` compares much more.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laser_interp.models.families import is_tested
from laser_interp.models.forward import forward, score_dtype
from laser_interp.models.hooks import Rewrite, rewriting
from laser_interp.models.library_internals import first_line
from laser_interp.models.model import Model
from laser_interp.models.partial_runs import Record, make_batch, run
from laser_interp.models.residual_stream import is_parallel
from laser_interp.models.weights import check_linear

# Largest difference that is allowed, as a share of the largest output. Two ways to compute a product in 8 or 11 bits
# differ by a few roundings. In fp64 models, some of the attentions compute a softmax in fp32.
_ALLOWED = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_N_TOKENS, _SHORTER = 6, 3


def few_layers(model: Model) -> list[int]:
    """The layers that a check looks at: the first, one in the middle, and the last."""
    return sorted({0, model.n_layers // 2, model.n_layers - 1})


def check_rows(d_vocab: int, avoid: Sequence[int | None] = ()) -> list[list[int]]:
    """Token ids of two prompts, of which the shorter is the beginning of the longer.

    Args:
        avoid: tokens with a meaning of their own, such as the padding.
    """
    usable = [token for token in range(min(d_vocab, 64)) if token not in avoid] or [0]
    row = [usable[(5 + 7 * i) % len(usable)] for i in range(_N_TOKENS)]
    return [row, row[:_SHORTER]]


def rows_of(hf_model: Any) -> list[list[int]]:
    """`check_rows` for a transformers model."""
    config = hf_model.config
    special = [getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "mask")]
    return check_rows(int(hf_model.get_input_embeddings().weight.shape[0]), special)


def logits_before(hf_model: Any, name: str, *, masked: bool) -> list[Tensor]:
    """Next-token logits after the check's prompts, as transformers computes them, one prompt at a time.

    Raises:
        ValueError: transformers cannot run the model, or what follows a token changes what it predicts.
    """
    device = hf_model.get_input_embeddings().weight.device
    rows = rows_of(hf_model)
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            whole = [hf_model(torch.tensor([row], device=device)).logits[0] for row in rows]
    except Exception as error:  # a model's own code raises any kind
        raise ValueError(f"transformers cannot run {name!r}: {type(error).__name__}: {first_line(error)}") from error
    after = [logits[-1].to(score_dtype(logits.dtype)) for logits in whole]
    inside = whole[0][_SHORTER - 1].to(after[1])
    if not masked and _difference(inside, after[1]) > _ALLOWED[_dtype(hf_model)]:
        raise ValueError(
            f"{name!r} is no causal model: what follows a token changes what it predicts (its attention looks in both "
            "directions), so an answer cannot be scored after its prompt"
        )
    return after


def _dtype(hf_model: Any) -> torch.dtype:
    return next(iter(hf_model.parameters())).dtype


def check_loaded(model: Model, before: Sequence[Tensor] | None) -> None:
    """Compare a wrapped model with itself before it was wrapped, and warn where its architecture is not in the table.

    Args:
        before: what `logits_before` gave; None compares the ways to run the model with each other.

    Raises:
        ValueError: they differ, so that results would be wrong; the message has the difference.
    """
    rows = rows_of(model.bridge.original_model)
    try:
        without = [layer for layer in range(model.n_layers) if not hasattr(model.bridge.blocks[layer], "attn")]
        if without:
            raise ValueError(
                f"{len(without)} of its {model.n_layers} layers, {without[0]} among them, mix tokens by something else "
                "than attention, and scores of such hybrid models are not supported"
            )
        for layer in range(model.n_layers):
            is_parallel(model, layer)  # scores rely on it
            for matrix in model.matrices:
                check_linear(model, layer, matrix)
        ways = _ways_to_run(model, rows)
        for said, after in ways:
            for logits, expected in zip(after, ways[0][1] if before is None else before, strict=True):
                difference = _difference(logits, expected.to(logits.device))
                if not difference <= _ALLOWED[model.dtype]:
                    off = float((logits.log_softmax(-1) - expected.to(logits.device).log_softmax(-1)).abs().max())
                    raise ValueError(f"{said} it differs from what transformers computes (by {off:.2g} nats)")
        _check_maps(model, rows[0])
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError, AssertionError, IndexError) as error:
        raise ValueError(
            f"{model.architecture} of {model.name!r} cannot be used: {first_line(error)}. Each load compares a model "
            "with itself before it was wrapped; docs/models.md lists what is tested"
        ) from error
    if not is_tested(model.architecture):
        warnings.warn(
            f"{model.architecture} is not in the table of tested architectures (docs/models.md). It was compared on "
            "two short prompts; `laser-interp check --model …` runs the full comparison",
            stacklevel=3,
        )


def _ways_to_run(model: Model, rows: list[list[int]]) -> list[tuple[str, list[Tensor]]]:
    """The logits after the two prompts, by each way in which they are run."""
    reads = [(i, len(row) - 1) for i, row in enumerate(rows)]
    ways = [("run alone,", [forward(model, [row], [0], [len(row) - 1])[0] for row in rows])]
    if model.dtype != torch.float64:  # fp64 is never padded
        both = forward(model, rows, [0, 1], [at for _, at in reads])
        ways.append(("in a batch,", list(both)))
    else:
        rows, reads = [rows[0][:_SHORTER], rows[1]], [(0, _SHORTER - 1), (1, _SHORTER - 1)]
    batch = make_batch(model, rows, reads)
    whole = run(model, batch)
    resumed = whole
    if model.n_layers > 1:
        record = Record()
        residual = run(model, batch, stop=1)
        after = run(model, batch, start=1, residual=residual, stop=2, record=record) if model.n_layers > 2 else None
        start, residual = (1, residual) if after is None else (2, after)
        resumed = run(model, batch, copies=2, start=start, residual=residual)
    if model.dtype == torch.float64:
        return [*ways, ("layer by layer,", [ways[0][1][0], whole[1]]), ("resumed,", [ways[0][1][0], resumed[-1]])]
    return [*ways, ("layer by layer,", list(whole)), ("resumed,", list(resumed[-2:]))]


def _check_maps(model: Model, row: list[int]) -> None:
    """The output of each linear map of a few layers must be its input times its weight, plus its bias, and count."""
    maps = [(layer, matrix) for layer in few_layers(model) for matrix in model.matrices]
    if not maps:
        raise ValueError("it has no linear map that TransformerLens names")
    seen: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    def watch(at: tuple[int, str]) -> Rewrite:
        def keep(x: Tensor, y: Tensor) -> Tensor:
            seen[at] = x.detach(), y.detach()
            return y

        return keep

    def last() -> Tensor:
        return forward(model, [row], [0], [len(row) - 1])

    with rewriting(model, {at: watch(at) for at in maps}):
        before = last()
    for at in maps:
        x, y = seen[at]
        dtype = score_dtype(model.dtype)
        bias = model.bias(*at)
        expected = x.to(dtype) @ model.weight(*at).to(dtype) + (0.0 if bias is None else bias.to(dtype))
        difference = _difference(y.to(dtype), expected)
        if not difference <= _ALLOWED[model.dtype]:
            raise ValueError(
                f"the output of {at[0]}.{at[1]} is not its input times its weight (off by {difference:.1e})"
            )
        if not is_tested(model.architecture):
            with rewriting(model, {at: lambda x, y: torch.zeros_like(y)}):
                if torch.equal(before, last()):
                    raise ValueError(f"the model answers the same without {at[0]}.{at[1]}")


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
