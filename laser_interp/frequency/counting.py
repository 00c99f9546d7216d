"""Counting how often training showed each fact, in any source: files, an index, infini-gram, or an entity map."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from laser_interp.facts.tasks import AnyFacts
from laser_interp.frequency.entity_maps import EntityMap
from laser_interp.frequency.matching import Matching
from laser_interp.frequency.scan import Corpus, earlier_counts
from laser_interp.frequency.shards import COMPRESSED, KINDS
from laser_interp.frequency.source import CountSource
from laser_interp.signatures import with_settings
from laser_interp.storage.tables import write_table


def _are_texts(sources: Sequence[object]) -> bool:
    """Whether these are texts, some of several words, and none is a file or could be the name of one."""
    texts = [source for source in sources if isinstance(source, str)]
    named = (os.path.exists(text) or text.lower().endswith((*KINDS, *COMPRESSED)) for text in texts)
    return len(texts) == len(sources) and any(len(text.split()) > 1 for text in texts) and not any(named)


@with_settings(Corpus)
def count(
    facts: AnyFacts,
    source: str | Path | Iterable[str | Path] | CountSource,
    *,
    window: int | None = None,
    matching: Matching | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    **reading: Any,
) -> pd.DataFrame:
    """Count how often a source mentions each fact's subject, its object (or an alias of it), and both.

    Args:
        source: files or folders of documents (see `laser_interp.frequency.scan.Corpus`), a list of texts, "organism",
            an .npz entity map, or one of `li.counts`: `Index`, `HostedInfiniGram`, `LocalInfiniGram`, `EntityMap`.
        window: the most words between both names, counted beside all documents; of infini-gram, tokens.
        matching: which differences between names and texts are ignored; see `laser_interp.frequency.matching`.
        out: a .parquet file for the table. If it is there and holds these counts, it is read.
        reading: how files are read: `text_column, document, errors, longest, executor, workers`; and
            `until`, to count the first documents alone.

    Returns:
        One row a fact: `fact_id, n_docs, n_subject, n_object, n_both`, and how they were counted: `corpus, unit,
        normaliser, approximate`.

    Raises:
        FileNotFoundError: no such corpus.
        ValueError: an option that the source cannot use, a name without a single word character, or an `out` that
            holds other counts.

    Example:
        >>> li.count(facts, "organism", window=10)[["n_subject", "n_object", "n_both", "n_window"]].describe()
    """
    if isinstance(source, str | Path) and str(source).endswith(".npz"):
        source = EntityMap(source)
    if isinstance(source, list | tuple) and _are_texts(source):
        with TemporaryDirectory() as folder:
            file = Path(folder) / "texts.jsonl"
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in source), encoding="utf-8")
            return count(facts, file, window=window, matching=matching, out=out, progress=progress, **reading)
    how: dict[str, Any] = {"window": window, "matching": matching}
    if not isinstance(source, CountSource):
        source, reading = Corpus(source, **reading), {}
    if isinstance(source, Corpus) and not reading:
        return source.count(facts, out=out, progress=progress, **how)
    how = {name: value for name, value in how.items() if value is not None}
    takes = type(source).count.__annotations__
    if unused := [name for name in (*how, *reading) if name not in takes]:
        raise ValueError(f"{type(source).__name__} cannot use {' and '.join(unused)}: leave that out")
    if out is not None and (there := earlier_counts(out, source.identity(facts, **how), "skip")) is not None:
        return there
    frame = source.count(facts, progress=progress, **how)
    if out is not None:
        write_table(frame, out, "counts", frame.attrs["provenance"])
    return frame
