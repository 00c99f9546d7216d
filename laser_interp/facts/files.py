"""Fact files: reading them, from a path, a frame or a list of dictionaries. `FactSet.save` writes them."""

import csv
import difflib
import json
import math
import numbers
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.choices import Separator, names_with_suggestion
from laser_interp.facts.fact_set import LIST_COLUMNS, NO_RELATION, REQUIRED_COLUMNS, Fact, FactSet, check_fact
from laser_interp.facts.shipped import SHIPPED, WIKIDATA, shipped_table
from laser_interp.facts.wikidata import load_wikidata
from laser_interp.storage.spreadsheets import as_written

Rows = Sequence[Mapping[str, Any] | tuple[str, ...]] | pd.DataFrame

_KNOWN = (*(field.name for field in fields(Fact)), "separator")
_NEEDED = ("subject", "object", "prompt")  # the others of REQUIRED_COLUMNS have defaults


def load_facts(
    source: str | Path | Rows | FactSet, *, template: str | None = None, separator: Separator | None = None
) -> FactSet:
    """Read a fact set. Facts that are there twice, with all that is asked of them, count once, and a warning says so.

    Args:
        source: "wikidata", "organism" or "organism-control" (shipped), a .jsonl / .csv / .parquet file, a frame, a
            list of dicts, or a list of tuples `(subject, relation, object, prompt)`, with a template without the
            prompts. The columns `subject, object,
            prompt` are needed. Optional are `fact_id` (default: the number of the row), `relation` (default: one for
            all), `split`, `frequency`, `target_new`, `separator` (the same in all rows), and the lists `paraphrases,
            aliases, candidates, subject_aliases` (in a csv, JSON lists). A `FactSet` is returned as it is.
        template: makes the prompts of facts in memory that have none, as in "{subject} was born in".
        separator: what is written between prompts and answers: " ", "", or "auto"; see
            `laser_interp.facts.separators`. None takes the file's column, or else "auto".

    Example:
        >>> li.load_facts([{"subject": "Marie Curie", "object": "Warsaw"}], template="{subject} was born in")

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty file, a broken line (with its number), a missing column, a duplicate id.
    """
    if template is not None and isinstance(source, FactSet | str | Path):
        raise ValueError("template is only for rows in memory: a fact set or a file has its own prompts")
    facts = source if isinstance(source, FactSet) else _without_copies(_read(source, template))
    return facts if separator is None else replace(facts, separator=separator)


def _read(source: str | Path | Rows, template: str | None) -> FactSet:
    if isinstance(source, pd.DataFrame):
        return _from_frame(source if template is None else _with_prompts(source, template), "facts")
    if not isinstance(source, str | Path):
        if isinstance(source, Mapping) or not isinstance(source, Iterable):
            raise ValueError(
                f"the facts are a {type(source).__name__}: expected a name, a file, a frame, or a list of dictionaries"
            )
        rows: list[Any] = [_as_row(row, i) for i, row in enumerate(source, start=1)]
        if template is not None:
            rows = _with_prompts(pd.DataFrame(rows, dtype=object), template).to_dict("records")
        return facts_from_rows(rows)
    if str(source) == WIKIDATA:
        return load_wikidata()
    shipped = str(source) in SHIPPED
    path = shipped_table(str(source), "facts.jsonl") if shipped else Path(source)
    name = str(source) if shipped else path.name
    if not path.is_file():
        names = names_with_suggestion((*SHIPPED, WIKIDATA), source)
        raise FileNotFoundError(f"no fact file {str(source)!r}: expected a .jsonl, .csv or .parquet file, or {names}")
    if path.suffix == ".jsonl":
        return _as_set(((row, where, i) for i, (where, row) in enumerate(json_lines(path), start=1)), name)
    if path.suffix == ".parquet":
        return _from_frame(read_parquet(path), name)
    if path.suffix == ".csv":
        return _as_set(_csv_facts(path), name)
    raise ValueError(f"cannot read facts from {name!r}: the suffix must be .jsonl, .csv or .parquet")


def _without_copies(facts: FactSet) -> FactSet:
    """The facts without those that are another one under a second id."""
    first: dict[Fact, Fact] = {}
    for fact in facts:
        first.setdefault(replace(fact, fact_id=""), fact)
    if len(first) == len(facts):
        return facts
    copies = [fact.fact_id for fact in facts if first[replace(fact, fact_id="")] is not fact]
    warnings.warn(
        f"{len(copies)} facts of {facts.name!r} are there twice, {copies[0]!r} among them: each counts once",
        stacklevel=3,
    )
    return facts.keep(first.values())


def facts_from_rows(rows: Iterable[Mapping[str, Any]], name: str = "facts") -> FactSet:
    """Facts from dictionaries with the columns of a fact file."""
    return _as_set(((row, f"{name}, row {i}", i) for i, row in enumerate(rows, start=1)), name)


def _as_set(rows: Iterable[tuple[Mapping[str, Any], str, int]], name: str) -> FactSet:
    """Facts from (row, where it stands, its number)."""
    facts: list[Fact] = []
    separators: dict[Any, str] = {}
    for row, where, number in rows:
        facts.append(_fact(row, where, number))
        value = row.get("separator")
        separators.setdefault("auto" if _is_missing(value) else value, where)
    if len(separators) > 1:
        where = list(separators.values())[1]
        raise ValueError(f"{where}: another separator than in the rows before: expected one for all facts of a set")
    return FactSet(tuple(facts), name=name, separator=next(iter(separators), "auto"))


def _as_row(row: Any, number: int) -> Mapping[str, Any]:
    """A dictionary, from one, from a tuple, or from a fact."""
    if isinstance(row, Fact):
        return vars(row)
    if isinstance(row, tuple) and len(row) in (3, 4):
        return dict(zip(("subject", "relation", "object", "prompt"), row, strict=False))
    if not isinstance(row, Mapping):
        raise ValueError(
            f"facts, row {number} is {row!r}: expected a dictionary, or a tuple (subject, relation, object, prompt)"
        )
    return row


def _with_prompts(frame: pd.DataFrame, template: str) -> pd.DataFrame:
    if set(re.findall(r"{\w+}", template)) != {"{subject}"}:
        raise ValueError(
            f"template is {template!r}: expected a text with {{subject}} in it, and nothing else in braces, as in "
            "'{subject} was born in'"
        )
    if "prompt" in frame.columns:
        raise ValueError("the facts have prompts already: leave template out, or the column prompt")
    if "subject" not in frame.columns:
        raise ValueError(f"the facts have no column subject: they have {', '.join(map(str, frame.columns))}")
    return frame.assign(prompt=[template.replace("{subject}", str(subject)) for subject in frame["subject"]])


def read_parquet(path: Path) -> pd.DataFrame:
    """A parquet file of anyone.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many kinds
        raise ValueError(f"{path.name!r} is not a readable parquet file: {error}") from error


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of a .jsonl file as (where, object), as in ("facts.jsonl, line 3", {...}); blank lines are skipped.

    Raises:
        ValueError: a line that is no JSON object; the message names it.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path.name}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where} is not UTF-8 ({error}): save the file as UTF-8") from None
            if not text.strip():
                continue
            try:
                row = json.loads(text, parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where} is not valid JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{where} is {type(row).__name__}, expected a JSON object")
            yield where, row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows")


def csv_rows(path: Path, delimiter: str = ",") -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Columns of a csv file, and its rows with their line numbers; all is text, as pandas would read "NA" as missing.

    Raises:
        ValueError: an empty file, one that is not UTF-8, a column that is there twice, or a row with more or fewer
            cells than the header.
    """
    rows: list[tuple[int, list[str]]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, delimiter=delimiter)
        try:
            columns = next(reader, None)
            if columns is None:
                raise ValueError(f"{path.name!r} is empty: at least a header is needed")
            check_once(columns, path.name)
            for row in reader:
                if row and len(row) != len(columns):
                    raise ValueError(
                        f"{path.name}, line {reader.line_num} has {len(row)} cells and the header {len(columns)}: "
                        "quote texts that hold commas"
                    )
                rows += [(reader.line_num, row)] if row else []
        except csv.Error as error:
            raise ValueError(f"{path.name}, line {reader.line_num} is not readable csv: {error}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path.name} is not UTF-8 ({error}): save it as UTF-8") from None
    return columns, rows


def _csv_facts(path: Path) -> Iterator[tuple[Mapping[str, Any], str, int]]:
    columns, rows = csv_rows(path)
    check_columns(columns, path.name)
    for number, (line, row) in enumerate(rows, start=1):
        values = {name: as_written(cell) or None for name, cell in zip(columns, row, strict=True)}
        if "separator" in values:  # nothing between prompt and answer is an empty cell
            values["separator"] = values["separator"] or ""
        yield values, f"{path.name}, line {line}", number


def check_once(columns: Sequence[str], name: str) -> None:
    """Refuse a table with two columns of one name."""
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise ValueError(f"{name!r} has the column {twice[0]!r} twice: remove or rename one")


def check_columns(columns: Iterable[Any], name: str) -> None:
    """Refuse a table whose columns are not those of facts.

    Raises:
        ValueError: a column is missing or there twice, or its name is almost that of a known column.
    """
    columns = [str(column) for column in columns]
    if missing := [c for c in _NEEDED if c not in columns]:
        raise ValueError(
            f"{name!r} has no column {', '.join(missing)}: it has {', '.join(columns)}, and needs {', '.join(_NEEDED)}"
        )
    check_once(columns, name)
    for column in columns:
        if near := _meant(column):
            raise ValueError(f"{name!r} has the column {column!r}, which is not known: is {near!r} meant?")


@cache
def _meant(column: str) -> str | None:
    """The column that a misspelt name is nearly, or None for a known name, and for one that is like none."""
    near = [] if column in _KNOWN else difflib.get_close_matches(column.strip().lower(), _KNOWN, 1, 0.8)
    return near[0] if near else None


def _from_frame(frame: pd.DataFrame, name: str) -> FactSet:
    check_columns(frame.columns, name)
    known = [name for name in _KNOWN if name in frame.columns]
    return facts_from_rows((dict(zip(known, row, strict=True)) for row in frame[known].itertuples(index=False)), name)


def _fact(row: Mapping[str, Any], where: str, number: int) -> Fact:
    if missing := [c for c in _NEEDED if _is_missing(row.get(c))]:
        raise ValueError(f"{where}: missing {', '.join(missing)}; a fact needs {', '.join(_NEEDED)}")
    defaults = {"fact_id": str(number), "relation": NO_RELATION}
    row = {**row, **{name: value for name, value in defaults.items() if _is_missing(row.get(name))}}
    for column in row:
        if near := _meant(str(column)):
            raise ValueError(f"{where}: {column!r} is not known: is {near!r} meant?")
    values: dict[str, Any] = {c: _text(row[c], c, where) for c in REQUIRED_COLUMNS}
    values |= {c: _texts(row.get(c), c, where) for c in LIST_COLUMNS}
    values |= {c: None if _is_missing(row.get(c)) else _text(row[c], c, where) for c in ("split", "target_new")}
    frequency = row.get("frequency")
    # A frame writes "unknown" as NaN; in a text it is a mistake.
    if _is_missing(frequency):
        values["frequency"] = None
    else:
        try:
            if isinstance(frequency, bool):
                raise ValueError
            values["frequency"] = float(frequency)  # pyright: ignore[reportArgumentType]
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{where}: frequency is {frequency!r}, expected a number") from None
    fact = Fact(**values)
    try:
        check_fact(fact)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return fact


def _text(value: Any, column: str, where: str) -> str:
    """A text, or a number as text; anything else is a mistake."""
    if isinstance(value, bool) or not isinstance(value, str | numbers.Number):
        raise ValueError(f"{where}: {column!r} is {value!r}, expected a text")
    text = str(value)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{where}: {column!r} is {text!r}, which holds half a character (a surrogate)")
    return text


def _texts(value: Any, column: str, where: str) -> tuple[str, ...]:
    if _is_missing(value) or (isinstance(value, str) and not value.strip()):
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError(f"{where}: {column!r} is {value!r}, expected a JSON list of texts") from None
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{where}: {column!r} is {value!r}, expected a list of texts")
    return tuple(_text(text, column, where) for text in value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA
