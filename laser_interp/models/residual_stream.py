"""How a layer is wired into the residual stream, found by experiment: change an output and look at the effect."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from laser_interp.models.forward import forward, padding_id
from laser_interp.models.hooks import hooked, rewriting
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.partial_runs import Record, Reuse, make_batch, run
from laser_interp.models.weights import derived


def why_not_additive(model: LoadedModel, matrix: str) -> str | None:
    """Why a matrix's output is not simply a term of the final residual stream; None where it is.

    To find out, a vector is added to the output of this matrix in the last layer, and what follows in the layer stays
    as it was. If the final residual stream does not change by this vector, there is a norm in between, as in Gemma 2 or
    BERT, or a factor. Layers of a hybrid may differ in this, so that it cannot be told there.
    """
    if matrix not in ("o", "out"):
        return f"{matrix!r} does not write into the residual stream as it is; only o and out do"
    if len({model.matrices_of(n) for n in range(model.n_layers)}) > 1:
        return f"{model.architecture} has layers of several kinds, which may write into it in several ways"
    if not derived(model, ("additive", matrix), lambda: _is_additive(model, matrix)):
        return f"{model.architecture} has norms between its matrices and the residual stream, or none at its end"
    return None


def _is_additive(model: LoadedModel, matrix: str) -> bool:
    if model.masked or "ln_final.hook_in" not in model.bridge.hook_dict:
        return False
    layer, seen, first = model.n_layers - 1, [], []
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(model.d_model, generator=generator)

    def look(x: Tensor, hook: Any) -> None:
        seen.append(x[:, -1].cpu().double())

    def hold(x: Tensor, y: Tensor) -> Tensor:
        first.append(y)
        return first[0]

    row = [padding_id(model), *range(min(4, model.d_vocab))]
    held: dict[tuple[int, str], Any] = {(layer, "out"): hold} if "out" in model.matrices_of(layer) else {}
    hooks: list[tuple[str, Any]] = [("ln_final.hook_in", look)]
    if not held:  # a mixture of experts
        if matrix == "out" or (of_mlp := f"blocks.{layer}.mlp.hook_out") not in model.bridge.hook_dict:
            return False
        hooks.append((of_mlp, lambda y, hook: hold(y, y)))
    for rewrites in (held, held | {(layer, matrix): lambda x, y: y + shift.to(y)}):
        with rewriting(model, rewrites), hooked(model, hooks):
            forward(model, [row], [0], [len(row) - 1])
    moved = shift.to(model.dtype).double()
    return bool(((seen[1] - seen[0])[0] - moved).norm() < 0.02 * moved.norm())


def is_parallel(model: LoadedModel, layer: int) -> bool:
    """Whether a layer's MLP reads the input of the layer, without the output of the layer's attention.

    To find out, the layer is run twice, once with a changed attention output.
    """
    if not model.runs_in_parts or "o" not in model.matrices_of(layer) or "in" not in model.matrices_of(layer):
        return False  # a mixer of another kind; what is reused then is less, and the same
    return derived(model, ("parallel", layer), lambda: _is_parallel(model, layer))


def _is_parallel(model: LoadedModel, layer: int) -> bool:
    batch = make_batch(model, [[0, 1]], [(0, 1)])
    wave = torch.arange(2 * model.d_model, device=model.device).sin().to(model.dtype)  # no norm removes it
    ordinary, moved = Record(), Record()
    for record, size in ((ordinary, 0), (moved, 1)):

        def move(x: Tensor, original: Callable[[Tensor], Tensor], size: int = size) -> Tensor:
            return original(x) + size * wave[: model.d_model].to(x.device)

        run(
            model,
            batch,
            start=layer,
            stop=layer + 1,
            residual=wave.reshape(1, 2, model.d_model),
            reuse=Reuse(linear={(layer, "o"): move}),
            record=record,
        )
    return torch.equal(ordinary.linear["in"], moved.linear["in"])
