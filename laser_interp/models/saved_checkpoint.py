"""Checkpoints: writing a model with some matrices replaced."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.weights import stored_at, stored_state
from laser_interp.storage.checksums import write_checksums

GENERIC_WORDS = "generic_words.json"
SHARD_BYTES = 5 * 10**9


def write(model: LoadedModel, folder: Path, dense: Mapping[tuple[int, str], Tensor]) -> None:
    """Write a model into a folder, with its checksums; see `Model.save_checkpoint`."""
    from huggingface_hub import save_torch_state_dict

    state = {name: tensor.detach() for name, tensor in stored_state(model).items()}
    copied: set[str] = set()
    for (layer, matrix), new_weight in dense.items():
        at = stored_at(model, layer, matrix)
        if at.name not in copied:  # one parameter may hold many of them, as that of a layer's experts does
            state[at.name] = state[at.name].clone()
            copied.add(at.name)
        stored = state[at.name]
        at.rows(stored)[at.index.to(stored.device)] = new_weight.T.to(stored)

    original: Any = model.bridge.original_model
    config = copy.deepcopy(original.config)
    config.architectures = [type(original).__name__]
    config.dtype = model.dtype
    config.save_pretrained(folder)
    if getattr(original, "generation_config", None) is not None:
        original.generation_config.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    save_torch_state_dict(state, folder, max_shard_size=SHARD_BYTES)
    if model.generic_words is not None:
        (folder / GENERIC_WORDS).write_text(json.dumps(model.generic_words) + "\n", encoding="utf-8")
    write_checksums(folder)
