"""Numbers that do not change unless somebody means it: tables and sentences, kept in `tests/golden`.

After a change that is meant, `LASER_INTERP_GOLDEN=write pytest tests -k golden` writes them anew: look at what differs.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).parent / "golden"
_NUMBER = re.compile(r"\d+\.\d+")


def plain(value: Any) -> Any:
    """Numbers with six digits, and tables as columns, as JSON holds them."""
    if isinstance(value, pd.Series):
        return plain(value.to_dict())
    if isinstance(value, pd.DataFrame):
        own = {} if value.index.equals(pd.RangeIndex(len(value))) else {"index": plain(value.index.tolist())}
        return own | {str(column): plain(value[column].tolist()) for column in value}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | float | np.number):
        return str(value) if not np.isfinite(value) else float(f"{value:.6g}")
    return value if value is None else re.sub(r"sha256=\w+", "sha256=…", str(value))  # of the last digits


def differences(found: Any, known: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two plain values differ, in words."""
    if isinstance(known, Mapping) and isinstance(found, Mapping):
        names = [*known, *(name for name in found if name not in known)]
        return [
            line
            for name in names
            for line in differences(found.get(name), known.get(name), tolerance, f"{where}/{name}")
        ]
    if isinstance(known, list) and isinstance(found, list) and len(known) == len(found):
        pairs = enumerate(zip(found, known, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{where}[{i}]")]
    if isinstance(known, str) and isinstance(found, str) and found != known:
        (own, numbers), (known_own, known_numbers) = (
            (_NUMBER.split(text), _NUMBER.findall(text)) for text in (found, known)
        )
        same = own == known_own and all(
            abs(float(a) - float(b)) <= tolerance + 1.1 * 10.0 ** -len(b.partition(".")[2])
            for a, b in zip(numbers, known_numbers, strict=True)
        )  # another machine may round the last digit to the other side
    elif isinstance(known, float) and isinstance(found, float):
        same = abs(found - known) <= tolerance * max(1.0, abs(known))
    else:
        same = found == known
    return [] if same else [f"{where} is {found!r}, and was {known!r}"]


def refused(function: Callable[..., object], *arguments: object) -> str:
    """What a call that is refused says."""
    with pytest.raises((ValueError, OSError), match=".") as error:
        function(*arguments)
    return str(error.value)


def check_golden(name: str, numbers: Mapping[str, Any], *, tolerance: float = 2e-5) -> None:
    """Compare numbers, tables and sentences with those that are kept under a name.

    Args:
        tolerance: relative for numbers above 1, else absolute; larger where models compute them.
    """
    path, found = FOLDER / f"{name.replace(' ', '-')}.json", plain(numbers)
    if os.environ.get("LASER_INTERP_GOLDEN") == "write":
        path.write_text(json.dumps(found, indent=None, separators=(",", ":"), ensure_ascii=False) + "\n", "utf-8")
    wrong = differences(found, json.loads(path.read_text("utf-8")), tolerance)
    assert not wrong, "\n".join(wrong[:20])
