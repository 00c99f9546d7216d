"""The training corpus of an organism's checkpoint, made again from the settings beside its weights."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from laser_interp.facts.shipped import SHIPPED, shipped_dir
from laser_interp.organism.corpus import Corpus, CorpusSettings


def organism_corpus(name_or_folder: str | Path) -> Corpus:
    """Make a checkpoint's training corpus again, byte for byte.

    Raises:
        ValueError: the text differs from the one the checkpoint was trained on.

    Example:
        >>> li.counts.organism_corpus("organism").text[:8]
    """
    about = _about(name_or_folder)
    corpus = Corpus(CorpusSettings(**about["corpus"]))
    if corpus.sha256 != about["corpus_sha256"]:
        raise ValueError(
            f"the corpus made from the settings of {name_or_folder} has the hash {corpus.sha256[:12]}…, its "
            f"checkpoint was trained on {about['corpus_sha256'][:12]}…: the generator has changed"
        )
    return corpus


def documents_read(name_or_folder: str | Path) -> Iterator[str]:
    """The corpus's sentences in the order in which a checkpoint's training read them, each as often as it did."""
    from laser_interp.organism.training import TrainingSettings, rows_read

    corpus = organism_corpus(name_or_folder)
    order = rows_read(len(corpus.rows), TrainingSettings(**_about(name_or_folder)["training"]))
    return (corpus.rows[row] for row in order.flatten().tolist())


def documents_per_step(name_or_folder: str | Path) -> int | None:
    """How many sentences a step of an organism's training read; None of a checkpoint that is no organism's."""
    try:
        size = int(_about(name_or_folder)["training"]["batch_size"])
        return min(size, len(organism_corpus(name_or_folder).rows))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _about(name_or_folder: str | Path) -> dict[str, Any]:
    folder = shipped_dir(str(name_or_folder)) if str(name_or_folder) in SHIPPED else Path(name_or_folder)
    return json.loads((folder / "organism.json").read_text(encoding="utf-8"))
