"""Counting with an index: it is built once, can be asked often, and gives the same counts as a scan.

The index holds the documents in the same normal form as a scan, in SQLite's FTS5, where a name is a phrase of whole
words. For counts within a window, the index finds the documents, and the scan's own rule decides on each of them.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.choices import LONGEST
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.frequency.matching import Matching
from laser_interp.frequency.mentions import Mentions
from laser_interp.frequency.names import Names, Tally
from laser_interp.frequency.normaliser import NORMALISER, joined, normalise, normalise_joined
from laser_interp.frequency.reader import DocumentUnit, OnError, Reader, Reading, warn_of_skipped
from laser_interp.frequency.shards import corpus_files, fingerprint
from laser_interp.frequency.source import CountSource
from laser_interp.progress import progress_bar
from laser_interp.storage.atomic import new_folder, plain, write_json
from laser_interp.storage.checksums import check_folder, write_checksums
from laser_interp.storage.provenance import code_version
from laser_interp.storage.run_folder import read_json

_STORE = "sqlite"
_FILE = Path(_STORE) / "documents.sqlite"
# This tokenizer makes words of ASCII letters and digits, "_", and everything that is not ASCII. In the normal form,
# words consist of just these.
_TABLE = "CREATE VIRTUAL TABLE documents USING fts5(text, tokenize=\"ascii tokenchars '_'\")"


def build_index(
    corpus: str | Path | Iterable[str | Path],
    folder: str | Path,
    *,
    text_column: str = "text",
    document: DocumentUnit = "line",
    errors: OnError = "raise",
    longest: int = LONGEST,
    fold_accents: bool = True,
    progress: bool = True,
) -> Index:
    """Index a corpus, once for all fact sets; `Index.count` then answers as `laser_interp.count` does.

    Args:
        corpus, text_column, document, errors, longest: see `laser_interp.count`.
        folder: where the index is kept; a new or an empty folder.
        fold_accents: see `laser_interp.frequency.matching`; all counts by this index do the same.

    Raises:
        FileExistsError: the folder holds something.
        FileNotFoundError, ValueError: see `laser_interp.count`.

    Example:
        >>> index = li.counts.build_index("organism", "index")
        >>> index.count(facts)
    """
    corpora = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    how = Reading(text_column, document, errors, longest)
    parts, notes = corpus_files(corpora, document)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    folder = Path(folder)
    n_docs, problems = 0, []
    with new_folder(folder) as new:
        (new / _FILE).parent.mkdir()
        total = sum(shard.size for shard in parts)
        with (
            closing(sqlite3.connect(new / _FILE)) as database,
            progress_bar(total=total, desc="indexing", unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            for set_up in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", _TABLE):
                database.execute(set_up)
            for shard in parts:
                reader = Reader(shard, how, bar.update)
                for n, documents in reader.blocks():
                    texts = normalise_joined(documents, fold_accents=fold_accents).decode().split("\0")
                    database.executemany("INSERT INTO documents VALUES (?)", ((text.strip(),) for text in texts))
                    n_docs += n
                problems += reader.problems
            database.commit()
        if n_docs == 0:
            raise ValueError(f"no document could be read in {', '.join(Path(source).name for source in corpora)}")
        about = {
            "backend": _STORE,
            "corpus": [Path(source).name for source in corpora],
            "corpus_fingerprint": fingerprint(parts),
            "n_docs": n_docs,
            "skipped": problems,
            "notes": notes,
            "normaliser": NORMALISER,
            "fold_accents": fold_accents,
            "text_column": text_column,
            "document": document,
            "code_version": code_version(),
        }
        write_json(about, new / "index.json")
        write_checksums(new)
    warn_of_skipped(problems)
    return Index(folder)


class Index(CountSource):
    """An index of a corpus, open for questions. Opening it compares every file with its stored checksum.

    Raises:
        ValueError: it is damaged, or was made by an older version.
        FileNotFoundError: the folder holds none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.about = read_json(self.folder / "index.json")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"no index in {self.folder}: make one with build_index, or `laser-interp index --corpus … --out …`"
            ) from None
        if not check_folder(self.folder, "remove it and build it again"):
            raise ValueError(
                f"{self.folder} carries no checksums, as indexes of older versions do not: remove it and build it again"
            )
        made = self.about["backend"], self.about["normaliser"]
        if made != (_STORE, NORMALISER) or "fold_accents" not in self.about:
            raise ValueError(f"{self.folder} was made by another version ({', '.join(made)}): build it again")
        self._database = sqlite3.connect(self.folder / _FILE)

    def __repr__(self) -> str:
        return f"Index({' '.join(self.about['corpus'])}: {self.about['n_docs']} documents)"

    def matching(self, asked: Matching | None = None) -> Matching:
        """How names are compared with the texts. None: accents as in the index, and `Matching`'s defaults for the rest.

        Raises:
            ValueError: accents are treated otherwise than in the index.
        """
        if asked is None:
            return Matching(fold_accents=self.about["fold_accents"])
        if asked.fold_accents != self.about["fold_accents"]:
            folded = "folded" if self.about["fold_accents"] else "kept"
            raise ValueError(f"{self.folder} was made with accents {folded}: count so too, or build another index")
        return asked

    def count(
        self, facts: AnyFacts, *, window: int | None = None, matching: Matching | None = None, progress: bool = True
    ) -> pd.DataFrame:
        """The table of `laser_interp.count`, with the same numbers.

        Raises:
            ValueError: see `laser_interp.count`.
        """
        facts = facts_of(facts)
        matching = self.matching(matching)
        names = Names(facts, window, matching)
        about = self.identity(facts, window, matching)
        for note in names.notes(facts):
            warnings.warn(note, stacklevel=2)
        tally = Tally(names)
        tally.counts[0] = self.about["n_docs"]
        sets = [[names.patterns[i] for i in sorted(members)] for members in names.sets]
        for i, one in enumerate(sets):
            tally.n_mentions[i] = self._n_docs([one])
        for i, (subject, answer) in enumerate(progress_bar(names.pairs.tolist(), desc="asking", disable=not progress)):
            clauses = [sets[subject], sets[answer]]
            tally.n_both[i] = self._n_docs(clauses)
            if window is not None and tally.n_both[i]:
                of_pair = Names([facts.facts[int((names.pair == i).argmax())]], window, matching)
                mentions = Mentions(of_pair)
                mentions.add(0, joined(self._texts(clauses)))
                tally.n_window[i] = mentions.tally.n_window[0]
        frame = names.frame(facts, tally, len(self.about["skipped"]), " ".join(self.about["corpus"]))
        frame.attrs["provenance"] = about
        return frame

    def identity(self, facts: AnyFacts, window: int | None = None, matching: Matching | None = None) -> dict[str, Any]:
        """What identifies counts by this index: where it is equal, the counts are equal."""
        facts = facts_of(facts)
        of_index = {k: v for k, v in self.about.items() if k != "code_version"}
        how = {"window": window, "matching": str(self.matching(matching))}
        return plain({"facts": facts.name, "facts_sha256": facts.sha256, **how, **of_index})

    def documents(self, *names: str, limit: int | None = 10) -> list[str]:
        """Documents, in their normal form, that mention all of the names: texts that the model may have read.

        Args:
            limit: at most so many; None for all.

        Raises:
            ValueError: no name, or one without a word.
        """
        clauses = [[normalise(name, fold_accents=self.about["fold_accents"])] for name in names]
        if not clauses or any(not clause[0].strip() for clause in clauses):
            raise ValueError(f"the names are {list(names)}: expected at least one, and none without a word to look for")
        return list(islice(self._texts(clauses), limit))

    def _n_docs(self, clauses: Sequence[Sequence[str]]) -> int:
        return int(self._ask("count(*)", clauses).fetchone()[0])

    def _texts(self, clauses: Sequence[Sequence[str]]) -> Iterator[str]:
        return (row[0] for row in self._ask("text", clauses))

    def _ask(self, what: str, clauses: Sequence[Sequence[str]]) -> sqlite3.Cursor:
        """Of the documents that hold one name of each clause."""
        query = " AND ".join("(" + " OR ".join(f'"{text.strip()}"' for text in clause) + ")" for clause in clauses)
        return self._database.execute(f"SELECT {what} FROM documents WHERE documents MATCH ?", (query,))
