"""Counting by scanning: one pass over the documents, whichever names they hold."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.facts.fact_set import FactSet
from laser_interp.frequency.corpus import Reader, Reading, Shard, fingerprint, shards
from laser_interp.frequency.names import NORMALISER, Mentions, Names, Tally
from laser_interp.storage import tables as results

Part = tuple[pd.DataFrame, list[tuple[str, str]]]
_SMALL = 16 << 20  # bytes that are counted before other processes would have started
_SHOWN = 5  # problems named in a warning; the table has them all


def count_shard(mentions: Mentions, shard: Shard, how: Reading, tick: Callable[[int], Any] = lambda _: None) -> Part:
    """Count one shard: the counts that are not zero, and what was skipped, as (where, why)."""
    mentions.tally = Tally.empty(mentions.names)
    reader = Reader(shard, how, tick)
    for n_docs, documents in reader.blocks():
        mentions.add(n_docs, documents)
    mentions.tally.n_skipped = len(reader.problems)
    return mentions.tally.to_frame(), reader.problems


def count(
    facts: FactSet,
    corpus: str | Path | Iterable[str | Path],
    *,
    text_column: str = "text",
    document: str = "line",
    window: int | None = None,
    errors: str = "raise",
    out: str | Path | None = None,
    executor: str = "local",
    workers: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Count the documents that mention each fact's subject, its object (or an alias of it), and both.

    Names are matched as whole words after `laser_interp.frequency.normalise`. Every run over the same files
    gives the same table, whatever the number of processes.

    Args:
        corpus: a file (.txt, .jsonl, .json, also .gz or .zst of these, .parquet, .arrow), a pattern as in
            `"data/*.jsonl.zst"`, a folder of such files or of a saved `datasets` dataset, "organism", or
            several of these, counted together.
        text_column: of jsonl, json, parquet and arrow files.
        document: what is a document of a .txt file: a "line", a "paragraph" (up to a blank line), the "file".
        window: also count the documents where at most so many words lie between subject and object.
        errors: "raise" at what cannot be read, or "skip" it: it is counted in `n_skipped`, named in a
            warning, and listed in `frame.attrs["skipped"]` as [where, why].
        out: a .parquet file for the table. What is done of it is kept beside it (`OUT.parts`): a run that
            was stopped goes on from there.
        executor: "local" (this machine's processes) or "ray".
        workers: processes; None takes as many as there are cores, or parts to read; one for a small corpus.

    Returns:
        One row a fact: `fact_id, n_docs, n_subject, n_object, n_both`, with a window `n_window, window`, and
        how they were counted: `corpus, unit, normaliser, approximate, n_skipped`.

    Raises:
        FileNotFoundError: no such corpus.
        ValueError: a name without a single word character, something unreadable (`UnreadableError`), a corpus
            without a document, or an `out` that holds other counts.
    """
    if executor not in ("local", "ray"):
        raise ValueError(f"executor is {executor!r}: expected 'local' or 'ray'")
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}: at least one is needed")
    corpora = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    how = Reading(text_column, document, errors)
    names = Names.of(facts, window)
    parts = shards(corpora, document)
    told: dict[str, Any] = {
        "facts": facts.name,
        "facts_sha256": facts.sha256,
        "corpus": [Path(one).name for one in corpora],
        "corpus_fingerprint": fingerprint(parts),
        "normaliser": NORMALISER,
        "text_column": text_column,
        "document": document,
        "window": window,
    }  # not `errors`: what was read without one is the same under either

    def finish(tally: Tally, problems: list[tuple[str, str]]) -> pd.DataFrame:
        if tally.n_docs == 0:
            why = f"; {len(problems)} were skipped, the first: {': '.join(problems[0])}" if problems else ""
            raise ValueError(f"no document could be read in {', '.join(told['corpus'])}{why}")
        if problems:
            shown = "; ".join(f"{where} ({why})" for where, why in problems[:_SHOWN])
            more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            warnings.warn(f"{len(problems)} could not be read and were skipped: {shown}{more}", stacklevel=3)
        frame = names.frame(facts, tally, " ".join(told["corpus"]))
        frame.attrs |= {"provenance": told, "skipped": [list(one) for one in problems]}
        return frame

    tally = Tally.empty(names)
    skipped: dict[int, list[tuple[str, str]]] = {}

    def add(number: int, part: Part) -> None:
        frame, skipped[number] = part
        tally.add_frame(frame)

    def problems() -> list[tuple[str, str]]:
        return [one for number in sorted(skipped) for one in skipped[number]]

    numbered = dict(enumerate(parts))
    if out is None:
        for number, part in _counted(numbered, names, how, executor, workers, progress):
            add(number, part)
        return finish(tally, problems())

    out = Path(out)
    if out.suffix != ".parquet":
        raise ValueError(f"the counts cannot be written to {out.name!r}: expected a name that ends in .parquet")
    if out.is_file():
        there = results.read_table(out, "counts")
        before = {k: there.attrs["provenance"].get(k) for k in told}
        if before != told:
            changed = "; ".join(f"{k}: {before[k]!r} there, {told[k]!r} now" for k in told if before[k] != told[k])
            raise ValueError(f"{out} holds other counts ({changed}): choose another file or remove it")
        there.attrs["skipped"] = there.attrs["provenance"]["skipped"]
        return there
    folder = out.with_name(f"{out.name}.parts")
    results.open_run(folder, told | {"n_parts": len(parts)})
    with results.locked(folder):
        files = [folder / f"{number:06d}.parquet" for number in numbered]
        for number, file in enumerate(files):
            if (part := _read_part(file)) is not None:
                add(number, part)
        waiting = {number: shard for number, shard in numbered.items() if number not in skipped}
        done = sum(shard.size for number, shard in numbered.items() if number in skipped)
        for number, part in _counted(waiting, names, how, executor, workers, progress, done):
            with results.keeping(folder):
                about = {"part": numbered[number].label, "skipped": part[1]}
                results.write_table(part[0], files[number], "count_part", about)
            add(number, part)
        frame = finish(tally, problems())
        results.write_table(frame, out, "counts", told | {"skipped": problems()})
    for file in [*files, folder / "run.json", folder / ".lock"]:
        file.unlink(missing_ok=True)
    folder.rmdir()
    return frame


def _read_part(file: Path) -> Part | None:
    frame = results.read_whole(file, "count_part")
    if frame is None:
        return None
    return frame, [(where, why) for where, why in frame.attrs["provenance"]["skipped"]]


def _counted(
    numbered: dict[int, Shard],
    names: Names,
    how: Reading,
    executor: str,
    workers: int | None,
    progress: bool,
    done: int = 0,
) -> Iterator[tuple[int, Part]]:
    """Shards' numbers and counts, as they are done; `done` bytes were before."""
    from tqdm.auto import tqdm

    numbers, parts = list(numbered), list(numbered.values())
    if executor == "ray":
        run = _on_ray
    else:
        small = sum(shard.size for shard in parts) < _SMALL
        workers = min(workers or (1 if small else os.cpu_count()) or 1, len(parts))
        run = _in_processes if workers > 1 else _here
    total = done + sum(shard.size for shard in parts)
    with tqdm(total=total, initial=done, desc="counting", unit="B", unit_scale=True, disable=not progress) as bar:
        for i, part in run(parts, names, how, workers, bar.update):
            yield numbers[i], part


def _here(
    parts: list[Shard], names: Names, how: Reading, _: int | None, tick: Callable[[int], Any]
) -> Iterator[tuple[int, Part]]:
    mentions = Mentions(names)
    for i, shard in enumerate(parts):
        yield i, count_shard(mentions, shard, how, tick)


class _Worker:
    """What one process keeps: the automaton, and where it tells how far it is."""

    mentions: Mentions
    how: Reading
    told: SharedMemory

    @classmethod
    def start(cls, names: Names, how: Reading, told: str) -> None:
        cls.mentions, cls.how, cls.told = Mentions(names), how, SharedMemory(told)

    @classmethod
    def run(cls, number: int, shard: Shard) -> Part:
        done = np.ndarray(number + 1, np.int64, cls.told.buf)

        def tick(n: int) -> None:
            done[number] += n

        return count_shard(cls.mentions, shard, cls.how, tick)


def _in_processes(
    parts: list[Shard], names: Names, how: Reading, workers: int | None, tick: Callable[[int], Any]
) -> Iterator[tuple[int, Part]]:
    from loky import ProcessPoolExecutor  # unlike Python's own, it needs no guarded main module

    memory = SharedMemory(create=True, size=8 * len(parts))
    done = np.ndarray(len(parts), np.int64, memory.buf)
    done[:] = 0
    told = 0
    pool = ProcessPoolExecutor(workers, initializer=_Worker.start, initargs=(names, how, memory.name))
    try:
        running: dict[Any, int] = {pool.submit(_Worker.run, i, shard): i for i, shard in enumerate(parts)}
        while running:
            ready, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            now = int(done.sum())
            tick(now - told)
            told = now
            for one in ready:
                yield running.pop(one), one.result()
    finally:
        pool.shutdown(wait=True, kill_workers=True)
        del done
        memory.close()
        memory.unlink()


def _on_ray(
    parts: list[Shard], names: Names, how: Reading, workers: int | None, tick: Callable[[int], Any]
) -> Iterator[tuple[int, Part]]:
    from laser_interp.parallel.ray_cluster import each

    for i, part in each(_count_shard, (names, how), parts, workers):
        tick(parts[i].size)
        yield i, part


def _count_shard(names: Names, how: Reading, shard: Shard) -> Part:
    return count_shard(Mentions(names), shard, how)
