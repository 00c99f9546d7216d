"""What every load compares: the wrapped model with itself before it was wrapped, on a prompt alone and in a batch.

A class in the table of tested families may have a config that changes its arithmetic, and a library may have changed.
So each load runs two short prompts through the model as transformers runs it, and again through each way in which this
package runs it: alone, in a padded batch, and in parts. It also checks a few linear maps against their weights.
`laser-interp check` compares much more.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laser_interp.choices import MATRICES
from laser_interp.models.experts import expert_of
from laser_interp.models.families import is_tested
from laser_interp.models.forward import forward, score_dtype
from laser_interp.models.hooks import Rewrite, rewriting
from laser_interp.models.library_internals import first_line
from laser_interp.models.model import Model
from laser_interp.models.partial_runs import Record, Reuse, has_mlp_module, make_batch, run
from laser_interp.models.residual_stream import is_parallel
from laser_interp.models.weights import check_linear

# Largest difference that is allowed, as a share of the largest output. Two ways to compute a product in 8 or 11 bits
# differ by a few roundings. In fp64 models, some of the attentions compute a softmax in fp32.
_ALLOWED = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_N_TOKENS, _SHORTER = 6, 3
_LIBRARY_ERRORS = (ValueError, KeyError, RuntimeError, TypeError, AttributeError, AssertionError, IndexError)


def few_layers(model: Model) -> list[int]:
    """The layers that a check looks at: the first, one in the middle, the last, and the first of each kind."""
    kinds: dict[tuple[str, ...], int] = {}
    for layer in range(model.n_layers):
        kinds.setdefault(model.matrices_of(layer), layer)
    return sorted({0, model.n_layers // 2, model.n_layers - 1, *kinds.values()})


def rows_of(hf_model: Any) -> list[list[int]]:
    """Token ids of two prompts, of which the shorter is the beginning of the longer, without tokens of a meaning of
    their own, such as the padding."""
    special = [getattr(hf_model.config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "mask")]
    d_vocab = int(hf_model.get_input_embeddings().weight.shape[0])
    usable = [token for token in range(min(d_vocab, 64)) if token not in special] or [0]
    row = [usable[(5 + 7 * i) % len(usable)] for i in range(_N_TOKENS)]
    return [row, row[:_SHORTER]]


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
    if not masked and _difference(inside, after[1]) > _ALLOWED[hf_model.dtype]:
        raise ValueError(
            f"{name!r} is no causal model: what follows a token changes what it predicts (its attention looks in both "
            "directions), so an answer cannot be scored after its prompt"
        )
    return after


def check_loaded(model: Model, before: Sequence[Tensor] | None = None) -> None:
    """Compare a wrapped model with itself before it was wrapped, and warn where its architecture is not in the table.

    Args:
        before: what `logits_before` gave; None compares the ways to run the model with each other.

    Raises:
        ValueError: they differ, so that results would be wrong; the message has the difference.
    """
    rows = rows_of(model.bridge.original_model)
    try:
        for layer in range(model.n_layers):
            for matrix in model.matrices_of(layer):
                check_linear(model, layer, matrix)
        whole = _whole_passes(model, rows)
        for said, after in whole:
            for logits, expected in zip(after, whole[0][1] if before is None else before, strict=True):
                if off := _too_far(model, logits, expected):
                    raise ValueError(f"{said} it differs from what transformers computes (by {off:.2g} nats)")
        _check_maps(model, rows[0])
    except _LIBRARY_ERRORS as error:
        raise ValueError(
            f"{model.architecture} of {model.name!r} cannot be used: {first_line(error)}. Each load compares a model "
            "with itself before it was wrapped; docs/models.md lists what is tested"
        ) from error
    _choose_engine(model, rows, whole[0][1])
    if not is_tested(model.architecture):
        warnings.warn(
            f"{model.architecture} is not in the table of tested architectures (docs/models.md). It was compared on "
            "two short prompts; `laser-interp check --model …` runs the full comparison",
            stacklevel=3,
        )


def find_how_it_runs(model: Model) -> None:
    """For a model that is not compared with transformers: which maps are run, and whether its layers run in parts."""
    rows = rows_of(model.bridge.original_model)
    _drop_maps_that_do_not_run(model, rows[0])
    _choose_engine(model, rows, _whole_passes(model, rows)[0][1])


def _choose_engine(model: Model, rows: list[list[int]], whole: Sequence[Tensor]) -> None:
    """Let full passes score a model whose layers cannot be run in parts, and say so."""
    if why := _why_not_in_parts(model, rows, whole):
        model.runs_in_parts = False
        warnings.warn(
            f"{model.architecture} of {model.name!r} is scored by full passes, as with engine='reference': its layers "
            f"cannot be run in parts ({why})",
            stacklevel=4,
        )


def _last_logits(model: Model, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """The logits after each of some prompts, which run together."""
    return list(forward(model, rows, range(len(rows)), [len(row) - 1 for row in rows]))


def _whole_passes(model: Model, rows: list[list[int]]) -> list[tuple[str, list[Tensor]]]:
    """The logits after the two prompts, alone and, where prompts may be padded, in a batch."""
    ways = [("run alone,", [logits for row in rows for logits in _last_logits(model, [row])])]
    if model.dtype != torch.float64:
        ways.append(("in a batch,", _last_logits(model, rows)))
    return ways


def _why_not_in_parts(model: Model, rows: list[list[int]], whole: Sequence[Tensor]) -> str | None:
    """Why the layers cannot be run as the engine runs them; None where they can.

    All layers are run at once, and then from each of a few layers on: as trained, and with half the output of one of
    the layer's matrices, of which only what it changes is computed again.
    """
    if model.dtype == torch.float64:  # fp64 is never padded
        rows, whole = rows[1:], whole[1:]
    batch = make_batch(model, rows, [(i, len(row) - 1) for i, row in enumerate(rows)])
    try:
        reached, stream = 0, None
        for layer in few_layers(model):
            if layer > reached:
                stream = run(model, batch, start=reached, residual=stream, stop=layer)
            record = Record()
            after = run(model, batch, start=layer, residual=stream, stop=layer + 1, record=record)
            is_parallel(model, layer)  # the engine asks for it
            matrix, reuse = _half_an_output(model, layer, record)
            with rewriting(model, {(layer, matrix): lambda x, y: y / 2}):
                halved = _last_logits(model, rows)
            for expected, how in ((whole, Reuse()), (halved, reuse)):
                logits = run(model, batch, copies=2, start=layer, residual=stream, reuse=how)
                for found, right in zip(logits, [*expected, *expected], strict=True):
                    if off := _too_far(model, found, right):
                        return f"from layer {layer} on they differ by {off:.2g} nats"
            reached, stream = layer + 1, after
    except _LIBRARY_ERRORS as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def _half_an_output(model: Model, layer: int, record: Record) -> tuple[str, Reuse]:
    """A matrix of the layer, and two copies of a run with half its output, computed as the engine does: from what one
    copy shares, where the layer has an MLP."""
    has = model.matrices_of(layer)
    if "out" not in has or "attn" not in record.sublayer:
        matrix = "out" if "out" in has else has[-1]
        return matrix, Reuse({(layer, matrix): lambda x, original: original(x) / 2})
    packed = has_mlp_module(model, layer)
    before = [m for m in ("in", "gate") if m in record.linear]
    linear: dict[tuple[int, str], Any] = {
        (layer, m): lambda x, original, m=m: record.linear[m].repeat(1 if packed else 2, 1) for m in before
    }
    linear[layer, "out"] = lambda x, original: (original(x) / 2).repeat(2, 1)
    shared = {(layer, m) for m in (*before, "out")} | ({(layer, "mlp")} if packed else set())
    return "out", Reuse(linear, shared, {(layer, "attn"): record.sublayer["attn"]})


def _too_far(model: Model, found: Tensor, expected: Tensor) -> float | None:
    """How many nats two results differ by, where this is more than rounding; else None."""
    expected = expected.to(found.device)
    if _difference(found, expected) <= _ALLOWED[model.dtype]:
        return None
    return float((found.log_softmax(-1) - expected.log_softmax(-1)).abs().max())


def _drop_maps_that_do_not_run(model: Model, row: list[int]) -> None:
    """Some mixers take a weight of their own, and do not run its map: this is no site."""
    own = [(layer, m) for layer in few_layers(model) for m in model.matrices_of(layer) if m not in MATRICES]
    own = [at for at in own if model.maps[at].of_mixture is None]
    if own:
        seen, _ = _inputs_and_outputs(model, row, own)
        gone = {matrix for layer, matrix in own if (layer, matrix) not in seen}
        model.use_maps({at: linear_map for at, linear_map in model.maps.items() if at[1] not in gone})


def _inputs_and_outputs(
    model: Model, row: list[int], maps: Sequence[tuple[int, str]]
) -> tuple[dict[tuple[int, str], tuple[Tensor, Tensor]], Tensor]:
    """What goes into and comes out of some maps, and the last logits."""
    seen: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    def watch(at: tuple[int, str]) -> Rewrite:
        def keep(x: Tensor, y: Tensor) -> Tensor:
            seen[at] = x.detach(), y.detach()
            return y

        return keep

    with rewriting(model, {at: watch(at) for at in maps}):
        return seen, _last_logits(model, [row])[0]


def _check_maps(model: Model, row: list[int]) -> None:
    """The output of each linear map of a few layers must be its input times its weight, plus its bias, and count."""
    _drop_maps_that_do_not_run(model, row)
    maps = [(layer, matrix) for layer in few_layers(model) for matrix in model.matrices_of(layer)]
    maps = [at for at in maps if expert_of(at[1]) in (None, 0)]  # all experts are built alike
    if not maps:
        raise ValueError("it has no linear map that TransformerLens names")
    seen, before = _inputs_and_outputs(model, row, maps)
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
        may_be_idle = model.maps[at].of_mixture is not None  # an expert may not be chosen, or all are
        if not is_tested(model.architecture) and not may_be_idle:
            with rewriting(model, {at: lambda x, y: torch.zeros_like(y)}):
                if torch.equal(before, _last_logits(model, [row])[0]):
                    raise ValueError(f"the model answers the same without {at[0]}.{at[1]}")


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
