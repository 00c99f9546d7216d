"""Rows of a file, as dictionaries: the form in which published sets are read."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from laser_interp.facts.files import csv_rows, json_lines, read_parquet

Rows = list[dict[str, Any]]
Drop = Callable[[str], None]  # is told why a row was left out


def fact_row(fact_id: Any, subject: str, relation: str, answer: str, prompt: str, **more: Any) -> dict[str, Any]:
    """A fact as a dictionary with the columns of a fact file."""
    row = {"fact_id": str(fact_id), "subject": subject, "relation": relation, "object": answer, "prompt": prompt}
    return row | more


def read_records(path: str | Path) -> Rows:
    """Rows of a json (an array, or an object with one under "examples", "data" or "samples"), jsonl, csv, tsv or
    parquet file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}: expected a .json, .jsonl, .csv, .tsv or .parquet file")
    if path.suffix == ".parquet":
        rows = read_parquet(path).to_dict("records")
        return [{str(k): v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()} for row in rows]
    if path.suffix in (".csv", ".tsv"):
        columns, rows = csv_rows(path, "\t" if path.suffix == ".tsv" else ",")
        return [dict(zip(columns, row, strict=True)) for _, row in rows]
    if path.suffix == ".jsonl":
        return [row for _, row in json_lines(path)]
    if path.suffix == ".json":
        return _json_rows(path)
    raise ValueError(f"cannot read {path.name!r}: expected .json, .jsonl, .csv, .tsv or .parquet")


def check_rows(rows: Rows, columns: Sequence[str], where: str, title: str) -> Rows:
    """The rows of a published set.

    Raises:
        ValueError: one of them lacks a column; the message names the row.
    """
    for number, row in enumerate(rows, start=1):
        if missing := [column for column in columns if column not in row]:
            raise ValueError(
                f"{where}, row {number} is not in the schema of {title}: no {', '.join(missing)} (it has "
                f"{', '.join(map(str, row))})"
            )
    return rows


def _json_rows(path: Path) -> Rows:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not valid JSON: {error}") from None
    if isinstance(value, dict):
        lists = (value.get(key) for key in ("examples", "data", "samples"))
        inner = next((rows for rows in lists if isinstance(rows, list)), None)
        # What belongs to all rows is copied into each of them.
        shared = {k: v for k, v in value.items() if not isinstance(v, list) or k == "prompt_templates"}
        value = [{**shared, **row} for row in inner] if inner is not None else [value]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise ValueError(f"{path.name} is no array of objects")
    return value
