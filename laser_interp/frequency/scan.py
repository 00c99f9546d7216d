"""Counting by scanning: one pass over the documents counts all names."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.choices import LONGEST, Executor, check_choice, whole_number
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.frequency.matching import Matching
from laser_interp.frequency.mentions import Mentions
from laser_interp.frequency.names import Names, Tally
from laser_interp.frequency.normaliser import SEPARATOR
from laser_interp.frequency.reader import DocumentUnit, OnError, Reader, Reading, warn_of_skipped
from laser_interp.frequency.shards import Shard, corpus_files, fingerprint
from laser_interp.frequency.source import CountSource
from laser_interp.parallel.processes import in_processes
from laser_interp.parallel.ray_cluster import each
from laser_interp.progress import progress_bar
from laser_interp.storage.run_folder import open_run
from laser_interp.storage.tables import read_table, write_table

Part = tuple[pd.DataFrame, list[tuple[str, str]]]  # counts that are not zero, and what was skipped, as (where, why)
_SMALL = 16 << 20  # bytes that are counted before other processes would have started


def count_shard(mentions: Mentions, shard: Shard, tick: Callable[[int], Any] = lambda _: None, *, how: Reading) -> Part:
    """Count one shard."""
    mentions.tally = Tally(mentions.names)
    reader = Reader(shard, how, tick)
    for n_docs, documents in reader.blocks():
        if how.until is not None and (left := how.until - mentions.tally.n_docs) <= n_docs:
            mentions.add(left, SEPARATOR.join(documents.split(SEPARATOR, left)[:left]))
            break
        mentions.add(n_docs, documents)
    return mentions.tally.to_frame(), reader.problems


@dataclass(frozen=True)
class Corpus(CountSource):
    """Files of documents as a source of counts: one pass over them counts all names.

    Attributes:
        paths: a file (.txt, .jsonl, .json, also .gz, .zst, .bz2 or .xz of these, .parquet, .arrow), a pattern as in
            `"data/*.jsonl.zst"`, a folder of such files or of a saved `datasets` dataset, "organism" or its checkpoint
            folder, or several of these, counted together.
        text_column: of jsonl, json, parquet and arrow files.
        document: what is one document in a .txt file: a "line", a "paragraph" (up to a blank line), or the "file".
        errors: "raise" at what cannot be read, or "skip" it: it is counted in `n_skipped`, named in a warning, and
            listed in `frame.attrs["skipped"]` as [where, why].
        longest: the most bytes that a line, or a document of several lines, may have; longer ones cannot be read. It
            limits memory, because a small compressed file can hold a very long line.
        executor: "local" (this machine's processes) or "ray".
        workers: processes, at most one per part; None: one per core, or only one for a corpus below 16 MiB.
        until: count only so many documents, the first in the order of the files, on one process. Where that is the
            order of training, these are the counts of what the model had read by then. Of an organism, documents come
            in the order in which its training read them, again and again.

    Raises:
        ValueError: another executor, or no worker or document.
    """

    paths: str | Path | Iterable[str | Path]
    text_column: str = "text"
    document: DocumentUnit = "line"
    errors: OnError = "raise"
    longest: int = LONGEST
    executor: Executor = "local"
    workers: int | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.paths, str | Path):
            object.__setattr__(self, "paths", tuple(self.paths))  # a generator could be counted once
        check_choice("executor", self.executor, Executor)
        if self.workers is not None and whole_number("workers", self.workers) < 1:
            raise ValueError(f"workers is {self.workers}: at least one is needed")
        if self.until is not None and whole_number("until", self.until) < 1:
            raise ValueError(f"until is {self.until}: expected 1 document or more")
        if self.until is not None and self.executor == "ray":
            raise ValueError("until takes the first documents one after the other: leave executor='ray' out")

    def count(
        self,
        facts: AnyFacts,
        *,
        window: int | None = None,
        matching: Matching | None = None,
        out: str | Path | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """See `laser_interp.count`.

        Names are matched as whole words of the normal form (`laser_interp.frequency.normaliser`). What of a corpus is
        not counted, or is there twice, is said in a warning and in the table's provenance (`notes`). Every run over the
        same files gives the same table, whatever the number of processes.

        Args:
            out: a .parquet file for the table. Finished parts are kept beside it (`OUT.parts`), so that a run that
                was stopped continues from there.

        Returns:
            The columns of `laser_interp.count`, `n_skipped`, and with a window `n_window, window`.

        Raises:
            ValueError: also something unreadable (`UnreadableError`), or a corpus without a document.
        """
        facts = facts_of(facts)
        matching = Matching() if matching is None else matching
        how = Reading(self.text_column, self.document, self.errors, self.longest, self.until)
        names = Names(facts, window, matching)
        shards, notes = corpus_files(self.paths, self.document)
        notes = [*notes, *names.notes(facts)]
        parts = dict(enumerate(shards))
        identity = self._identity(facts, shards, window, matching)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        if out is not None and (there := earlier_counts(out, identity, self.errors, self.longest)) is not None:
            return there
        folder = None if out is None else Path(f"{out}.parts")
        tally, skipped = Tally(names), {}
        with open_run(folder, identity | {"n_parts": len(parts)}) as run:
            for number in parts if self.until is None else ():
                if (kept := run.read_part(f"{number:06d}", "count_part")) is None:
                    continue
                about = kept.attrs["provenance"]
                if not about["skipped"] or (self.errors == "skip" and about["longest"] == self.longest):
                    tally.add_frame(kept)
                    skipped[number] = about["skipped"]
            waiting = {number: shard for number, shard in parts.items() if number not in skipped}
            done = sum(shard.size for number, shard in parts.items() if number not in waiting)
            for number, part in self._count_parts(waiting, names, how, progress, done):
                about = {"skipped": part[1], "shard": parts[number].label, "longest": self.longest}
                if out is not None:
                    run.write_part(f"{number:06d}", part[0], "count_part", **about)
                tally.add_frame(part[0])
                skipped[number] = part[1]
            problems = [problem for number in sorted(skipped) for problem in skipped[number]]
            frame = _frame(names, facts, tally, problems, identity | {"notes": notes})
            if out is not None:
                about = {"notes": notes, "skipped": problems, "longest": self.longest}
                write_table(frame, out, "counts", identity | about)
        if folder is not None:
            shutil.rmtree(folder)
        return frame

    def identity(self, facts: AnyFacts, window: int | None = None, matching: Matching | None = None) -> dict[str, Any]:
        """What identifies counts of this corpus: where it is equal, the counts are equal."""
        shards, _ = corpus_files(self.paths, self.document)
        return self._identity(facts_of(facts), shards, window, Matching() if matching is None else matching)

    def _identity(
        self, facts: FactSet, shards: Iterable[Shard], window: int | None, matching: Matching
    ) -> dict[str, Any]:
        corpora = [self.paths] if isinstance(self.paths, str | Path) else self.paths
        return {
            "facts": facts.name,
            "facts_sha256": facts.sha256,
            "corpus": [Path(source).name for source in corpora],
            "corpus_fingerprint": fingerprint(shards),
            "normaliser": str(matching),
            "text_column": self.text_column,
            "document": self.document,
            "window": window,
            "until": self.until,
        }  # without `errors` and `longest`: a part that was read without problems is the same under all of them

    def _count_parts(
        self, parts: dict[int, Shard], names: Names, how: Reading, progress: bool, done: int
    ) -> Iterator[tuple[int, Part]]:
        """Numbers and counts of shards, as they are done; `done` bytes were before."""
        numbers, waiting = list(parts), list(parts.values())
        n_bytes = sum(shard.size for shard in waiting)
        amounts = {"total": done + n_bytes, "initial": done, "unit": "B", "unit_scale": True}
        with progress_bar(desc="counting", disable=not progress, **amounts) as bar:
            run = partial(count_shard, how=how)
            n = min(self.workers or (1 if n_bytes < _SMALL else os.cpu_count()) or 1, len(waiting))
            if self.executor == "ray":
                counted = each(lambda names, shard: run(Mentions(names), shard), (names,), waiting, self.workers)
            elif n > 1 and self.until is None:
                counted = in_processes(Mentions, (names,), run, waiting, n, bar.update)
            else:
                counted = _here(waiting, names, how, bar.update)
            for i, part in counted:
                if self.executor == "ray":
                    bar.update(waiting[i].size)
                yield numbers[i], part


def earlier_counts(
    out: str | Path, identity: dict[str, Any], errors: OnError = "raise", longest: int = LONGEST
) -> pd.DataFrame | None:
    """Counts that were written before, if they are those that are asked for; None where there is no file.

    Raises:
        ValueError: a name that does not end in .parquet, other counts, or some documents were skipped and `errors` does
            not allow that.
    """
    path = Path(out)
    if path.suffix != ".parquet":
        raise ValueError(f"the counts cannot be written to {path.name!r}: expected a name that ends in .parquet")
    if not path.is_file():
        return None
    frame = read_table(path, "counts")
    before = {k: frame.attrs["provenance"].get(k) for k in identity}
    if before != identity:
        changed = "; ".join(f"{k}: {before[k]!r} there, {v!r} now" for k, v in identity.items() if before[k] != v)
        raise ValueError(f"{path} holds other counts ({changed}): choose another file or remove it")
    skipped = frame.attrs["skipped"] = frame.attrs["provenance"].get("skipped", [])
    if skipped and errors == "raise":
        raise ValueError(
            f"{path} holds counts without {len(skipped)} documents that could not be read, because --skip "
            "(errors='skip') was given: give it again, or choose another file"
        )
    if skipped and (then := frame.attrs["provenance"].get("longest", longest)) != longest:
        raise ValueError(
            f"{path} holds counts without {len(skipped)} documents that could not be read when longest was {then}, and "
            f"it is {longest} now: choose another file or remove it"
        )
    return frame


def _frame(
    names: Names, facts: FactSet, tally: Tally, problems: list[tuple[str, str]], identity: dict[str, Any]
) -> pd.DataFrame:
    """The table of counts, with a warning of what could not be counted."""
    if (until := identity["until"]) is not None and tally.n_docs < until:
        warnings.warn(f"until is {until}, and there are only {tally.n_docs} documents: all are counted", stacklevel=3)
    if tally.n_docs == 0:
        why = f"; {len(problems)} were skipped, the first: {': '.join(problems[0])}" if problems else ""
        raise ValueError(f"no document could be read in {', '.join(identity['corpus'])}{why}")
    warn_of_skipped(problems)
    frame = names.frame(facts, tally, len(problems), " ".join(identity["corpus"]))
    frame.attrs |= {"provenance": identity, "skipped": [list(problem) for problem in problems]}
    return frame


def _here(parts: list[Shard], names: Names, how: Reading, tick: Callable[[int], Any]) -> Iterator[tuple[int, Part]]:
    mentions = Mentions(names)
    for i, shard in enumerate(parts):
        counted = count_shard(mentions, shard, tick, how=how)
        if how.until is not None:
            how = replace(how, until=how.until - mentions.tally.n_docs)
        yield i, counted
        if how.until == 0:
            break
