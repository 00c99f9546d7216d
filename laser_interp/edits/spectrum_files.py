"""Spectra on disk, by the hash of their weight, each with a checksum.

Large factors are views of the mapped file: where memory is short, the system drops their pages and reads them again
when they are used.
"""

import warnings
from pathlib import Path

from torch import Tensor

from laser_interp.models.weights import tensors_sha256
from laser_interp.storage.atomic import replacing
from laser_interp.storage.cache import cache_dir

FORMAT = "1"
MAPPED = 32 << 20  # bytes of factors; smaller ones are copied, and what happens to the file later changes nothing


def stays_on_disk(tensors: dict[str, Tensor]) -> bool:
    """Whether factors are large enough to be paged."""
    return sum(tensor.nbytes for tensor in tensors.values()) >= MAPPED


def read(name: str) -> dict[str, Tensor] | None:
    """The stored factors `U, S, Vh`, or None if there are none or they are damaged.

    Args:
        name: the hash of the weight, and how it was divided into blocks.
    """
    from safetensors import SafetensorError, safe_open

    path = _path(name)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (no mapping)
        if metadata == {"format": FORMAT, "weight": name, "checksum": tensors_sha256(tensors)}:
            return tensors if stays_on_disk(tensors) else {key: tensor.clone() for key, tensor in tensors.items()}
        problem = "its checksum does not match"
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        if not path.is_file():  # another process took it away in between: there is none
            return None
        problem = str(error)
    warnings.warn(f"the stored spectrum {path.name} is damaged ({problem}) and is computed again", stacklevel=4)
    return None


def write(name: str, tensors: dict[str, Tensor]) -> None:
    """Keep factors. Other processes only ever see complete files.

    On a full disk or in a read-only home, only a warning is given, and the next run computes the factors again.
    """
    from safetensors.torch import save_file

    path = _path(name)
    metadata = {"format": FORMAT, "weight": name, "checksum": tensors_sha256(tensors)}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
    except OSError as error:
        warnings.warn(f"the spectrum could not be kept in {path.parent}: {error}", stacklevel=4)


def _path(name: str) -> Path:
    return cache_dir() / "spectra" / f"{name}.safetensors"
