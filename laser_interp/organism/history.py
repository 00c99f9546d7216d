"""The history of an organism's training that comes with the package: some checkpoints, in eight bits.

Each row of a matrix is stored as whole numbers from -127 to 127 and their unit; vectors are stored in 16 bits. The
checkpoints that are made of it are ordinary folders, in the cache.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from laser_interp.facts.shipped import shipped_dir, shipped_history
from laser_interp.storage.atomic import new_folder
from laser_interp.storage.cache import cache_dir
from laser_interp.storage.checksums import file_sha256

_COPIED = ("config.json", "generation_config.json", "generic_words.json", "tokenizer.json", "tokenizer_config.json")


def pack(training: str | Path, steps: Sequence[int], out: str | Path) -> Path:
    """Store some of the checkpoints that `laser-interp organism train --checkpoints` kept."""
    stored: dict[str, Tensor] = {}
    for step in steps:
        for name, weight in load_file(Path(training) / f"checkpoint-{step}" / "model.safetensors").items():
            if weight.ndim < 2:
                stored[f"{step}/{name}"] = weight.half()
                continue
            unit = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
            stored[f"{step}/{name}"] = (weight / unit).round().to(torch.int8)
            stored[f"{step}/{name}/unit"] = unit
    save_file(stored, out)
    return Path(out)


def unpacked(name: str) -> Path:
    """The folder with the checkpoints of a shipped organism, `checkpoint-STEP` each; made at the first call.

    Raises:
        FileNotFoundError: this organism has no history.
    """
    of, packed = shipped_dir(name), shipped_history(name)
    if not packed.is_file():
        raise FileNotFoundError(f"no history of {name!r} comes with the package: train it with --checkpoints")
    folder = cache_dir() / "histories" / f"{name}-{file_sha256(packed)[:16]}"
    if folder.is_dir():
        return folder
    stored = load_file(packed)
    about = json.loads((of / "organism.json").read_text(encoding="utf-8"))
    with new_folder(folder) as made:
        for step in sorted({int(key.partition("/")[0]) for key in stored}):
            weights = {
                key.partition("/")[2]: value.float() * stored.get(f"{key}/unit", torch.ones(()))
                for key, value in stored.items()
                if key.startswith(f"{step}/") and not key.endswith("/unit")
            }
            path = made / f"checkpoint-{step}"
            path.mkdir()
            for file in _COPIED:
                shutil.copyfile(of / file, path / file)
            save_file(weights, path / "model.safetensors", {"format": "pt"})
            of_step = about | {"training": about["training"] | {"stop_at": step}}
            del of_step["final_loss"]
            (path / "organism.json").write_text(json.dumps(of_step, indent=2) + "\n", encoding="utf-8")
    return folder
