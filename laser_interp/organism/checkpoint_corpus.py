"""The training corpus of an organism's checkpoint, made again from the settings beside its weights."""

import json
from pathlib import Path

from laser_interp.facts.shipped import SHIPPED, shipped_dir
from laser_interp.organism.corpus import Corpus, CorpusSettings


def corpus_of(name_or_folder: str | Path) -> Corpus:
    """Make a checkpoint's training corpus again, byte for byte.

    Raises:
        ValueError: the text differs from the one the checkpoint was trained on.
    """
    folder = shipped_dir(str(name_or_folder)) if str(name_or_folder) in SHIPPED else Path(name_or_folder)
    about = json.loads((folder / "organism.json").read_text(encoding="utf-8"))
    corpus = Corpus(CorpusSettings(**about["corpus"]))
    if corpus.sha256 != about["corpus_sha256"]:
        raise ValueError(
            f"the corpus made from the settings of {name_or_folder} has the hash {corpus.sha256[:12]}…, its "
            f"checkpoint was trained on {about['corpus_sha256'][:12]}…: the generator has changed"
        )
    return corpus
