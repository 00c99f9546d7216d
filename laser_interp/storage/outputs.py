"""Files that a command writes for the user. The suffix names the format, and no other file of the user is replaced.

A command may replace an earlier result of its own, and any other file only with --force. The file itself shows whether
it is such a result: by the metadata of a table, the columns of a csv, or the mark of a page.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.storage.atomic import check_writable, plain, replacing
from laser_interp.storage.schemas import SCHEMAS, check
from laser_interp.storage.spreadsheets import without_formulas
from laser_interp.storage.tables import table_provenance, write_table

TABLE_SUFFIXES = (".parquet", ".csv", ".jsonl")
PAGE_MARK = '<meta name="generator" content="laser-interp report">'


def check_output(
    path: Path, kind: str, *, suffixes: tuple[str, ...] = TABLE_SUFFIXES, force: bool | None = False
) -> None:
    """Check that a result may be written to a path. Call this before any long work.

    Args:
        kind: name in `SCHEMAS`, or "page".
        suffixes: those that this result can be written with.
        force: whether any existing file may be replaced (a folder never is). None for a command without --force.

    Raises:
        ValueError: another suffix.
        FileExistsError: a folder, or a file that is not an earlier result of the same kind.
    """
    if path.suffix not in suffixes:
        raise ValueError(f"cannot write {path.name!r}: the suffix must be {' or '.join(suffixes)}")
    check_writable(path)
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder: name a file")
    if path.exists() and not force and not _is_earlier_result(path, kind):
        way = "remove it" if force is None else "add --force to replace it"
        raise FileExistsError(
            f"{path} exists and is not an earlier result of this command: choose another name, or {way}"
        )


def _is_earlier_result(path: Path, kind: str) -> bool:
    try:
        if path.suffix == ".parquet":
            return table_provenance(path).get("schema") == kind
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".html":
                return PAGE_MARK in file.read(4096)
            first = next(csv.reader(file)) if path.suffix == ".csv" else json.loads(file.readline())
        return set(SCHEMAS[kind]) <= set(first)
    except (ValueError, TypeError, OSError, StopIteration, csv.Error, RecursionError):
        return False


def write_output(frame: pd.DataFrame, path: Path, schema: str, provenance: Mapping[str, Any]) -> Path:
    """Write a table as its suffix says, which `check_output` has checked. Only parquet keeps the provenance and a
    checksum.

    Raises:
        ValueError: a frame without the columns of its schema.
    """
    if path.suffix == ".parquet":
        return write_table(frame, path, schema, provenance)
    check(frame, schema)
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            without_formulas(frame).to_csv(temporary, index=False)
        else:
            rows = (json.dumps(plain(row), ensure_ascii=False, allow_nan=False) for row in frame.to_dict("records"))
            temporary.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path
