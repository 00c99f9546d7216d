"""`laser-interp count`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from laser_interp.choices import Executor
from laser_interp.cli.options import CorpusOptions, Output, note, warnings_as_notes
from laser_interp.frequency.matching import Matching

if TYPE_CHECKING:
    from laser_interp.facts.fact_set import FactSet


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
    output: Output = Output(),
) -> None:
    """Count how many documents of a corpus mention each fact's subject, its object, and both.

    Args:
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        corpus: Files, folders or patterns: .txt .jsonl .json (.gz .zst .bz2 .xz), .parquet, saved datasets, organism.
            infini-gram asks that service about the training corpus of --model, and infini-gram:INDEX about one of its
            indexes. infini-gram-mini:INDEX counts single names. An .npz file is an entity map.
        index: Count in this index, which laser-interp index made, instead of scanning files.
        model: With --corpus infini-gram, hub id of the model whose training corpus is counted; see docs/frequency.md.
        tokenizer: With infini-gram, name or folder of the tokenizer of its index. If left out, Llama 2's.
        url: Address of another infini-gram service.
        out: A .parquet file. A scan that was stopped resumes with the same command.
        window: Also count the documents with at most this many words between both names. With infini-gram: tokens.
        executor: Run on this machine, or on a Ray cluster.
        workers: Number of processes, or of Ray tasks at a time.
    """
    from laser_interp.facts.files import load_facts
    from laser_interp.frequency.index import Index
    from laser_interp.frequency.scan import count as run
    from laser_interp.frequency.scan import earlier_counts
    from laser_interp.storage.outputs import check_output
    from laser_interp.storage.tables import write_table

    if (index is None) == (corpus is None):
        raise ValueError("expected either --corpus, to scan files, or --index, a folder that `laser-interp index` made")
    check_output(out, "counts", suffixes=(".parquet",), force=None)
    fact_set = load_facts(facts)
    of_scan = _changed(reading, CorpusOptions())
    of_scan |= {"executor": None if executor == "local" else executor, "workers": workers}
    if corpus is not None and corpus[0].partition(":")[0] == "infini-gram-mini":
        _refuse("infini-gram-mini", model=model, tokenizer=tokenizer, window=window, **of_scan)
        return _ask_mini(fact_set, corpus, url, matching, out, output)
    if corpus is not None and corpus[0].endswith(".npz"):
        of_names = _changed(matching, Matching())
        _refuse("an entity map", model=model, tokenizer=tokenizer, url=url, window=window, **of_scan, **of_names)
        return _count_entities(fact_set, corpus, out, output)
    if corpus is not None and corpus[0].partition(":")[0] == "infini-gram":
        _refuse("infini-gram", **of_scan)
        return _ask_infinigram(fact_set, corpus, model, tokenizer, url, window, matching, out, output)
    if model or tokenizer or url:
        raise ValueError("--model, --tokenizer and --url belong to --corpus infini-gram")
    if index is not None:
        _refuse("an index", **of_scan)
        asked = Index(index)
        if out.is_file():
            frame = earlier_counts(out, asked.identity(fact_set, window, matching), "skip")
        else:
            with warnings_as_notes():
                frame = asked.count(fact_set, window=window, matching=matching, progress=output.progress)
            write_table(frame, out, "counts", frame.attrs["provenance"])
    else:
        with warnings_as_notes():
            frame = run(
                fact_set,
                corpus or (),
                window=window,
                matching=matching,
                out=out,
                executor=executor,
                workers=workers,
                progress=output.progress,
                **reading.as_arguments(),
            )
    seen = {name: int((frame[f"n_{name}"] > 0).sum()) for name in ("both", "subject", "object")}
    n_docs = int(frame["n_docs"].iloc[0])
    quartiles = frame["n_both"].quantile([0.25, 0.5, 0.75, 1.0]).round().astype(int).tolist()
    output.say(
        {"n_facts": len(frame), "n_docs": n_docs, "n_with": seen, "quartiles_of_both": quartiles, "counts": str(out)},
        f"{len(frame)} facts, counted in {n_docs} documents. For {seen['both']} facts a document has subject and "
        f"object, for {seen['subject']} the subject, for {seen['object']} the object.\n"
        "Documents with both, per fact (lower quartile, median, upper quartile, maximum): "
        f"{', '.join(map(str, quartiles))}.\nAll counts: {out}",
    )


def _changed(options: CorpusOptions | Matching, defaults: CorpusOptions | Matching) -> dict[str, object]:
    """Those of the options that are not as they are by default."""
    return {name: value for name, value in asdict(options).items() if value != getattr(defaults, name)}


def _option(name: str, value: object) -> str:
    """An option as it was given."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


def _refuse(source: str, **options: object) -> None:
    """Refuse options that a source cannot use, instead of silently ignoring them."""
    if asked := [_option(name, value) for name, value in options.items() if value is not None]:
        raise ValueError(f"{source} cannot use {' and '.join(asked)}: leave these options out")


def _ask_infinigram(
    facts: FactSet,
    corpus: tuple[str, ...],
    model: str | None,
    tokenizer: str | None,
    url: str | None,
    window: int | None,
    matching: Matching,
    out: Path,
    output: Output,
) -> None:
    """Counts of the service, as a table and in words."""
    from laser_interp.frequency.infinigram import WINDOW, count_infinigram
    from laser_interp.frequency.infinigram_sources import HOSTED, HostedInfiniGram
    from laser_interp.frequency.known_corpora import TOKENIZER, corpus_of
    from laser_interp.models.loading import load_tokenizer
    from laser_interp.storage.tables import write_table

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
    source = HostedInfiniGram(name, HOSTED if url is None else url)
    frame = count_infinigram(
        facts,
        source,
        load_tokenizer(tokenizer or TOKENIZER),
        window=window or WINDOW,
        matching=matching,
        progress=output.progress,
    )
    write_table(frame, out, "counts", frame.attrs["provenance"])
    with_both, uncertain = int((frame["n_both"] > 0).sum()), int(frame["uncertain_zero"].sum())
    output.say(
        {"n_facts": len(frame), "n_with_both": with_both, "n_uncertain_zero": uncertain, "counts": str(out)},
        f"{len(frame)} facts in {source.name}: {with_both} occur with subject and object near each other. {uncertain} "
        f"have a count of 0 only in a sample; they are flagged (uncertain_zero).\nAll counts: {out}",
    )


def _ask_mini(
    facts: FactSet, corpus: tuple[str, ...], url: str | None, matching: Matching, out: Path, output: Output
) -> None:
    """Counts of single names by infini-gram mini, as a table and in words."""
    from laser_interp.frequency.infinigram import count_infinigram_mini
    from laser_interp.frequency.infinigram_sources import HOSTED_MINI, HostedInfiniGramMini
    from laser_interp.storage.tables import write_table

    name = corpus[0].partition(":")[2]
    if len(corpus) > 1 or not name:
        raise ValueError("expected --corpus infini-gram-mini:INDEX, as in infini-gram-mini:v2_piletrain")
    source = HostedInfiniGramMini(name, HOSTED_MINI if url is None else url)
    frame = count_infinigram_mini(facts, source, matching=matching, progress=output.progress)
    write_table(frame, out, "counts", frame.attrs["provenance"])
    seen = int((frame["n_subject"] > 0).sum())
    output.say(
        {"n_facts": len(frame), "n_with": {"subject": seen}, "counts": str(out)},
        f"{len(frame)} facts in {source.name}: the subject of {seen} occurs. "
        "infini-gram mini cannot count two names together.\n"
        f"All counts: {out}",
    )


def _count_entities(facts: FactSet, corpus: tuple[str, ...], out: Path, output: Output) -> None:
    """Counts from an entity map, as a table and in words."""
    from laser_interp.frequency.entity_maps import count_entities
    from laser_interp.storage.tables import write_table

    if len(corpus) != 1:
        raise ValueError(f"{corpus[0]} is an entity map, and {len(corpus) - 1} more corpora were given: give it alone")
    found = count_entities(facts, corpus[0], progress=output.progress)
    about = {"facts": facts.name, "facts_sha256": facts.sha256, "source": Path(corpus[0]).name}
    write_table(found.counts, out, "counts", about)
    with_both = int((found.counts["n_both"] > 0).sum())
    output.say(
        {"n_facts": len(found.counts), "n_missing": len(found.missing), "n_with_both": with_both, "counts": str(out)},
        f"{found}; {with_both} have a document with both.\nAll counts: {out}",
    )
