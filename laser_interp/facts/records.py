"""Rows of a file, as dictionaries: the form in which published sets are read."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.facts.files import json_lines

Rows = list[dict[str, Any]]
Drop = Callable[[str], None]  # is told why a row was left out


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
    if path.suffix in (".parquet", ".csv", ".tsv"):
        try:
            return _frame_rows(_read_frame(path))
        except Exception as error:  # pyarrow and pandas raise many kinds
            raise ValueError(f"{path.name} is not a readable {path.suffix} file: {error}") from error
    if path.suffix == ".jsonl":
        rows = []
        for where, row in json_lines(path):
            if not isinstance(row, dict):
                raise ValueError(f"{where} is {type(row).__name__}, expected an object")
            rows.append(row)
        return rows
    if path.suffix == ".json":
        return _json_rows(path)
    raise ValueError(f"cannot read {path.name!r}: expected .json, .jsonl, .csv, .tsv or .parquet")


def _read_frame(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    separator = "\t" if path.suffix == ".tsv" else ","
    # Without index_col=False, rows with one cell too many would move their first cell into an index.
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, index_col=False)


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


def _frame_rows(frame: pd.DataFrame) -> Rows:
    rows = frame.to_dict("records")
    return [{str(k): v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()} for row in rows]
