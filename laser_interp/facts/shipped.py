"""The examples that come with the package, by name."""

from importlib.resources import files
from pathlib import Path

SHIPPED = ("organism", "organism-control", "organism-experts")
_SAME_CORPUS = {"organism-experts": "organism"}  # trained on the same sentences: the facts and counts are there
WIKIDATA = "wikidata"  # facts without a model


def shipped_text() -> str:
    """About 800 words of plain English prose, written for this package: running text for a model's perplexity."""
    return (files("laser_interp") / "facts" / "english.txt").read_text(encoding="utf-8")


def shipped_dir(name: str) -> Path:
    """Folder of a checkpoint that comes with the package (see `SHIPPED`)."""
    return Path(str(files("laser_interp") / "organism" / "checkpoints" / name))


def shipped_history(name: str) -> Path:
    """The file with the history of a shipped organism's training; not every one has it."""
    return Path(str(files("laser_interp") / "organism" / "histories" / f"{name}.safetensors"))


def shipped_table(name: str, file: str) -> Path:
    """A table of the corpus that a shipped checkpoint was trained on: its facts.jsonl, or its ledger.csv of counts."""
    return shipped_dir(_SAME_CORPUS.get(name, name)) / file
