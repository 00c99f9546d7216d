"""The layout of a run's folder, and how a run is opened, locked, resumed and read again.

RUN/run.json            settings and provenance; the same settings resume the run
RUN/facts.jsonl         the facts it is of
RUN/parts/NAME.parquet  scores, as they come
RUN/tables/NAME.parquet what was found
RUN/figures/, RUN/summary.json, RUN/REPORT.md
"""

import errno
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.storage.atomic import check_writable, plain, replacing, write_json
from laser_interp.storage.provenance import code_version, settings_sha256
from laser_interp.storage.tables import read_table, write_table

RUN, FACTS, SUMMARY, REPORT, EDIT = "run.json", "facts.jsonl", "summary.json", "REPORT.md", "edit.json"
FIGURES_LINE = "Figures, in "  # how the last line of a report begins
SINGLE = "single"  # the study of the single edit, in the folder of that of several
PARTS, TABLES, FIGURES = "parts", "tables", "figures"
SCREENED = "-screened"  # how the names of parts end that were scored in bfloat16
RUN_SCHEMA = 2  # of the layout and of run.json


@dataclass(frozen=True)
class RunFolder:
    """A run's folder while it is being written; made by `open_run`.

    Attributes:
        path: the folder.
        settings: model, facts and options of the run; equal settings resume it.
    """

    path: Path
    settings: Mapping[str, Any]

    def read_part(self, name: str, schema: str) -> pd.DataFrame | None:
        """What was written under this name by a run with these settings, or None. A part that cannot be used is
        removed, with a warning."""
        path = self.path / PARTS / f"{name}.parquet"
        if not path.is_file():
            return None
        try:
            return read_table(path, schema, settings_sha256(self.settings))
        except ValueError as error:
            warnings.warn(f"{path.parent.name}/{path.name} is not used and is computed again: {error}", stacklevel=2)
            path.unlink()
            return None

    def write_part(self, name: str, frame: pd.DataFrame, schema: str, **about: Any) -> Path:
        """Keep a part, so that a run that is stopped goes on from it."""
        told = {"settings_sha256": settings_sha256(self.settings), "part": name} | about
        return write_table(frame, self.path / PARTS / f"{name}.parquet", schema, told)

    def write_table(self, name: str, frame: pd.DataFrame, schema: str | None = None, **about: Any) -> Path:
        """Write a result with the run's provenance."""
        return write_table(frame, self.path / TABLES / f"{name}.parquet", schema, dict(self.settings) | about)


@dataclass(frozen=True)
class InMemory(RunFolder):
    """A run that is not saved: parts are kept while it lasts, and tables are the caller's alone."""

    parts: dict[str, pd.DataFrame] = field(default_factory=dict)

    def read_part(self, name: str, schema: str) -> pd.DataFrame | None:
        return self.parts.get(name)

    def write_part(self, name: str, frame: pd.DataFrame, schema: str, **about: Any) -> None:
        self.parts[name] = frame

    def write_table(self, name: str, frame: pd.DataFrame, schema: str | None = None, **about: Any) -> None:
        """Nothing."""


@contextmanager
def open_run(path: str | Path | None, settings: Mapping[str, Any], facts: Any = None) -> Iterator[RunFolder]:
    """Lock a run's folder while the block runs. A folder that was made with the same settings is resumed. With None
    nothing is saved.

    Args:
        facts: a set that is kept in the folder, so that the run can be read without its source; this room does not know
            the class.

    Raises:
        ValueError: the folder holds a run with other settings (the message shows the difference), or another process
            is writing to it. Nothing in the folder is touched then.
        OSError: the disk is full; the message says what is kept, and how to go on.
    """
    if path is None:
        yield InMemory(Path(), {})
        return
    path = check_writable(path)
    settings = plain({"run_schema": RUN_SCHEMA, "code_version": code_version(), **settings})
    _refuse_other_settings(path, settings)
    with _locked(path), _keeping(path):
        _refuse_other_settings(path, settings)
        if not (path / RUN).is_file():
            write_json(settings, path / RUN)
        if facts is not None:
            with replacing(path / FACTS) as temporary:
                facts.save(temporary, suffix=".jsonl")
        yield RunFolder(path, settings)


def _refuse_other_settings(path: Path, settings: Mapping[str, Any]) -> None:
    before = run_settings(path)
    if before is None:
        return
    if changed := sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k)):
        shown = "; ".join(f"{k}: {before.get(k)!r} there, {settings.get(k)!r} now" for k in changed)
        raise ValueError(f"{path} holds a run with other settings ({shown}): choose another folder or remove it")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder. A process that was killed holds nothing."""
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
        yield
    finally:
        lock.release()


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """If the disk is full, make the error say what is saved and how to continue."""
    try:
        yield
    except OSError as error:  # also raised by transformers and the hub, for other reasons
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"a result could not be written ({error.strerror}); earlier results are kept in {folder}: make room on the "
            "disk and run the same command again",
        ) from error


# --- reading a run ---------------------------------------------------------------------------------


def run_settings(folder: str | Path) -> dict[str, Any] | None:
    """What `run.json` says, or None where there is none.

    Raises:
        ValueError: it is not readable.
    """
    path = Path(folder) / RUN
    return read_json(path) if path.is_file() else None


def read_json(path: str | Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): remove it, or the folder, and run again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {type(value).__name__}, expected a JSON object: remove it and run again")
    return value


def find_table(folder: str | Path, name: str) -> Path | None:
    """Where a run keeps a table, or None."""
    path = Path(folder) / TABLES / f"{name}.parquet"
    return path if path.is_file() else None


def read_tables(folder: str | Path, names: list[str] | None = None) -> dict[str, pd.DataFrame]:
    """A run's tables by name: all of them, or those of `names` that exist."""
    paths = sorted((Path(folder) / TABLES).glob("*.parquet"))
    return {path.stem: read_table(path) for path in paths if names is None or path.stem in names}
