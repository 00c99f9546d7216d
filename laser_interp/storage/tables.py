"""Results on disk: tidy parquet tables that say where they come from, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

METADATA_KEY = b"laser_interp"
FACTS = "facts.jsonl"  # in a run's folder: the facts it is of, so that it can be read without their source

_FACT = {"fact_id": "text", "prompt_id": "int", "subject": "text", "relation": "text", "object": "text"}
_EDIT = {"site": "text", "kind": "text", "rho": "float", "rank_kept": "float", "alpha": "float"}
_METRICS = {
    "top_answer": "text",
    "top_prob": "float",
    "category": "text",
    "logprob": "float",
    "rank": "int",
    "p_generic": "float",
    "generic_masked_top1": "bool",
    "candidate_rank": "float",
}

# Every table's columns in one place; checked when written and when read.
SCHEMAS: dict[str, dict[str, str]] = {
    "scores": _FACT
    | {"split": "text", "frequency": "float", "edit": "text"}
    | _EDIT
    | _METRICS
    | {
        "top1": "bool",
        "top5": "bool",
        "top10": "bool",
        "correct": "bool",
        "generic_masked_rank": "int",
        "top_token": "int",
        "candidate_top1": "float",
        "n_answer_tokens": "int",
        "logprob_per_token": "float",
    },
    "sweep_part": {"cell": "text", "fact_id": "text", "prompt_id": "int", "subject": "text", "split": "text"}
    | _EDIT
    | _METRICS,
    "steps": {"step": "int", "site": "text", "rho": "float", "rank_kept": "float"}
    | {"top1": "float", "loss": "float", "n_not_finite": "int", "kept": "bool", "edit": "text"},
    "cells": {"cell": "text"}
    | _EDIT
    | {
        "layer": "float",
        "matrix": "text",
        "split": "text",
        "n": "int",
        "top1": "float",
        "top5": "float",
        "top10": "float",
        "loss": "float",
        "loss_change_se": "float",
        "p_generic": "float",
        "generic_masked_top1": "float",
        "candidate_top1": "float",
        "n_not_finite": "int",
    },
    "counts": {
        "fact_id": "text",
        "n_docs": "int",
        "n_subject": "int",
        "n_object": "int",
        "n_both": "int",
        "corpus": "text",
        "unit": "text",
        "normaliser": "text",
        "approximate": "bool",
    },
    "task_part": {"cell": "text", "n": "int", "accuracy": "float", "score": "float", "loss": "float"},
    "judged": _FACT | {"split": "text", "edit": "text", "prediction": "text", "correct": "bool", "score": "float"},
    "count_part": {"part": "text", "index": "int", "count": "int"},
    "answers": _FACT
    | {"split": "text", "edit": "text", "share": "float", "answer": "text", "probability": "float", "category": "text"}
    | {"similarity": "float"},
}
_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda c: pd.api.types.is_string_dtype(c) or pd.api.types.is_object_dtype(c),
    "int": pd.api.types.is_integer_dtype,
    "float": pd.api.types.is_numeric_dtype,
    "bool": pd.api.types.is_bool_dtype,
}


def check(frame: pd.DataFrame, schema: str) -> pd.DataFrame:
    """The frame, if it has the columns of its schema with the right types; others may follow.

    Raises:
        ValueError: a column is missing or of the wrong type; the message names it.
    """
    for column, kind in SCHEMAS[schema].items():
        if column not in frame.columns:
            raise ValueError(f"a table of {schema!r} needs the column {column!r}; it has {', '.join(frame.columns)}")
        if len(frame) and not _KINDS[kind](frame[column]):
            raise ValueError(f"column {column!r} of {schema!r} is {frame[column].dtype}, expected {kind}")
    return frame


def code_version() -> str:
    """Version of this package as it is installed."""
    try:
        return version("laser-interp")
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        if os.path.exists(name):
            os.unlink(name)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block succeeds: it appears whole or not at all.

    Raises:
        FileExistsError: `out` is there and is not an empty folder; before anything is done.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists: remove it or choose another folder for the checkpoint")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        folder.mkdir()
        yield folder
        if out.exists():
            out.rmdir()
        os.replace(folder, out)


def write_table(frame: pd.DataFrame, path: str | Path, schema: str | None, provenance: Mapping[str, Any]) -> Path:
    """Write a parquet table with its provenance in the file's metadata.

    Args:
        schema: name in `SCHEMAS`, or None for a table whose columns are its own.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if schema is not None:
        check(frame, schema)
    bare = frame.copy(deep=False)
    bare.attrs = {}
    table = pa.Table.from_pandas(bare, preserve_index=False)
    told = json.dumps({"schema": schema, "code_version": code_version(), **provenance}, sort_keys=True)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA_KEY: told.encode()})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
    return path


def read_table(path: str | Path, schema: str | None = None) -> pd.DataFrame:
    """Read a table; its provenance is in `frame.attrs["provenance"]`.

    Raises:
        FileNotFoundError: there is none; the message says what makes it.
        ValueError: it is not a readable table of that schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no table {path}: run the step that writes it first (`laser-interp reproduce --out …`)"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a readable parquet table: {error}") from error
    frame = table.to_pandas()
    frame.attrs["provenance"] = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    return check(frame, schema) if schema is not None else frame


def read_whole(path: Path, schema: str) -> pd.DataFrame | None:
    """A part of a run, or None where there is none yet; a damaged one is removed, with a warning."""
    if not path.is_file():
        return None
    try:
        return read_table(path, schema)
    except ValueError as error:
        warnings.warn(f"{path.parent.name}/{path.name} is damaged and is computed again: {error}", stacklevel=3)
        path.unlink()
        return None


def write_json(value: Any, path: str | Path) -> Path:
    """Write JSON, whole or not at all; NaN becomes null."""
    path = Path(path)
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    return value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder: what a killed process left half-written is removed, another process is refused.

    Raises:
        ValueError: another process holds it. A process that was killed holds nothing.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another process is writing to {folder}: wait for it to end, or choose another folder"
        ) from None
    try:
        for half_written in folder.rglob(".*.parquet.*"):
            half_written.unlink()
        yield
    finally:
        lock.release()


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Say of a failed write what is kept, and how to go on."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError | FileExistsError):
            raise
        raise OSError(
            error.errno,
            f"a result could not be written ({error.strerror or error}); what was computed before it is kept in "
            f"{folder}: make room and run the same again",
        ) from error


def open_run(folder: str | Path, settings: Mapping[str, Any]) -> Path:
    """A run's folder with its settings in `run.json`; the same settings resume it.

    Raises:
        ValueError: the folder holds a run with other settings; the message shows the difference.
    """
    folder = Path(folder)
    told = _plain({"code_version": code_version(), **settings})
    path = folder / "run.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            before = {"run.json": "unreadable"}
        changed = sorted(k for k in before.keys() | told.keys() if before.get(k) != told.get(k))
        if changed:
            shown = "; ".join(f"{k}: {before.get(k)!r} there, {told.get(k)!r} now" for k in changed)
            raise ValueError(f"{folder} holds a run with other settings ({shown}): choose another folder or remove it")
        return folder
    write_json(told, path)
    return folder
