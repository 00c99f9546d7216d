"""Work on a Ray cluster; docs/cluster.md says how to start one on Slurm or in a cloud.

Two forms: `each` runs a function on many items, `Actors` gives items to actors that keep something large in memory,
such as a model. Work that is lost with a machine is done again elsewhere. Results are written by the driver, which can
itself be killed and resumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any, TypeVar

from laser_interp.extras import require

T = TypeVar("T")

CPUS_PER_WORKER = 2
TRIES = 3  # an item whose actor was lost this many times is given up


@contextmanager
def connected() -> Iterator[Any]:
    """Ray, connected to the cluster that `RAY_ADDRESS` names, or to one on this machine, started and stopped here.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    require("ray", "ray", what="executor='ray'")
    import ray

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
    """(number of an item, `function(*shared, item)`) for each item, as Ray tasks of one CPU, in the order of finishing.

    A task whose machine is lost is done again elsewhere.

    Args:
        workers: tasks at a time; None: as many as the cluster has CPUs.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        Exception: what `function` raised.
    """
    if not items:
        return
    with connected() as ray:
        task = ray.remote(num_cpus=1, max_retries=TRIES)(function)
        common = [ray.put(value) for value in shared]
        n = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = iter(enumerate(items))
        running = {task.remote(*common, item): i for i, item in islice(waiting, n)}
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            i = running.pop(ready)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause or error) from None
            running |= {task.remote(*common, item): j for j, item in islice(waiting, 1)}
            yield i, result


class Actors:
    """Actors that keep something large in memory, such as a model, from the first item to the end of the context.

    Each actor goes on with items of the same affinity, as long as there are any. If an actor is lost, others do its
    items. An actor for which the cluster has no room is given none.

    Args:
        actor: a class; it is made with the arguments, the number of CPUs it may use, and whether it has a GPU.
        workers: number of actors; None: one for each GPU, or without GPUs one for each `CPUS_PER_WORKER` CPUs.

    Example:
        >>> with Actors(Squarer, (), workers=2) as actors:  # doctest: +SKIP
        ...     dict(actors.run([1, 2, 3], affinity=lambda i: i, name=str))
        {1: 1, 2: 4, 3: 9}
    """

    def __init__(self, actor: type, arguments: tuple[Any, ...], workers: int | None) -> None:
        self.actor, self.arguments, self.workers = actor, arguments, workers
        self._stack = ExitStack()
        self._ray: Any = None  # connected when there is something to do
        self._start: Callable[[], Any]
        self._n = 0
        # Actors for which there may be no room yet, by what tells that they started; and all others
        self._starting: dict[Any, Any] = {}
        self._affinity_of: dict[Any, Hashable | None] = {}

    def __enter__(self) -> Actors:
        return self

    def __exit__(self, *_: object) -> None:
        self._affinity_of.clear()  # Ray ends an actor that nothing refers to
        self._starting.clear()
        self._stack.close()

    def n_workers(self) -> int:
        """The number of actors that run at a time; it depends on the cluster."""
        self._connect()
        return self._n

    def run(
        self, items: Sequence[T], *, affinity: Callable[[T], Hashable], name: Callable[[T], str]
    ) -> Iterator[tuple[T, Any]]:
        """`actor.run(item)` of each item, in the order in which they are done.

        Raises:
            ModuleNotFoundError: Ray is not installed.
            RuntimeError: an actor that cannot start, or an item that lost its actor several times.
        """
        waiting = list(items)
        if not waiting:
            return
        self._connect()
        ray = self._ray
        running: dict[Any, tuple[Any, T]] = {}
        lost: Counter[str] = Counter()
        while waiting or running:
            while len(self._affinity_of) + len(self._starting) < min(self._n, len(waiting) + len(running)):
                worker = self._start()
                self._starting[worker.__ray_ready__.remote()] = worker
            busy = {worker for worker, _ in running.values()}
            for worker in [worker for worker in self._affinity_of if worker not in busy][: len(waiting)]:
                taken = [self._affinity_of[other] for other, _ in running.values()]
                item = _next(waiting, affinity, self._affinity_of[worker], taken)
                waiting.remove(item)
                self._affinity_of[worker] = affinity(item)
                running[worker.run.remote(item)] = (worker, item)
            (ready,), _ = ray.wait([*running, *self._starting], num_returns=1)
            worker, item = running.pop(ready) if ready in running else (self._starting.pop(ready), None)
            of = "" if item is None else f" of {name(item)}"
            try:
                result = ray.get(ready)
            except (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError) as error:
                if "creation task" in str(error):  # loading the model failed, and would again
                    raise RuntimeError(f"a worker could not start: {error}") from error
                is_lost = isinstance(error, ray.exceptions.ActorDiedError)
                lost[of] += 1
                if lost[of] >= TRIES:
                    how = "lost" if is_lost else "away"
                    raise RuntimeError(f"the workers{of} were {how} {TRIES} times: {error}") from error
                if is_lost:
                    self._affinity_of.pop(worker, None)
                waiting[:0] = [] if item is None else [item]
                continue
            lost[of] = 0
            self._affinity_of.setdefault(worker, None)
            if item is not None:
                yield item, result

    def _connect(self) -> None:
        if self._ray is not None:
            return
        self._ray = ray = self._stack.enter_context(connected())
        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), max(int(resources.get("CPU", 1)), 1)
        self._n = n = self.workers or gpus or max(cpus // CPUS_PER_WORKER, 1)
        share = max(min(cpus // n, cpus if gpus else CPUS_PER_WORKER), 1)
        needs = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": share}
        environment = {"env_vars": {"OMP_NUM_THREADS": str(share)}}
        remote = ray.remote(self.actor).options(runtime_env=environment, **needs)
        stored = [ray.put(value) for value in self.arguments]
        self._start = lambda: remote.remote(*stored, share, bool(gpus))


def _next(
    waiting: Sequence[T], affinity: Callable[[T], Hashable], mine: Hashable | None, taken: Sequence[Hashable]
) -> T:
    """The next item of a worker's affinity; else the first of the affinity with the most items left per worker."""
    for item in waiting:
        if mine is not None and affinity(item) == mine:
            return item
    left, workers = Counter(map(affinity, waiting)), Counter(taken)
    order = list(left)
    best = max(left, key=lambda key: (left[key] / (1 + workers[key]), -order.index(key)))
    return next(item for item in waiting if affinity(item) == best)
