"""Work on a Ray cluster, a sweep's units and a corpus's shards; see docs/cluster.md for a Slurm or cloud cluster.

Of a sweep, each actor loads the model once and scores units one after the other, of one layer as long as there are any,
so that its factors and residual streams serve again. The units of an actor that is lost are done by others;
the tables are written by the driver, which can itself be killed and resumed like a local sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pandas as pd

from laser_interp.facts.fact_set import FactSet
from laser_interp.models.model import Model, load_model
from laser_interp.selection.cells import Unit, Worker

CPUS_PER_WORKER = 2
TRIES = 3  # a unit that takes its actor with it this often is given up


class _Actor:
    """In a process of its own: the model, and what scores units."""

    def __init__(
        self, source: dict[str, Any], weights_sha256: str, shards: Sequence[FactSet], options: dict[str, Any], cpus: int
    ) -> None:
        import torch

        torch.set_num_threads(cpus)
        model = load_model(**source)
        if model.weights_sha256 != weights_sha256:
            raise ValueError(
                f"{source['source']!r} holds other weights on this worker than where the sweep was started"
            )
        self._worker = Worker(model, shards, options)

    def run(self, unit: Unit) -> pd.DataFrame:
        return self._worker.run(unit)


def execute(
    units: Sequence[Unit], model: Model, shards: Sequence[FactSet], options: dict[str, Any], workers: int | None
) -> Iterator[tuple[Unit, pd.DataFrame]]:
    """The units' scores, in the order in which they are done.

    Connects to the cluster that `ray.init()` finds (`RAY_ADDRESS`, or one on this machine, started here and
    stopped again).

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: a model that other processes cannot load.
        RuntimeError: a unit that lost its actor several times.
    """
    if model.source is None:
        raise ValueError(
            f"{model.name!r} was made from an object in memory, which no other process can load: save it "
            "(model.save_checkpoint) and load_model the folder, on a disk that all machines see"
        )
    if units:
        with _connected() as ray:
            yield from _spread(ray, list(units), model, shards, options, workers)


@contextmanager
def _connected() -> Iterator[Any]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("executor='ray' needs Ray: pip install 'laser-interp[ray]'") from error
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def each(
    function: Callable[..., Any], shared: tuple[Any, ...], items: Sequence[Any], workers: int | None
) -> Iterator[tuple[int, Any]]:
    """`function(*shared, item)` of each item as a Ray task of one CPU, with the item's number, as they are done.

    A task whose machine is lost is done again elsewhere.

    Args:
        workers: tasks at a time; None: as many as the cluster has CPUs.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        Exception: what `function` raised.
    """
    if not items:
        return
    with _connected() as ray:
        task = ray.remote(num_cpus=1, max_retries=TRIES)(function)
        common = [ray.put(one) for one in shared]
        n = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = iter(enumerate(items))
        running = {task.remote(*common, item): i for i, item in islice(waiting, n)}
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            i = running.pop(ready)
            try:
                found = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause or error) from None
            running |= {task.remote(*common, item): j for j, item in islice(waiting, 1)}
            yield i, found


def _spread(
    ray: Any,
    waiting: list[Unit],
    model: Model,
    shards: Sequence[FactSet],
    options: dict[str, Any],
    workers: int | None,
) -> Iterator[tuple[Unit, pd.DataFrame]]:
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), max(int(resources.get("CPU", 1)), 1)
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}: at least one is needed")
    n = min(workers or gpus or max(cpus // CPUS_PER_WORKER, 1), len(waiting))
    share = max(min(cpus // n, cpus if gpus else CPUS_PER_WORKER), 1)
    needs = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": min(share, cpus)}
    source = dict(model.source or {}) | {"device": "auto" if gpus else "cpu"}
    actor_class = ray.remote(_Actor).options(runtime_env={"env_vars": {"OMP_NUM_THREADS": str(share)}}, **needs)
    facts = ray.put(list(shards))

    def start() -> Any:
        return actor_class.remote(source, model.weights_sha256, facts, options, share)

    layer_of: dict[Any, int | None] = {}
    running: dict[Any, tuple[Any, Unit]] = {}
    lost: Counter[str] = Counter()

    def give(actor: Any) -> None:
        if not waiting:
            return
        unit = _next(waiting, layer_of.get(actor), [layer for layer in layer_of.values() if layer is not None])
        waiting.remove(unit)
        layer_of[actor] = unit.layer
        running[actor.run.remote(unit)] = (actor, unit)

    for _ in range(n):
        give(start())
    while running:
        (ready,), _ = ray.wait(list(running), num_returns=1)
        actor, unit = running.pop(ready)
        try:
            part = ray.get(ready)
        except ray.exceptions.ActorDiedError as error:
            if "creation task" in str(error):  # loading the model failed, and would again
                raise RuntimeError(f"a worker could not start: {error}") from error
            lost[unit.name] += 1
            if lost[unit.name] >= TRIES:
                raise RuntimeError(f"the workers of {unit.name} were lost {TRIES} times; the last: {error}") from error
            waiting.insert(0, unit)
            layer_of.pop(actor, None)
            give(start())
            continue
        except ray.exceptions.ActorUnavailableError:
            waiting.insert(0, unit)
            give(actor)
            continue
        yield unit, part
        give(actor)


def _next(waiting: Sequence[Unit], layer: int | None, taken: Sequence[int]) -> Unit:
    """The next unit of an actor's layer; where there is none, the first of the layer with most units left per actor."""
    mine = [unit for unit in waiting if unit.layer == layer]
    if mine:
        return mine[0]
    left, actors = Counter(unit.layer for unit in waiting), Counter(taken)
    best = max(left, key=lambda one: (left[one] / (1 + actors[one]), -one))
    return next(unit for unit in waiting if unit.layer == best)
