"""Work in several processes of this machine. Each makes something large once, such as a model, and keeps it."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np


class _Worker:
    """What one process keeps: its state, and where it tells how far it is."""

    state: Any
    run: Callable[..., Any]
    progress: SharedMemory

    @classmethod
    def start(cls, make_state: Callable[..., Any], run: Callable[..., Any], progress: str, *arguments: Any) -> None:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
        cls.state, cls.run, cls.progress = make_state(*arguments), staticmethod(run), SharedMemory(progress)

    @classmethod
    def work(cls, number: int, item: Any) -> Any:
        done = np.ndarray(number + 1, np.int64, cls.progress.buf)

        def tick(n: int) -> None:
            done[number] += n

        return cls.run(cls.state, item, tick)


def _end_with_parent(parent: int) -> None:
    """End this process soon after the one that started it, which may have been killed without a word."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def in_processes(
    make_state: Callable[..., Any],
    arguments: tuple[Any, ...],
    run: Callable[..., Any],
    items: Sequence[Any],
    workers: int,
    tick: Callable[[int], Any],
) -> Iterator[tuple[int, Any]]:
    """(number of an item, `run(state, item, tick)`) for each item, in the order in which they are done.

    Args:
        make_state: called once in each process with the arguments.
        tick: called in this process, with the sum of the processes' own ticks since the last call.
    """
    from loky import ProcessPoolExecutor  # unlike Python's own, it needs no guarded main module

    memory = SharedMemory(create=True, size=8 * len(items))
    done = np.ndarray(len(items), np.int64, memory.buf)
    done[:] = 0
    before = 0
    pool = ProcessPoolExecutor(workers, initializer=_Worker.start, initargs=(make_state, run, memory.name, *arguments))
    try:
        running: dict[Any, int] = {pool.submit(_Worker.work, i, item): i for i, item in enumerate(items)}
        while running:
            ready, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            now = int(done.sum())
            tick(now - before)
            before = now
            for future in ready:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, kill_workers=True)
        del done
        memory.close()
        memory.unlink()
