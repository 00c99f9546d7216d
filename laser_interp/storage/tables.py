"""Parquet tables that say where they come from and notice when they were damaged.

A table's metadata holds its schema's name, its provenance, its number of rows, and a checksum of the whole file. The
checksum is computed with zeros in its own place, so that one flipped byte anywhere in the file is noticed.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.storage.atomic import plain, replacing
from laser_interp.storage.provenance import code_version
from laser_interp.storage.schemas import check

_ABOUT, _CHECKSUM = b"laser_interp", b"laser_interp_sha256"
_UNSET = b"0" * 64
# How parquet stores a key and its value: the key, two bytes that announce 64 letters, the value.
_STORED = re.compile(_CHECKSUM + rb"\x18\x40([0-9a-f]{64})")


def write_table(frame: pd.DataFrame, path: str | Path, schema: str | None, provenance: Mapping[str, Any]) -> Path:
    """Write a parquet table.

    Args:
        schema: name in `SCHEMAS`, or None for a table whose columns are its own.
        provenance: what the table is of; it travels in the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if schema is not None:
        check(frame, schema)
    bare = frame.copy(deep=False)
    bare.attrs = {}
    table = pa.Table.from_pandas(bare, preserve_index=False)
    about = {"schema": schema, "code_version": code_version(), "rows": len(frame), **provenance}
    metadata = {_ABOUT: json.dumps(plain(about), sort_keys=True).encode(), _CHECKSUM: _UNSET}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    data = buffer.getvalue()
    place = _STORED.search(data)
    assert place is not None, "pyarrow stores metadata in another form than parquet's specification says"
    start, stop = place.span(1)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data[:start] + hashlib.sha256(data).hexdigest().encode() + data[stop:])
    return path


def read_table(path: str | Path, schema: str | None = None, settings_sha256: str | None = None) -> pd.DataFrame:
    """Read a table; its provenance is in `frame.attrs["provenance"]`.

    Args:
        settings_sha256: hash of the settings of the run that a part must belong to.

    Raises:
        FileNotFoundError: there is none; the message says what makes it.
        ValueError: it is damaged, no table of that schema, or a part of another run.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no table {path}: run the step that writes it first, as in `laser-interp reproduce --out …`"
        )
    try:
        data = path.read_bytes()
        table = pq.read_table(io.BytesIO(data))
        frame, about = table.to_pandas(), _about(table.schema.metadata)
    except Exception as error:  # pyarrow raises many kinds on damaged files
        raise ValueError(f"{path} is not a readable parquet table: {error}") from error
    _check_intact(data, frame, about, path)
    if settings_sha256 is not None and about.get("settings_sha256") != settings_sha256:
        raise ValueError(f"{path} belongs to a run with other settings: remove it and run the same command again")
    frame.attrs["provenance"] = about
    return check(frame, schema) if schema is not None else frame


def table_provenance(path: str | Path) -> dict[str, Any]:
    """A table's provenance, without reading its rows; empty for a table of another program.

    Raises:
        ValueError: no parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _about(pq.read_schema(path).metadata)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable parquet table: {error}") from error


def _about(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    about = json.loads((metadata or {}).get(_ABOUT, b"{}"))
    return about if isinstance(about, dict) else {}


def _check_intact(data: bytes, frame: pd.DataFrame, about: Mapping[str, Any], path: Path) -> None:
    """Refuse a table of this package that has changed since it was written. Tables of other programs are not checked.

    Raises:
        ValueError: its checksum or its number of rows differs.
    """
    place = _STORED.search(data)
    if place is None:
        if about:
            raise ValueError(
                f"{path} has no checksum, as tables of older versions: make it again. If you trust it, write it anew "
                "with pandas.read_parquet(PATH).to_parquet(PATH)"
            )
        return
    start, stop = place.span(1)
    if hashlib.sha256(data[:start] + _UNSET + data[stop:]).hexdigest().encode() != place[1]:
        raise ValueError(f"{path} is damaged: its checksum differs from the one it was written with")
    if about.get("rows") != len(frame):
        raise ValueError(f"{path} is damaged: it has {len(frame)} rows and was written with {about.get('rows')}")
