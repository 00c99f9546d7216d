"""Hooks: replacing the outputs of linear maps while a block of code runs, everywhere or at chosen positions."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from laser_interp.choices import Path
from laser_interp.models.experts import Mixture
from laser_interp.models.in_use import check_attached
from laser_interp.models.library_internals import mark_own
from laser_interp.models.loaded_model import LoadedModel

# (input [..., d_in], output [..., d_out]) -> new output [..., d_out]
Rewrite = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def rewriting(
    model: LoadedModel, rewrites: Mapping[tuple[int, str], Rewrite], path: Path = "network"
) -> Iterator[LoadedModel]:
    """Replace the outputs of linear maps by functions of their inputs and outputs, while the block runs.

    If one of the hooks is removed meanwhile, as by `bridge.reset_hooks()`, the next call and the end of the block raise
    a ValueError.

    Each function gets `x [..., d_in]` and `y [..., d_out]`, heads flattened, and returns the new `y`. Hooks are gone
    when the block ends, after an exception too.

    Args:
        rewrites: (layer, matrix) -> function.
        path: "network": all that follows sees the change. "direct": only the final residual stream does. "indirect":
            all that follows does, but the change itself is taken out of the final residual stream. The last two need
            matrices that add to the residual stream; see `why_not_additive`.
    """
    hooks: list[tuple[str, Callable[..., Any]]] = []
    of_torch: list[tuple[Callable[..., Any], Callable[..., Any]]] = []  # where the bridge has no hooks
    shapes: dict[int, torch.Size] = {}  # layer -> [rows, positions]
    changes: list[Tensor] = []
    for (layer, matrix), rewrite in rewrites.items():
        d_in, d_out = model.weight(layer, matrix).shape
        kept: dict[str, Tensor] = {}

        def keep(x: Tensor, hook: Any, *, kept: dict[str, Tensor] = kept) -> None:
            kept["x"] = x

        def replace(
            y: Tensor,
            hook: Any,
            *,
            kept: dict[str, Tensor] = kept,
            rewrite: Rewrite = rewrite,
            d_in: int = d_in,
            d_out: int = d_out,
        ) -> Tensor:
            x = kept.pop("x")
            x = x.flatten(-2) if x.ndim > 3 or x.shape[-1] != d_in else x  # heads, also where there is one
            flat = y.flatten(-2) if y.ndim > 3 or y.shape[-1] != d_out else y
            new = rewrite(x, flat)
            if path != "network":
                changes.append(new - flat)
            return (flat if path == "direct" else new).reshape(y.shape)

        at = model.maps[layer, matrix]
        if at.has_hooks:
            hooks += [(f"{at.path}.hook_in", keep), (f"{at.path}.hook_out", replace)]
        else:

            def note(module: Any, args: Any, kwargs: Any, *, layer: int = layer) -> None:
                shapes[layer] = (args[0] if args else kwargs["hidden_states"]).shape[:2]

            def both(
                module: Any, args: Any, y: Tensor, *, layer: int = layer, keep: Any = keep, replace: Any = replace
            ) -> Tensor:
                shape = shapes[layer] if y.ndim == 2 else y.shape[:-1]  # some mixtures put all tokens into one row
                keep(args[0].reshape(*shape, -1), None)
                return replace(y.reshape(*shape, -1), None).reshape(y.shape)

            mark_own(both)
            of_torch.append((model.linear(layer, matrix).register_forward_hook, both))
            of_torch.append((partial(model.bridge.blocks[layer].register_forward_pre_hook, with_kwargs=True), note))

    def at_the_end(x: Tensor, hook: Any) -> Tensor:
        moved = torch.stack([change.to(x.device) for change in changes]).sum(0)
        changes.clear()
        return x + moved if path == "direct" else x - moved

    if path != "network":
        hooks.append(("ln_final.hook_in", at_the_end))
    with ExitStack() as stack:
        mixtures_apart(model, rewrites, stack)
        for register, function in of_torch:
            stack.callback(register(function).remove)
        attached = stack.enter_context(hooked(model, hooks))
        model._state.attached += attached
        try:
            yield model
            check_attached(model)
        finally:  # edits may be left in another order than they were entered
            own = {id(handle) for _, handle in attached}
            model._state.attached = [pair for pair in model._state.attached if id(pair[1]) not in own]


def mixtures_apart(model: LoadedModel, sites: Iterable[tuple[int, str]], stack: ExitStack) -> None:
    """Let the routers and experts among some (layer, matrix) compute by their own maps, until the stack is left."""
    matrices: dict[int, set[str]] = {}
    for layer, matrix in sites:
        if model.maps[layer, matrix].of_mixture is not None:
            matrices.setdefault(layer, set()).add(matrix)
    for layer, chosen in matrices.items():
        stack.callback(Mixture.of(model.bridge.blocks[layer].mlp.original_component).compute_apart(chosen))


@contextmanager
def hooked(model: LoadedModel, hooks: Sequence[tuple[str, Callable[..., Any]]]) -> Iterator[list[tuple[Any, Any]]]:
    """Attach functions to hooks of the bridge, by name, while the block runs.

    `bridge.hooks` does the same. It lists every hook of the model each time, which takes as long as a small layer.
    """
    attached: list[tuple[Any, Any]] = []
    try:
        for name, function in hooks:
            point: Any = model.bridge.get_submodule(name)
            attached.append((point, point.add_hook(function)))
        yield attached
    finally:
        for point, handle in attached:
            handle.hook.remove()
            point.fwd_hooks = [other for other in point.fwd_hooks if other is not handle]


def count_hooks(model: LoadedModel) -> int:
    """How many hooks edits and callers have attached right now. The bridge's permanent hooks do not count."""
    return sum(len(handles) for handles in model.bridge.list_hooks(including_permanent=False).values())


def positions_in_batch(
    model: LoadedModel, site: Hashable, chosen: Mapping[tuple[int, ...], Sequence[int]]
) -> list[tuple[int, int, int, tuple[int, ...]]]:
    """Find the chosen positions in the rows that are being run: (row, position in it, which of the chosen ones it is,
    beginning of the prompt).

    Args:
        site: whose activations they are.
        chosen: how prompts begin (token ids) -> positions; the longest beginning that fits counts.

    Raises:
        ValueError: a prompt without chosen positions, or a run that this package did not start.
    """
    if model._state.running is None:
        raise ValueError(
            "an edit at chosen positions works in li.score, li.search and the calls of a model; its bridge does not "
            "tell which prompts it runs on"
        )
    rows, starts = model._state.running
    if (prompted := model._state.prompted) is not None:
        if site in prompted:
            return []  # one more token of a generation, its beginning kept in a cache
        prompted.add(site)
    keys = beginnings_of(model, rows, chosen)
    return [
        (i, start + position, number, key)
        for i, (key, start) in enumerate(zip(keys, starts, strict=True))
        for number, position in enumerate(chosen[key])
    ]


def beginnings_of(
    model: LoadedModel, rows: Sequence[Sequence[int]], chosen: Mapping[tuple[int, ...], Sequence[int]]
) -> list[tuple[int, ...]]:
    """For each prompt the longest beginning of it for which positions are chosen.

    Raises:
        ValueError: a prompt has none.
    """
    lengths = sorted({len(key) for key in chosen}, reverse=True)
    keys = []
    for row in rows:
        key = next((key for n in lengths if (key := tuple(row[:n])) in chosen), None)
        if key is None:
            raise ValueError(
                f"this edit has no positions for the prompt {model.tokenizer.decode(list(row))!r}: give Edit.at all "
                "prompts on which the edit will act"
            )
        keys.append(key)
    return keys
