"""bfloat16 for screening: measure whether this machine multiplies faster in it, and run a model in it for a while.

A processor with AVX512-BF16 or AMX, or a recent GPU, multiplies at least twice as fast in bfloat16 as in fp32. A mean
log-probability is then accurate to about .02 nats. This is enough to drop hopeless cells, but not to report results.
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from laser_interp.models.loaded_model import LoadedModel
from laser_interp.storage.atomic import write_json
from laser_interp.storage.cache import cache_dir

CLEARLY = 1.4  # the least speed-up that counts; casting the weights takes a part of the time that is saved
_DEVICES = ("cpu", "cuda")
_TOKENS = {"cpu": 256, "cuda": 16384}  # about as many as a race runs at once; with few, a GPU only waits
_REPEATS = 7


@contextmanager
def in_bfloat16(model: LoadedModel) -> Iterator[None]:
    """Multiply the model's matrices in bfloat16 while the block runs. Its weights do not change: copies are cast."""
    parameters = [p for p in model.bridge.parameters() if p.is_floating_point() and not p.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)  # autocast keeps the copies of these only
        model._state.screening = True
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16):
            yield
    finally:
        model._state.screening = False
        for parameter in parameters:
            parameter.requires_grad_(False)


def is_screened(model: LoadedModel) -> bool:
    """Whether the model's matrices are multiplied in bfloat16 right now, for screening."""
    return model._state.screening


def in_own_numbers(device: torch.device) -> AbstractContextManager[Any]:
    """While the block runs, matrices are multiplied in the model's own dtype again."""
    return torch.autocast(device.type, enabled=False) if device.type in _DEVICES else nullcontext()


def bfloat16_is_faster(model: LoadedModel) -> bool:
    """Whether products of the model's own shapes are clearly faster in bfloat16 than in fp32.

    It is measured once for each device, number of threads and shape. The result is kept on disk, so that later searches
    screen in the same dtype.
    """
    if model.dtype != torch.float32 or model.device.type not in _DEVICES:
        return False
    on_gpu = model.device.type == "cuda"
    device = torch.cuda.get_device_name(model.device) if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    key = f"{device}, {_TOKENS[model.device.type]} x {model.d_model} x {model.d_mlp}, torch {torch.__version__}"
    path = cache_dir() / "bfloat16.json"
    known = _read(path)
    if key not in known:
        known[key] = _ratio(model.device, model.d_model, model.d_mlp)
        with suppress(OSError):  # then it is measured again next time
            write_json(known, path)
    return known[key] >= CLEARLY


def _read(path: Path) -> dict[str, float]:
    try:
        return {key: float(value) for key, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _ratio(device: torch.device, d_in: int, d_out: int) -> float:
    """How many times as fast bfloat16 is."""
    from torch.utils.benchmark import Timer  # half a second

    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(_TOKENS[device.type], d_in, dtype=dtype, device=device)
        w = torch.ones(d_in, d_out, dtype=dtype, device=device)
        timer = Timer("torch.mm(x, w)", globals={"x": x, "w": w}, num_threads=torch.get_num_threads())
        seconds[dtype] = min(timer.timeit(1).median for _ in range(_REPEATS))  # it waits for a GPU
    return seconds[torch.float32] / seconds[torch.bfloat16]
