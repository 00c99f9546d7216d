"""Checksums of a folder's files, so that one changed byte anywhere is noticed when the folder is read again."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laser_interp.storage.atomic import write_json
from laser_interp.storage.provenance import settings_sha256
from laser_interp.storage.run_folder import read_json

CHECKSUMS = "checksums.json"
_ENDS = 64 << 10  # bytes


def write_checksums(folder: Path) -> None:
    """Note the checksum of every file below a folder in `checksums.json`; lock files hold no data and are left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    files = {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths}
    write_json(with_checksum({"files": files}), folder / CHECKSUMS)


def check_folder(folder: Path, way_out: str) -> bool:
    """Compare every file with its checksum. Files that were added later do not matter.

    Args:
        way_out: what to do about a folder that is damaged, to end the message.

    Returns:
        False where the folder has no `checksums.json`.

    Raises:
        ValueError: a file is missing or differs, or `checksums.json` itself does.
    """
    if not (folder / CHECKSUMS).is_file():
        return False
    try:
        files = read_checked_json(folder / CHECKSUMS)["files"]
    except (ValueError, KeyError):
        raise ValueError(f"{folder} is damaged: {CHECKSUMS} is not as it was written; {way_out}") from None
    for name, digest in files.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            raise ValueError(f"{folder} is damaged: {name} is missing or not as it was written; {way_out}")
    return True


def with_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the checksum of its other entries under "checksum"."""
    return dict(value) | {"checksum": settings_sha256(value)}


def read_checked_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that has the checksum of `with_checksum`.

    Raises:
        ValueError: the checksum does not match: the file is damaged.
    """
    value = read_json(path)
    checksum = value.pop("checksum", None)
    if checksum != settings_sha256(value):
        raise ValueError(f"{path} is not as it was written: remove it and run the same command again")
    return value


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name_size_and_ends(path: Path) -> bytes:
    """What tells two states of a large file apart at once. It misses a change in the middle at equal size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(_ENDS)
        file.seek(max(size - _ENDS, 0))
        return f"{path.name} {size}\n".encode() + beginning + file.read(_ENDS)
