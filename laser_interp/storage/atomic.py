"""Files and folders that appear whole or not at all.

Everything is written beside its destination under a name of our own, `.NAME.HOST-PID.partial`, and renamed when it is
complete. What a killed process left behind is removed by the next one that writes the same thing.
"""

import glob
import json
import math
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SUFFIX = ".partial"


def check_writable(path: str | Path) -> Path:
    """Check that a file or folder can be made at a path, before any long work.

    Raises:
        ValueError: an empty path.
        OSError: the nearest folder that is there takes no files.
    """
    if not str(path):
        raise ValueError("the path of the output is empty: expected the name of a file or folder")
    path = Path(path)
    there = next((folder for folder in (path, *path.absolute().parents) if folder.is_dir()), Path("/"))
    if (blocked := next((p for p in path.absolute().parents if p.is_file()), None)) is not None:
        raise NotADirectoryError(f"{path} cannot be written: {blocked} is a file, not a folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"{path} cannot be written: {there} takes no files ({error.strerror})") from error
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block succeeds.

    Raises:
        FileExistsError: `out` exists and is not an empty folder. Nothing is done then.
    """
    check_writable(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists: remove it or choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with _partial(out) as temporary:
        temporary.mkdir()
        yield temporary
        try:
            if out.exists():
                out.rmdir()
            os.replace(temporary, out)
        except OSError as error:
            if out.is_dir() and any(out.iterdir()):
                raise FileExistsError(
                    f"{out} was written by another process meanwhile: nothing of it was replaced; use it, or choose "
                    "another folder"
                ) from error
            raise


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` for unfinished work. Whatever still has this name at the end is removed."""
    ours = f".{path.name}.{socket.gethostname()}-"
    for old in path.parent.glob(f"{glob.escape(ours)}*{_SUFFIX}"):
        pid = old.name.removeprefix(ours).removesuffix(_SUFFIX)
        if not (pid.isdecimal() and _is_alive(int(pid))):
            _remove(old)
    temporary = path.with_name(f"{ours}{os.getpid()}{_SUFFIX}")
    _remove(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # there, os.kill would end it
        import psutil

        return psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(text: str, path: str | Path) -> Path:
    """Write a text file, whole or not at all."""
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(value: Any, path: str | Path) -> Path:
    """Write JSON, whole or not at all. Numbers that JSON does not know (NaN, infinity) become null."""
    return write_text(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def plain(value: Any) -> Any:
    """A value as JSON holds it: numpy scalars become numbers, tuples lists, NaN and infinity None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
