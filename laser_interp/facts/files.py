"""Fact files: reading them, from a path, a frame or a list of dictionaries. `FactSet.save` writes them."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.facts.fact_set import LIST_COLUMNS, REQUIRED_COLUMNS, Fact, FactSet
from laser_interp.facts.shipped import SHIPPED, shipped_dir


def load_facts(source: str | Path | Sequence[Mapping[str, Any]] | pd.DataFrame) -> FactSet:
    """Read a fact set.

    Args:
        source: "organism" or "organism-control" (shipped), a .jsonl / .csv / .parquet file with the
            columns `fact_id, subject, relation, object, prompt` and optionally `paraphrases, aliases,
            candidates, split, frequency` (lists are JSON lists in a csv), a frame, or a list of dicts.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty file, a broken line (with its number), a missing column, a duplicate id.
    """
    if isinstance(source, pd.DataFrame):
        return _from_frame(source, "facts")
    if not isinstance(source, str | Path):
        return facts_from_rows(source)
    shipped = str(source) in SHIPPED
    path = shipped_dir(str(source)) / "facts.jsonl" if shipped else Path(source)
    name = str(source) if shipped else path.name
    if not path.is_file():
        raise FileNotFoundError(
            f"no fact file {str(source)!r}: expected a .jsonl, .csv or .parquet file, or one of {', '.join(SHIPPED)}"
        )
    if path.suffix == ".jsonl":
        return FactSet(tuple(_jsonl_facts(path)), name=name)
    if path.suffix == ".parquet":
        return _from_frame(pd.read_parquet(path), name)
    if path.suffix == ".csv":
        try:
            # Everything is text until checked: pandas would read the subject "NA" as missing.
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        except pd.errors.EmptyDataError:
            raise ValueError(f"the fact file {name!r} is empty: at least one fact is needed") from None
        except pd.errors.ParserError as error:
            raise ValueError(f"{name!r} is not a readable csv file: {error}") from error
        return _from_frame(frame.replace("", None), name)
    raise ValueError(f"cannot read facts from {name!r}: the suffix must be .jsonl, .csv or .parquet")


def facts_from_rows(rows: Iterable[Mapping[str, Any]], name: str = "facts") -> FactSet:
    """Facts from dictionaries with the columns of a fact file."""
    return FactSet(tuple(_fact(row, f"{name}, row {i}") for i, row in enumerate(rows, start=1)), name=name)


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each line of a .jsonl file is, and its value; blank lines are skipped.

    Raises:
        ValueError: a line that is not JSON; the message names it.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path.name}, line {number}"
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where} is not valid JSON: {error}") from None


def _jsonl_facts(path: Path) -> Iterator[Fact]:
    for where, row in json_lines(path):
        if not isinstance(row, dict):
            raise ValueError(f"{where} is {type(row).__name__}, expected a JSON object with a fact's columns")
        yield _fact(row, where)


def _from_frame(frame: pd.DataFrame, name: str) -> FactSet:
    if missing := [c for c in REQUIRED_COLUMNS if c not in frame.columns]:
        raise ValueError(
            f"{name!r} has no column {', '.join(missing)}: it has {', '.join(map(str, frame.columns))}, "
            f"and needs {', '.join(REQUIRED_COLUMNS)}"
        )
    known = [f.name for f in fields(Fact) if f.name in frame.columns]
    return facts_from_rows((dict(zip(known, row, strict=True)) for row in frame[known].itertuples(index=False)), name)


def _fact(row: Mapping[str, Any], where: str) -> Fact:
    if missing := [c for c in REQUIRED_COLUMNS if _is_missing(row.get(c))]:
        raise ValueError(f"{where}: missing {', '.join(missing)}; a fact needs {', '.join(REQUIRED_COLUMNS)}")
    values: dict[str, Any] = {c: str(row[c]) for c in REQUIRED_COLUMNS}
    values |= {c: _texts(row.get(c), c, where) for c in LIST_COLUMNS}
    values["split"] = None if _is_missing(row.get("split")) else str(row["split"])
    frequency = row.get("frequency")
    try:
        values["frequency"] = None if _is_missing(frequency) else float(frequency)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        raise ValueError(f"{where}: frequency is {frequency!r}, expected a number") from None
    return Fact(**values)


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
    return tuple(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA
