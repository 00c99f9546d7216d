"""Corpora on disk: which files, in which parts.

A part (`Shard`) is a file, or about 64 MiB of a large uncompressed one. One process reads one part at a time. After a
stop, the parts that were not finished are counted again.
"""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from laser_interp.choices import names_with_suggestion
from laser_interp.facts.shipped import SHIPPED
from laser_interp.organism.checkpoint_corpus import corpus_of

KINDS = (".txt", ".jsonl", ".json", ".parquet", ".arrow")
COMPRESSED = (".gz", ".zst")
PART = 64 << 20  # bytes of a large file that are one shard
_ENDS = 64 << 10  # bytes at either end of a file that its fingerprint takes in


@dataclass(frozen=True)
class Shard:
    """A file of a corpus, or a part of one.

    Attributes:
        path: of the file; of a shipped organism or a checkpoint folder, its name.
        kind: one of `KINDS`, or "organism".
        compression: ".gz", ".zst" or "".
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


def shards(corpus: str | Path | Iterable[str | Path], document: str = "line") -> list[Shard]:
    """The parts of a corpus, in a fixed order.

    Args:
        corpus: "organism", "organism-control" or a checkpoint folder of either kind; a file; a pattern, as
            `"data/*.jsonl.zst"`; a folder, with all files of known kinds in it, or one that the `datasets`
            library saved; or several of these. Files are .txt, .jsonl, .json (an array), .parquet or
            .arrow, the first three also as .gz or .zst.

    Raises:
        FileNotFoundError: no such file, or a pattern or folder without any.
        ValueError: a file of another kind.
    """
    corpora = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    parts = [shard for source in corpora for shard in _shards(str(source), document)]
    if not parts:
        raise FileNotFoundError("no corpus was given: expected a file, a folder, a pattern, or several of these")
    return parts


def _shards(source: str, document: str) -> Iterator[Shard]:
    path = Path(source)
    if source in SHIPPED or (path / "organism.json").is_file():
        size = len(corpus_of(source).text.encode())
        yield Shard(source, "organism", "", 0, size, path.name)
    elif path.is_file():
        yield from _parts(path, document)
    elif path.is_dir():
        saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        files = sorted(
            p
            for p in path.rglob("*")
            if p.is_file() and (p.suffix == ".arrow" if saved else _kind(p) is not None) and not _hidden(p, path)
        )
        if not files:
            raise FileNotFoundError(f"the folder {source!r} holds no file of a known kind ({', '.join(KINDS)})")
        for file in files:
            yield from _parts(file, document)
    else:
        files = sorted(glob.glob(source, recursive=True)) if glob.has_magic(source) else []
        if not files:
            raise FileNotFoundError(
                f"no corpus {source!r}: expected a file ({', '.join(KINDS)}, the first three also as .gz or .zst), a "
                f"pattern that matches some, a folder of them, or {names_with_suggestion(SHIPPED, source)}"
            )
        for file in files:
            if Path(file).is_file():
                yield from _parts(Path(file), document)


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _kind(path: Path) -> tuple[str, str] | None:
    compression = path.suffix if path.suffix in COMPRESSED else ""
    kind = Path(path.name.removesuffix(compression)).suffix
    ok = kind in KINDS and not (compression and kind in (".parquet", ".arrow"))
    return (kind, compression) if ok else None


def _parts(path: Path, document: str) -> Iterator[Shard]:
    kind = _kind(path)
    if kind is None:
        raise ValueError(f"cannot count in {path.name!r}: expected {', '.join(KINDS)}, or .gz or .zst of a text")
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
            digest.update(f"organism {corpus_of(path).sha256}\n".encode())
            continue
        size = os.path.getsize(path)
        digest.update(f"{os.path.basename(path)} {size}\n".encode())
        with open(path, "rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(size - _ENDS, 0))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()
