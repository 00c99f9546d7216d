"""Edits as files: what an edit is, small enough to read, to cite and to send to others.

A file is JSON with a checksum. It names each site, the hash of the weight that the edit was made for, how the matrix
was divided, and the gains in runs of equal values: `[[1.0, 57], [0.0, 519]]` keeps the first 57 of 576 directions.
Gains of many values, such as learned ones, and the matrices that some edits add, are in a safetensors file of the same
name beside it. The weights themselves are not in it: to load the edit, you need the same model.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.placement import Placement
from laser_interp.edits.site_edit import SiteEdit
from laser_interp.edits.sites import Site
from laser_interp.storage.atomic import replacing, write_json
from laser_interp.storage.checksums import file_sha256, read_checked_json, with_checksum
from laser_interp.storage.provenance import code_version, provenance

FORMAT, SCHEMA = "laser-interp edit", 1
_MOST_RUNS = 16  # of equal gains; more of them are kept as tensors


def write_edit(
    path: str | Path, parts: Mapping[Site, SiteEdit], about: Mapping[str, Any], placement: Placement | None, model: Any
) -> Path:
    """Write what an edit is made of, whole or not at all; see `Edit.save`.

    Args:
        about: `kind`, `rho`, `alpha` and `path` of the edit.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"{path} does not end in .json: an edit is saved as a .json file")
    if placement is not None and placement.added is not None:
        raise ValueError(
            "a patched edit belongs to the prompts it was patched from: save the edit before it is patched"
        )
    sites: dict[str, dict[str, Any]] = {}
    tensors: dict[str, Tensor] = {}
    for site, part in sorted(parts.items()):
        runs = [[value, len(list(same))] for value, same in itertools.groupby(part.gains.tolist())]
        if len(runs) > _MOST_RUNS:
            tensors[f"{site}.gains"] = part.gains.contiguous()
        sites[str(site)] = {
            "weight_sha256": part.spectrum.weight_sha256,
            "blocks": None if part.spectrum.blocks is None else str(part.spectrum.blocks),
            "gains": None if len(runs) > _MOST_RUNS else runs,
        }
        if part.added is not None:
            tensors |= {f"{site}.added.{n}": factor.contiguous() for n, factor in enumerate(part.added)}
    value: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA,
        **about,
        "places": placement and {"name": placement.name, "positions": list(placement.positions.items())},
        "sites": sites,
        "tensors_sha256": None,
        "made_for": None if model is None else provenance(model),
        "code_version": code_version(),
    }
    if tensors:
        from safetensors.torch import save_file

        tensors_file = path.with_suffix(".safetensors")
        _refuse_to_replace(tensors_file)
        with replacing(tensors_file) as temporary:
            save_file(tensors, temporary, {"format": FORMAT})
            value["tensors_sha256"] = file_sha256(temporary)
    return write_json(with_checksum(value), path)


def read_edit_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON object of an edit's file, and the tensors beside it; see `laser_interp.edits.edit_loading`."""
    if not path.is_file():
        raise FileNotFoundError(f"no edit {path}: expected a file that Edit.save wrote")
    try:
        value = read_checked_json(path)
        is_edit = value.get("format") == FORMAT
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is not as Edit.save wrote it: save the edit again") from None
    if not is_edit:
        raise ValueError(f"{path} is no edit: expected a file that Edit.save wrote")
    if value["schema"] != SCHEMA:
        raise ValueError(f"{path} has schema {value['schema']}, and this version reads {SCHEMA}: update laser-interp")
    return value, _tensors(path, value["tensors_sha256"])


def gains_of(runs: Sequence[tuple[float, int]]) -> Float[Tensor, " r"]:
    values, counts = zip(*runs, strict=True)
    return torch.tensor(values, dtype=torch.float64).repeat_interleave(torch.tensor(counts))


def placement_of(value: Mapping[str, Any]) -> Placement:
    return Placement(value["name"], {tuple(begin): tuple(at) for begin, at in value["positions"]})


def _tensors(path: Path, sha256: str | None) -> dict[str, Tensor]:
    if sha256 is None:
        return {}
    from safetensors.torch import load_file

    tensors_file = path.with_suffix(".safetensors")
    if not tensors_file.is_file():
        raise FileNotFoundError(f"{tensors_file} is missing: the edit {path.name} needs it beside it")
    if file_sha256(tensors_file) != sha256:
        raise ValueError(f"{tensors_file} is not as Edit.save wrote it: save the edit again")
    return load_file(tensors_file)


def _refuse_to_replace(path: Path) -> None:
    """The user did not name this file, so a file that is no edit's, such as a model's weights, is not replaced."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return
    try:
        with safe_open(path, framework="pt") as stored:
            is_ours = (stored.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        is_ours = False
    if not is_ours:
        raise FileExistsError(f"{path} exists and is no edit's: save the edit under another name")
