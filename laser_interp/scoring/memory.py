"""How much memory activations may take."""

import math
import re

import torch

from laser_interp.models.model import Model

CPU_MEMORY = 2 << 30  # bytes

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_memory(memory: int | str | None, model: Model) -> int:
    """Bytes that activations may take: a number, "800MB", "2GiB"; None is a default for the device.

    Raises:
        ValueError: text of another form, or less than a megabyte.
    """
    if memory is None:
        if model.device.type == "cuda":
            total = torch.cuda.get_device_properties(model.device).total_memory
            return int(0.6 * max(total - model.n_bytes, total // 10))
        return CPU_MEMORY
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", memory)
        if not found or found[2].upper() not in _UNITS:
            raise ValueError(f"memory is {memory!r}: expected a number of bytes, or text such as '800MB' or '2GiB'")
        try:
            memory = int(float(found[1]) * _UNITS[found[2].upper()])
        except (ValueError, OverflowError):
            raise ValueError(f"memory is {memory!r}: expected a number before the unit, as in '2GiB'") from None
    if not 1_000_000 <= memory < math.inf:
        raise ValueError(f"memory is {memory} bytes: at least a megabyte is needed")
    return int(memory)
