"""Files with the results of a benchmark: its rows, the command, the machine and the versions of the libraries."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "results"  # those that the documentation shows


def write(rows: list[dict[str, Any]], path: str | None) -> None:
    """Write the rows to a JSON file, where a path is given."""
    if path is None:
        return
    about = {
        "command": " ".join(["python -m benchmarks", *_without_json(sys.argv[1:])]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": ", ".join([platform.machine(), f"{os.cpu_count()} processor cores", *_gpus()]),
        "versions": {name: version(name) for name in ("laser-interp", "torch", "transformers", "transformer-lens")},
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n", encoding="utf-8")


def _gpus() -> list[str]:
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _without_json(arguments: list[str]) -> list[str]:
    """The words of the command without `--json FILE`."""
    if "--json" not in arguments:
        return arguments
    at = arguments.index("--json")
    return arguments[:at] + arguments[at + 2 :]


def read(name: str) -> dict[str, Any]:
    """The results of a benchmark by name, from the folder of those that the documentation shows."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
