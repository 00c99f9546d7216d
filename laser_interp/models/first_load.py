"""A short check of architectures that are not in the tested table, each time such a model is loaded."""

import warnings

import torch
from torch import Tensor

from laser_interp.models.families import is_tested
from laser_interp.models.forward import logits_at, score_dtype
from laser_interp.models.hooks import Rewrite, rewriting
from laser_interp.models.library_internals import first_line
from laser_interp.models.model import Model
from laser_interp.models.partial_runs import make_batch, run

# Largest difference that is allowed, as a share of the largest output. Two ways to compute a product in 8 or 11 bits
# differ by a few roundings.
_ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_N_TOKENS = 6


def few_layers(model: Model) -> list[int]:
    """The layers that a check looks at: the first, one in the middle, and the last."""
    return sorted({0, model.n_layers // 2, model.n_layers - 1})


def check_untested(model: Model) -> None:
    """Check three layers of a model whose architecture is not in the tested table, and warn if the check passes.

    The output of each linear map must be its input times its weight, plus its bias. Without that output, the model must
    give another answer. A prompt in a batch must get the same answer as alone. `laser-interp check` compares much more.

    Raises:
        ValueError: one of these is not true, so that an edit of the model would give wrong results.
    """
    if is_tested(model.architecture):
        return
    maps = [(layer, matrix) for layer in few_layers(model) for matrix in model.matrices]
    if not maps:
        raise ValueError(f"{model.architecture} of {model.name!r} has no linear map that TransformerLens names")
    ids = (torch.arange(_N_TOKENS) * 7 % max(model.d_vocab - 10, 1) + min(5, model.d_vocab - 1)).tolist()
    seen: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    def watch(at: tuple[int, str]) -> Rewrite:
        def keep(x: Tensor, y: Tensor) -> Tensor:
            seen[at] = x.detach(), y.detach()
            return y

        return keep

    try:
        with rewriting(model, {at: watch(at) for at in maps}):
            before = _last_logits(model, ids)
        for at in maps:
            _check_map(model, at, seen)
            with rewriting(model, {at: lambda x, y: torch.zeros_like(y)}):
                if torch.equal(before, _last_logits(model, ids)):
                    raise ValueError(f"the model answers the same without {at[0]}.{at[1]}")
        _check_batch(model, ids, before)
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{model.architecture} of {model.name!r} is not in the table of tested architectures, and the short check "
            f"of it failed: {first_line(error)}. docs/models.md lists what is tested"
        ) from error
    warnings.warn(
        f"{model.architecture} is not in the table of tested architectures (docs/models.md). A short check of "
        f"{len(maps)} of its linear maps passed; `laser-interp check --model …` runs the full comparison",
        stacklevel=3,
    )


def _check_batch(model: Model, ids: list[int], alone: Tensor) -> None:
    """Two copies of a batch of two prompts, run layer by layer, have to be answered as each prompt alone."""
    shorter = ids[: _N_TOKENS // 2]
    batch = make_batch(model, [ids, shorter], [(0, len(ids) - 1), (1, len(shorter) - 1)])
    residual = run(model, batch, stop=1) if model.n_layers > 1 else None
    logits = run(model, batch, copies=2, start=0 if residual is None else 1, residual=residual)
    expected = torch.cat([alone, _last_logits(model, shorter)]).repeat(2, 1)
    difference = float((logits - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= _ALLOWED[model.dtype]:
        raise ValueError(f"a prompt in a batch gets another answer than alone (off by {difference:.1e})")


def _last_logits(model: Model, ids: list[int]) -> Tensor:
    ((_, logits),) = logits_at(model, [ids], [(0, len(ids) - 1)])
    return logits


def _check_map(model: Model, at: tuple[int, str], seen: dict[tuple[int, str], tuple[Tensor, Tensor]]) -> None:
    x, y = seen[at]
    dtype = score_dtype(model.dtype)
    bias = model.bias(*at)
    expected = x.to(dtype) @ model.weight(*at).to(dtype) + (0.0 if bias is None else bias.to(dtype))
    difference = float((expected - y.to(dtype)).abs().max() / y.abs().max().clamp_min(1e-12))
    if not difference <= _ALLOWED[model.dtype]:
        raise ValueError(f"the output of {at[0]}.{at[1]} is not its input times its weight (off by {difference:.1e})")
