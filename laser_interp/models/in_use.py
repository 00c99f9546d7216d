"""Which thread uses a model right now, and which edits are on.

Only one thread at a time may use a model. Edits can be nested: the one entered last acts on top of the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from laser_interp.models.bfloat16 import in_own_numbers
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.weights import derived


@dataclass(eq=False)
class Entered:
    """An edit that was switched on.

    Attributes:
        parts: site -> what is done there by this edit and those that it is nested in.
        is_plain: whether it acts at every position and through the network.
        is_on: whether it still acts.
    """

    parts: Mapping[Any, Any]
    is_plain: bool
    is_on: bool = True


@contextmanager
def exclusive_use(model: LoadedModel) -> Iterator[None]:
    """Keep other threads away while a block runs, because a hook acts on the model in every thread.

    Raises:
        ValueError: another thread is using the model.
    """
    if not model._state.lock.acquire(blocking=False):
        raise ValueError(
            f"another thread is using {model.name!r}: only one may at a time; share the model with a lock, or load it "
            "once for each thread"
        )
    try:
        yield
    finally:
        model._state.lock.release()


@contextmanager
def as_scored(model: LoadedModel) -> Iterator[None]:
    """While the block runs, the model computes as it is scored, whatever mode the caller is in: without dropout, and in
    its own dtype. The caller's modes are restored afterwards."""
    parts = (model.bridge, model.bridge.original_model)
    modules = derived(model, "modules", lambda: {module for part in parts for module in part.modules()})
    training = [module for module in modules if module.training]
    own_dtype = nullcontext() if model._state.screening else in_own_numbers(model.device)
    try:
        for module in training:
            module.training = False
        with own_dtype:
            yield
    finally:
        for module in training:
            module.training = True


def check_attached(model: LoadedModel) -> None:
    """Refuse to go on if a hook of an edit that is on was removed.

    Raises:
        ValueError: one was.
    """
    if any(all(handle is not other for other in point.fwd_hooks) for point, handle in model._state.attached):
        raise ValueError(
            "the hooks of an edit were removed while it was on, as bridge.reset_hooks() does, so it no longer acts: "
            "results since then are those of the model as trained; call reset_hooks outside of `with edit.on(model)`"
        )


@contextmanager
def running(
    model: LoadedModel, rows: Sequence[Sequence[int]], starts: Sequence[int], *, generating: bool = False
) -> Iterator[None]:
    """Note which token ids a forward pass runs on, and where each row starts, and keep other threads away.

    Args:
        generating: one pass over the prompts, and then one for each new token.

    Raises:
        ValueError: another thread is using the model, or a hook of an edit was removed.
    """
    check_attached(model)
    with exclusive_use(model), as_scored(model):
        before = model._state.running, model._state.prompted
        model._state.running, model._state.prompted = (rows, starts), set() if generating else None
        try:
            yield
        finally:
            model._state.running, model._state.prompted = before


@contextmanager
def entered(model: LoadedModel, parts: Mapping[Any, Any], is_plain: bool) -> Iterator[Entered]:
    """Note an edit as on while a block runs.

    Raises:
        ValueError: it is left while an edit that was entered after it is still on. All of these are then switched off.
    """
    stack = model._state.entered
    entry = Entered(parts, is_plain)
    stack.append(entry)
    in_order = True
    try:
        yield entry
    finally:
        if entry.is_on:
            in_order = stack[-1] is entry
            at = stack.index(entry)
            for later in stack[at:]:
                later.is_on = False
            del stack[at:]
    if not in_order:
        raise ValueError(
            "an edit was left before one that was entered after it: both are off now; leave the last one first, as "
            "nested `with` blocks do"
        )


def active_edits(model: LoadedModel) -> dict[Any, Any]:
    """Site -> what is done there right now, by all edits that are on."""
    stack = model._state.entered
    return dict(stack[-1].parts) if stack else {}


def all_are_plain(model: LoadedModel) -> bool:
    """Whether every edit that is on acts at every position and through the network."""
    return all(entry.is_plain for entry in model._state.entered)


def refuse_inside_edit(model: LoadedModel, what: str) -> None:
    """Refuse a call that needs the model as trained, if an edit is on.

    Raises:
        ValueError: an edit is on.
    """
    if model._state.entered:
        raise ValueError(
            f"an edit is on: {what} needs the model as trained; leave the block of `with edit.on(model)`; to use "
            "the edit, give it as an argument"
        )
