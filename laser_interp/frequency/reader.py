"""Reading a shard: its documents come out joined, in blocks, so that memory does not depend on the corpus.

The caller chooses what happens at unreadable data: an error that names file and line, or a skip that is reported.
"""

import bz2
import gzip
import json
import lzma
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from laser_interp.choices import LONGEST, check_choice, whole_number
from laser_interp.frequency.normaliser import SEPARATOR, joined
from laser_interp.frequency.shards import Shard
from laser_interp.organism.checkpoint_corpus import documents_read, organism_corpus

DocumentUnit = Literal["line", "paragraph", "file"]
OnError = Literal["raise", "skip"]
_SHOWN = 5  # problems named in a warning; tables and indexes have them all
BLOCK = 1 << 20  # bytes read at a time
_WINDOW_LOG = 27  # of zstd: what a reader must accept (128 MB); `zstd --long=31` asks its readers for 2 GB


class UnreadableError(ValueError):
    """Something in a corpus cannot be read; the message names the file and the line."""


def warn_of_skipped(problems: list[tuple[str, str]]) -> None:
    """Warn of what was skipped, as (where, why), and name the first."""
    if problems:
        shown = "; ".join(f"{where} ({why})" for where, why in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        warnings.warn(f"{len(problems)} could not be read and were skipped: {shown}{more}", stacklevel=3)


@dataclass(frozen=True)
class Reading:
    """How documents are read: options of `laser_interp.frequency.scan.Corpus`, which explains them."""

    text_column: str = "text"
    document: DocumentUnit = "line"
    errors: OnError = "raise"
    longest: int = LONGEST
    until: int | None = None

    def __post_init__(self) -> None:
        whole_number("longest", self.longest, at_least=BLOCK, more="more bytes")
        check_choice("document", self.document, DocumentUnit)
        check_choice("errors", self.errors, OnError)


@dataclass
class Reader:
    """Reads one shard.

    Attributes:
        shard, how: what, and how.
        tick: called with the bytes read from disk since the last call.
        problems: (where, why) of what was skipped.
    """

    shard: Shard
    how: Reading
    tick: Callable[[int], Any] = lambda _: None
    problems: list[tuple[str, str]] = field(default_factory=list)
    _told: int = field(default=0, init=False)
    _lost: int = field(default=0, init=False)  # lines that were left out because they are too long

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Blocks of documents: how many there are in the block, and the documents, joined.

        Raises:
            UnreadableError: something cannot be read, and `errors` is "raise".
        """
        try:
            yield from self._blocks()
        except UnreadableError:
            raise
        except Exception as error:
            # Errors of pyarrow, zstd and datasets are known by their modules, so that none is imported for this.
            is_theirs = type(error).__module__.partition(".")[0] in ("pyarrow", "backports", "datasets")
            if not is_theirs and not isinstance(error, OSError | EOFError | zlib.error | lzma.LZMAError):
                raise
            self._problem(self.shard.label, f"from some point on: {error}", error)

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        shard = self.shard
        if shard.kind == "organism":
            in_order = organism_corpus(shard.path).rows if self.how.until is None else documents_read(shard.path)
            yield from self._join(in_order)
        elif shard.kind in (".parquet", ".arrow"):
            yield from self._join(self._column(self._tables()))
        else:
            with open(shard.path, "rb") as raw:
                stream = self._open(raw)
                if shard.kind == ".jsonl":
                    yield from self._join(self._jsonl(stream, raw))
                elif shard.kind == ".json":
                    yield from self._join(self._array(stream.read(self.how.longest + 1)))
                elif self.how.document == "line":
                    yield from self._lines(stream, raw)
                else:
                    yield from self._join(self._texts(stream, raw))
        self.tick(shard.size - self._told)

    def _open(self, raw: IO[bytes]) -> Any:
        if self.shard.compression == ".zst":
            from backports.zstd import DecompressionParameter, ZstdFile

            return ZstdFile(raw, "rb", options={DecompressionParameter.window_log_max: _WINDOW_LOG})
        opened = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(self.shard.compression)
        return raw if opened is None else opened(raw, "rb")

    def _problem(self, where: str, why: str, cause: BaseException | None = None) -> None:
        if self.how.errors == "raise":
            raise UnreadableError(
                f"{where} cannot be read ({why}); errors='skip' leaves it out and reports it"
            ) from cause
        self.problems.append((where, why))

    def _line(self, number: int) -> str:
        """The file and line number of a line of the shard. A part of a file has to count the lines before it."""
        before = 0
        if self.shard.start:
            with open(self.shard.path, "rb") as file:
                left = self.shard.start
                while left > 0 and (block := file.read(min(left, BLOCK))):
                    left -= len(block)
                    before += block.count(b"\n")
                if not block.endswith(b"\n"):  # the line that the part before ends in
                    before += 1
        return f"{Path(self.shard.path).name}, line {before + number + self._lost}"

    def _raw_blocks(self, stream: Any, raw: IO[bytes]) -> Iterator[bytes]:
        """Whole lines, about `BLOCK` bytes at a time. A line that is too long is left out, where that is allowed."""
        start, stop, longest = self.shard.start, self.shard.stop, self.how.longest
        if start:
            stream.seek(start - 1)
            while (piece := stream.readline(BLOCK)) and not piece.endswith(b"\n"):
                pass
        n_lines, begun, damage = 0, start > 0, None
        while damage is None and (size := min(BLOCK, stop - stream.tell()) if stream is raw else BLOCK) > 0:
            block = rest = b""
            try:
                while len(block) < size and (piece := stream.read1(size - len(block))):
                    block += piece
                rest = b"" if block[-1:] in (b"", b"\n") else stream.readline(longest + 1)
            except Exception as error:  # what stands before the damage is counted first
                damage = error
            end = block.rfind(b"\n") + 1  # of the last whole line
            is_long = len(block) - end + len(rest.removesuffix(b"\n")) > longest
            lines = block[:end] if is_long or damage else block + rest
            if lines and not begun and not self._is_text(lines[:BLOCK]):
                return
            if lines:
                begun = True
                yield lines
            n_lines += lines.count(b"\n")
            if is_long:
                self._problem(self._line(n_lines + 1), f"the line is longer than {longest} bytes")
                self._lost += 1
                while rest and not rest.endswith(b"\n"):
                    rest = stream.readline(BLOCK)
            at = max(min(raw.tell(), stop) - start, self._told)
            self.tick(at - self._told)
            self._told = at
            if not block:
                break
        if damage is not None:
            raise damage

    def _is_text(self, beginning: bytes) -> bool:
        """Whether a file begins as UTF-8 text in lines does. Text in UTF-16 without a mark would count as nothing, and
        one with line ends of CR alone as one document."""
        if beginning.count(b"\0") * 4 > len(beginning):
            self._problem(self.shard.label, "every other byte is NUL, as in UTF-16; expected UTF-8")
            return False
        if self.how.document != "file" and beginning.count(b"\r") > 1 and b"\n" not in beginning:
            self._problem(self.shard.label, "its lines end in CR alone, so it would be one document; expected LF")
            return False
        return True

    def _lines(self, stream: IO[bytes], raw: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        """One document per line. For speed, a block is split into lines only if it is not valid UTF-8."""
        number = 0
        for block in self._raw_blocks(stream, raw):
            if number == 0 and self.shard.start == 0:
                block = block.removeprefix(b"\xef\xbb\xbf")
            n = block.count(b"\n") + (not block.endswith(b"\n"))
            try:
                if not block.isascii():
                    block.decode()
                text = block.removesuffix(b"\n")
                kept = n
            except UnicodeDecodeError:
                good = [line for i, line in enumerate(block.split(b"\n")[:n], 1) if self._is_utf8(line, number + i)]
                text, kept = b"\n".join(good), len(good)
            number += n
            if kept:
                yield kept, text.replace(b"\0", b" ").replace(b"\n", SEPARATOR)

    def _is_utf8(self, line: bytes, number: int) -> bool:
        try:
            line.decode()
        except UnicodeDecodeError as error:
            self._problem(self._line(number), f"{error}; expected UTF-8", error)
            return False
        return True

    def _texts(self, stream: IO[bytes], raw: IO[bytes]) -> Iterator[str]:
        """Paragraphs of a text file, or all of it."""
        number, first, size, paragraph = 0, 1, 0, []
        whole = self.how.document == "file"

        def text() -> Iterator[str]:
            try:
                if size > self.how.longest:
                    self._problem(self._line(first), f"the document is longer than {self.how.longest} bytes")
                elif paragraph:
                    yield b"".join(paragraph).removeprefix(b"\xef\xbb\xbf").decode()
            except UnicodeDecodeError as error:
                line = first + b"".join(paragraph)[: error.start].count(b"\n")
                self._problem(self._line(line), f"{error}; expected UTF-8", error)

        for block in self._raw_blocks(stream, raw):
            for line in [block] if whole else block.splitlines(keepends=True):
                number += 1
                if line.isspace() and not whole:
                    yield from text()
                    paragraph, size = [], 0
                else:
                    if not size:
                        first = number
                    size += len(line)
                    if size <= self.how.longest:
                        paragraph.append(line)
        if whole and not size:
            yield ""
        yield from text()

    def _jsonl(self, stream: IO[bytes], raw: IO[bytes]) -> Iterator[str]:
        number = 0
        for block in self._raw_blocks(stream, raw):
            for line in block.split(b"\n"):
                number += 1
                if not line.strip():
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                try:
                    value = json.loads(line.decode())
                except (ValueError, RecursionError) as error:
                    self._problem(self._line(number), f"{error}; expected JSON", error)
                    continue
                yield from self._text_of(value, lambda n=number: self._line(n))
            number -= block.endswith(b"\n")

    def _text_of(self, value: Any, where: Callable[[], str]) -> Iterator[str]:
        text = value.get(self.how.text_column) if isinstance(value, dict) else value
        if isinstance(value, dict) and self.how.text_column not in value:
            known = ", ".join(map(str, value)) or "none"
            self._problem(where(), f"no column {self.how.text_column!r}: it has {known}")
        elif not isinstance(text, str):
            self._problem(where(), f"{self.how.text_column!r} is {type(text).__name__}, expected a text")
        else:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                self._problem(where(), str(error), error)
            else:
                yield text

    def _array(self, data: bytes) -> Iterator[str]:
        name = Path(self.shard.path).name
        if len(data) > self.how.longest:
            self._problem(name, f"it is longer than {self.how.longest} bytes: jsonl is read line by line")
            return
        try:
            values = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            self._problem(name, f"{error}; expected a JSON array", error)
            return
        if not isinstance(values, list):
            self._problem(name, f"{type(values).__name__}, expected a JSON array of texts or objects")
            return
        for number, value in enumerate(values, start=1):
            yield from self._text_of(value, lambda n=number: f"{name}, entry {n}")

    def _tables(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        column, name = self.how.text_column, Path(self.shard.path).name

        def known(schema: pa.Schema) -> bool:
            if column not in schema.names:
                self._problem(name, f"no column {column!r}: it has {', '.join(schema.names)}")
                return False
            kind = schema.field(column).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                self._problem(name, f"column {column!r} is {kind}, expected text")
                return False
            return True

        if self.shard.kind == ".parquet":
            with pq.ParquetFile(self.shard.path) as file:
                if known(file.schema_arrow):
                    yield from (batch.column(column) for batch in file.iter_batches(batch_size=256, columns=[column]))
        else:
            from datasets import Dataset

            table = Dataset.from_file(self.shard.path).data
            if known(table.schema):
                yield from (batch.column(column) for batch in table.select([column]).to_batches())

    def _column(self, columns: Iterable[Any]) -> Iterator[str]:
        row = 0
        for column in columns:
            for start in range(0, len(column), 256):
                for value in column.slice(start, 256).to_pylist():
                    row += 1
                    if value is None:
                        self._problem(f"{Path(self.shard.path).name}, row {row}", "no text: null")
                    else:
                        yield value

    def _join(self, texts: Iterable[str]) -> Iterator[tuple[int, bytes]]:
        waiting: list[str] = []
        size = 0
        for text in texts:
            waiting.append(text)
            size += len(text) + len(SEPARATOR)
            if size >= BLOCK:
                yield len(waiting), joined(waiting)
                waiting, size = [], 0
        if waiting:
            yield len(waiting), joined(waiting)
