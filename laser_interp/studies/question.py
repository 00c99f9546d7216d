"""What every question of a study has: how it is asked, and its answer as tables, numbers, sentences and a page."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pandas as pd

if TYPE_CHECKING:
    from laser_interp.studies.context import StudyContext


@dataclass(frozen=True)
class Answer(ABC):
    """The answer to one question.

    Attributes:
        tables: name -> table, as they stand in a run's folder.
        numbers: name -> numbers, as they stand in `summary.json`. In a finished study, all of its numbers.
        key: of the summary, where there is an answer.
        schemas: name of a table -> its schema, where it has one.
        title: of its section in the report.
    """

    tables: Mapping[str, pd.DataFrame]
    numbers: Mapping[str, Any]

    schemas: ClassVar[Mapping[str, str]] = {}
    key: ClassVar[str] = ""
    title: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def ask(cls, context: StudyContext) -> Self | None:
        """The answer; None where the question cannot be asked of this study."""

    def finding(self) -> str:
        """What was found, in a sentence or two for the top of the report; none leave it out."""
        return ""

    def lines(self) -> Sequence[str]:
        """What was found in full, as lines of Markdown below the title; none leave the section out."""
        return ()

    def page_words(self) -> Sequence[str]:
        """What was found, for a reader who knows neither LASER nor this package."""
        return ()

    def page_table(self) -> PageTable | None:
        """A table for the page."""
        return None


@dataclass(frozen=True)
class PageTable:
    """A table as the page shows it.

    Attributes:
        name: its anchor.
        hint: what it says, in a sentence or two.
        columns: what the columns of `rows` are called there.
    """

    name: str
    title: str
    hint: str
    columns: Sequence[str]
    rows: pd.DataFrame

    def as_json(self) -> dict[str, Any]:
        """For the page's script; numbers are rounded, and None stands where there is none."""
        return vars(self) | {"rows": [list(map(rounded, row)) for row in self.rows.to_numpy(object)]}


def rounded(value: Any) -> Any:
    """A number with four digits, or None where there is none; a text as it is."""
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    return round(number, 4) if math.isfinite(number) else None
