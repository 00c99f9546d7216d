"""Corpora on disk: which files, in which parts.

A part (`Shard`) is a file, or about 64 MiB of a large uncompressed one. One process reads one part at a time. After a
stop, the parts that were not finished are counted again.
"""

import glob
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from laser_interp.choices import names_with_suggestion, some_of
from laser_interp.facts.shipped import SHIPPED
from laser_interp.organism.checkpoint_corpus import organism_corpus
from laser_interp.storage.checksums import name_size_and_ends

KINDS = (".txt", ".jsonl", ".json", ".parquet", ".arrow")
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
PART = 64 << 20  # bytes of a large file that are one shard


@dataclass(frozen=True)
class Shard:
    """A file of a corpus, or a part of one.

    Attributes:
        path: of the file; of a shipped organism or a checkpoint folder, its name.
        kind: one of `KINDS`, or "organism".
        compression: one of `COMPRESSED`, or "".
        start, stop: range of bytes; a line belongs to the shard in which it begins.
        label: its name in messages and on disk.
    """

    path: str
    kind: str
    compression: str
    start: int
    stop: int
    label: str

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.stop - self.start


def corpus_files(corpus: str | Path | Iterable[str | Path], document: str = "line") -> tuple[list[Shard], list[str]]:
    """The parts of a corpus, each text once; and what was left out, in sentences.

    A file that is there under several names, also by links, is one text. So is a file beside a compressed file of the
    same name, as texts.txt beside texts.txt.gz.

    Args:
        corpus: see `laser_interp.frequency.scan.Corpus`; capital letters in the endings of files make no difference.

    Raises:
        FileNotFoundError: no such file, or a pattern or folder without any.
        ValueError: a file of another kind that was named.
    """
    corpora = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    if any(not str(source) for source in corpora):
        raise ValueError("a corpus has an empty name: expected a file, a folder or a pattern")
    others: list[Path] = []
    found = [path for source in corpora for path in _files(str(source), others)]
    uncompressed = {path.resolve() for path in found if isinstance(path, Path) and not _is_compressed(path)}
    first: dict[object, Path | str] = {}
    twice: list[str] = []
    for path in found:
        is_copy = isinstance(path, Path) and _is_compressed(path) and path.resolve().with_suffix("") in uncompressed
        if is_copy or (key := _identity(path)) in first:
            twice.append(path if isinstance(path, str) else path.name)
        else:
            first[key] = path
    parts = [shard for path in first.values() for shard in _parts(path, document)]
    if not parts:
        raise FileNotFoundError("no corpus was given: expected a file, a folder, a pattern, or several of these")
    notes = []
    if others:
        notes.append(
            f"{len(others)} files of other kinds were not counted: {some_of((path.name for path in others), 5)}"
        )
    if twice:
        notes.append(f"{len(twice)} files hold a text that is counted already, and were left out: {some_of(twice, 5)}")
    return parts, notes


def _identity(path: Path | str) -> object:
    """What is the same for two names of one file."""
    if isinstance(path, str):
        return str(Path(path).resolve()) if Path(path).exists() else path
    about = path.stat()
    return about.st_dev, about.st_ino


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSED


def _files(source: str, others: list[Path]) -> Iterator[Path | str]:
    """The files of one source; of an organism, its name. What a folder holds besides is put into `others`."""
    path = Path(source)
    if source in SHIPPED or (path / "organism.json").is_file():
        yield source
    elif path.is_file():
        if _kind(path) is None:
            raise ValueError(
                f"cannot count in {path.name!r}: expected {', '.join(KINDS)}, or {', '.join(COMPRESSED)} of a text"
            )
        yield path
    elif path.is_dir():
        saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        files: list[Path] = []
        for file in sorted((p for p in path.rglob("*") if p.is_file() and not _hidden(p, path)), key=_by_number):
            if file.suffix == ".arrow" if saved else _kind(file) is not None:
                files.append(file)
            elif not saved:
                others.append(file)
        if not files:
            raise FileNotFoundError(f"the folder {source!r} holds no file of a known kind ({', '.join(KINDS)})")
        yield from files
    else:
        matched = sorted(glob.glob(source, recursive=True), key=_by_number) if glob.has_magic(source) else []
        if not matched:
            raise FileNotFoundError(
                f"no corpus {source!r}: expected a file ({', '.join(KINDS)}, the first three also as "
                f"{', '.join(COMPRESSED)}), a pattern that matches some, a folder of them, or "
                f"{names_with_suggestion(SHIPPED, source)}; a text itself is given in a list, as in [{source[:20]!r}]"
            )
        for file in matched:
            if Path(file).is_file():
                yield from _files(file, others)


def _by_number(path: Path | str) -> list[tuple[str, int]]:
    """Orders part-2 before part-10: with `until`, the first documents of a corpus are counted."""
    return [(text, int(number or -1)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", str(path))]


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _kind(path: Path) -> tuple[str, str] | None:
    name = path.name.lower()
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSED else ""
    kind = Path(name.removesuffix(compression)).suffix
    ok = kind in KINDS and not (compression and kind in (".parquet", ".arrow"))
    return (kind, compression) if ok else None


def _parts(path: Path | str, document: str) -> Iterator[Shard]:
    if isinstance(path, str):
        size = len(organism_corpus(path).text.encode())
        yield Shard(path, "organism", "", 0, size, Path(path).name)
        return
    kind = _kind(path)
    assert kind is not None
    size = path.stat().st_size
    lines = kind == (".jsonl", "") or (kind == (".txt", "") and document == "line")
    starts = range(0, size, PART) if lines and size > PART else range(1)
    for i, start in enumerate(starts):
        stop = min(start + PART, size) if len(starts) > 1 else size
        label = path.name if len(starts) == 1 else f"{path.name}[{i}]"
        yield Shard(str(path), *kind, start, stop, label)


def fingerprint(parts: Iterable[Shard]) -> str:
    """A hash of each file's name, size and both ends, which is fast. It misses a change in the middle at equal size."""
    digest = hashlib.sha256()
    for path, kind in dict.fromkeys((shard.path, shard.kind) for shard in parts):
        if kind == "organism":
            digest.update(f"organism {organism_corpus(path).sha256}\n".encode())
        else:
            digest.update(name_size_and_ends(Path(path)))
    return digest.hexdigest()
