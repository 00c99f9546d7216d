"""Options that commands share, and how a result is printed."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from laser_interp.choices import LONGEST
from laser_interp.storage.atomic import plain

if TYPE_CHECKING:
    from laser_interp.facts.fact_set import FactSet
    from laser_interp.models.model import Model

Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """How the result is printed.

    Attributes:
        quiet: Show no progress bars.
        json: Print the result as JSON, and nothing else.
    """

    quiet: Flag = False
    json: Flag = False

    def say(self, result: dict[str, Any], text: str) -> None:
        """Print the result, in words or as one JSON document."""
        print(json.dumps(plain(result), indent=2, allow_nan=False) if self.json else text)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model.

    Attributes:
        model: Name of a shipped model, a folder, or a hub id.
        revision: Branch, tag or commit of a hub id.
        device: auto, cpu, cuda, cuda:1 or mps.
        dtype: auto (the checkpoint's own), float32, bfloat16, float16 or float64.
    """

    model: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"

    def load(self) -> Model:
        """The model."""
        from laser_interp.models.loading import load_model

        return load_model(self.model, revision=self.revision, device=self.device, dtype=self.dtype)

    def load_with(self, facts: str) -> tuple[Model, FactSet]:
        """The model and the facts. The facts load first and fast, so that a wrong path is reported at once."""
        from laser_interp.facts.files import load_facts

        fact_set = load_facts(facts)
        return self.load(), fact_set


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How a corpus is read.

    Attributes:
        text_column: Column of jsonl, parquet and so on that holds the text.
        document: What is one document in a .txt file: line, paragraph or file.
        longest: Largest line that can be read, in bytes.
        skip: Skip documents that cannot be read, and print a note, instead of stopping.
    """

    text_column: str = "text"
    document: str = "line"
    longest: int = LONGEST
    skip: Flag = False

    def as_arguments(self) -> dict[str, Any]:
        """Arguments of `li.count` and `li.counts.build_index`."""
        reading = {"text_column": self.text_column, "document": self.document, "longest": self.longest}
        return reading | {"errors": "skip" if self.skip else "raise"}


def note(text: str) -> None:
    """Print a note to stderr, so that it does not mix with the result."""
    print(f"note: {text}", file=sys.stderr)


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print what the library warns of as notes."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        yield
    for warning in raised:
        note(str(warning.message))


def read_text(path: Path) -> str:
    """A file of running text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from None
