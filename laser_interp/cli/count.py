"""`laser-interp count`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from laser_interp.choices import Executor
from laser_interp.cli.options import CorpusOptions, Output, note, warnings_as_notes
from laser_interp.frequency.matching import Matching

if TYPE_CHECKING:
    import pandas as pd

    from laser_interp.frequency.infinigram_sources import HostedInfiniGram


def count(
    *,
    facts: str,
    corpus: tuple[str, ...] | None = None,
    index: Path | None = None,
    model: str | None = None,
    tokenizer: str | None = None,
    url: str | None = None,
    out: Path,
    window: int | None = None,
    matching: Annotated[Matching, Parameter(name="*")] = Matching(),
    reading: CorpusOptions = CorpusOptions(),
    executor: Executor = "local",
    workers: int | None = None,
    until: int | None = None,
    output: Output = Output(),
) -> None:
    """Count how many documents of a corpus mention each fact's subject, its object, and both.

    For example: laser-interp count --facts facts.jsonl --corpus 'data/*.jsonl.zst' --out counts.parquet

    Args:
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        corpus: Files, folders or patterns: .txt .jsonl .json (.gz .zst .bz2 .xz), .parquet, saved datasets, organism.
            infini-gram asks that service about the training corpus of --model, and infini-gram:INDEX about one of its
            indexes. An .npz file is an entity map.
        index: Count in this index, which laser-interp index made, instead of scanning files.
        model: With --corpus infini-gram, hub id of the model whose training corpus is counted; see docs/frequency.md.
        tokenizer: With infini-gram, name or folder of the tokenizer of its index. If left out, Llama 2's.
        url: Address of another infini-gram service.
        out: A .parquet file. A scan that was stopped resumes with the same command.
        window: Also count the documents with at most this many words between both names. With infini-gram: tokens.
        executor: Run on this machine, or on a Ray cluster.
        workers: Number of processes, or of Ray tasks at a time.
        until: Count only so many documents, the first in the order of the files; an organism's in that of its training.
    """
    from laser_interp.facts.files import load_facts
    from laser_interp.frequency.counting import count as run
    from laser_interp.storage.outputs import check_output

    if (index is None) == (corpus is None):
        raise ValueError("expected either --corpus, to scan files, or --index, a folder that `laser-interp index` made")
    check_output(out, "counts", suffixes=(".parquet",), force=None)
    fact_set = load_facts(facts)
    of_scan = _changed(reading)
    of_scan |= {"executor": None if executor == "local" else executor, "workers": workers, "until": until}
    of_service = {"model": model, "tokenizer": tokenizer, "url": url}
    first = corpus[0] if corpus else ""
    how: dict[str, Any] = {"window": window}
    source: Any
    if index is not None:
        from laser_interp.frequency.index import Index

        _refuse("an index", **of_service, **of_scan)
        source, how = Index(index), how | {"matching": matching}
    elif corpus and first.endswith(".npz"):
        _refuse("an entity map", **of_service, window=window, **of_scan, **_changed(matching))
        if len(corpus) > 1:
            raise ValueError(f"{first} is an entity map, and {len(corpus) - 1} more corpora were given: give it alone")
        source = first
    elif corpus and first.partition(":")[0] == "infini-gram":
        _refuse("infini-gram", **of_scan)
        source, how = _infinigram(corpus, **of_service), how | {"matching": matching}
    elif any(of_service.values()):
        raise ValueError("--model, --tokenizer and --url belong to --corpus infini-gram")
    else:
        source = corpus or ()
        how |= {"matching": matching, "executor": executor, "workers": workers, "until": until} | reading.as_arguments()
    with warnings_as_notes():
        frame = run(fact_set, source, out=out, progress=not output.quiet, **how)
    _say(frame, len(fact_set), out, output)


def _say(frame: pd.DataFrame, n_facts: int, out: Path, output: Output) -> None:
    """The counts in words."""
    seen = {name: int((frame[f"n_{name}"] > 0).sum()) for name in ("both", "subject", "object")}
    n_docs = None if frame["n_docs"].isna().all() else int(frame["n_docs"].iloc[0])
    uncertain = int(frame["uncertain_zero"].sum()) if "uncertain_zero" in frame else 0
    quartiles = frame["n_both"].quantile([0.25, 0.5, 0.75, 1.0]).round().astype(int).tolist()
    what = str(frame["unit_both"].iloc[0]) if "unit_both" in frame else "documents with both"
    counted = f"in {n_docs} documents" if n_docs is not None else f"in {frame['corpus'].iloc[0]}"
    text = (
        f"{len(frame)} of {n_facts} facts were counted {counted}. Subject and object are found together for "
        f"{seen['both']} facts, the subject for {seen['subject']}, the object for {seen['object']}.\n"
        f"{what[:1].upper()}{what[1:]}, per fact (lower quartile, median, upper quartile, maximum): "
        f"{', '.join(map(str, quartiles))}.\n"
    )
    if uncertain:
        text += f"{uncertain} facts have a count of 0 only in a sample; they are flagged (uncertain_zero).\n"
    found = {"n_facts": len(frame), "n_missing": n_facts - len(frame), "n_docs": n_docs, "n_with": seen}
    found |= {"quartiles_of_both": quartiles, "n_uncertain_zero": uncertain, "counts": str(out)}
    output.say(found, f"{text}All counts: {out}")


def _changed(options: CorpusOptions | Matching) -> dict[str, object]:
    """Those of the options that are not as they are by default."""
    return {name: value for name, value in asdict(options).items() if value != getattr(type(options), name)}


def _refuse(source: str, **options: object) -> None:
    """Refuse options that a source cannot use, instead of silently ignoring them."""
    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    if asked := [f"--{'no-' if value is False else ''}{name}" for name, value in given.items()]:
        raise ValueError(f"{source} cannot use {' and '.join(asked)}: leave these options out")


def _infinigram(corpus: tuple[str, ...], model: str | None, tokenizer: str | None, url: str | None) -> HostedInfiniGram:
    """The service, with the index that was named, or that of a model's training corpus."""
    from laser_interp.frequency.infinigram_sources import HOSTED, HostedInfiniGram
    from laser_interp.frequency.known_corpora import TOKENIZER, corpus_of
    from laser_interp.models.loading import load_tokenizer

    name = corpus[0].partition(":")[2]
    if len(corpus) > 1 or (not name) == (model is None):
        raise ValueError(
            "expected --corpus infini-gram --model HUB_ID, which looks up the model's training corpus, or "
            "--corpus infini-gram:INDEX"
        )
    if not name:
        known = corpus_of(str(model))
        name = known.index
        note(f"{model} was trained on {known.corpus}{f': {known.note}' if known.note else ''}")
    return HostedInfiniGram(name, HOSTED if url is None else url, tokenizer=load_tokenizer(tokenizer or TOKENIZER))
