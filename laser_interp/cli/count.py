"""`laser-interp count`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from laser_interp.choices import Executor
from laser_interp.cli.options import CorpusOptions, Output, note
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
        corpus: Files, folders or patterns: .txt .jsonl .json (.gz .zst), .parquet, saved datasets, or organism.
            infini-gram asks the service for the training corpus of --model, infini-gram:INDEX for one of its indexes,
            infini-gram-mini:INDEX counts single names; an .npz file is an entity map.
        index: Ask this index, which laser-interp index made, instead of scanning.
        model: Hub id of a model whose training corpus is asked for; docs/frequency.md lists them.
        tokenizer: Name or folder of the tokenizer that the index was made with; Llama 2's, if left out.
        url: Address of another infini-gram service.
        out: A .parquet file. The same command goes on if it was stopped.
        window: Also count both with at most so many words between them; of infini-gram, tokens.
        executor: Run on this machine, or on a Ray cluster.
        workers: Processes, or Ray tasks at a time.
    """
    from laser_interp.facts.files import load_facts
    from laser_interp.frequency.index import Index
    from laser_interp.frequency.scan import count as run
    from laser_interp.frequency.scan import earlier_counts
    from laser_interp.storage.outputs import check_output
    from laser_interp.storage.tables import write_table

    if (index is None) == (corpus is None):
        raise ValueError("expected either --corpus, to scan, or --index, to ask one that `laser-interp index` made")
    check_output(out, "counts", suffixes=(".parquet",), force=None)
    fact_set = load_facts(facts)
    if corpus is not None and corpus[0].partition(":")[0] == "infini-gram-mini":
        _refuse("infini-gram-mini", model=model, tokenizer=tokenizer, window=window)
        return _ask_mini(fact_set, corpus, url, matching, out, output)
    if corpus is not None and corpus[0].endswith(".npz"):
        _refuse("an entity map", model=model, tokenizer=tokenizer, url=url, window=window)
        return _count_entities(fact_set, corpus, out, output)
    if corpus is not None and corpus[0].partition(":")[0] == "infini-gram":
        return _ask_infinigram(fact_set, corpus, model, tokenizer, url, window, matching, out, output)
    if model or tokenizer or url:
        raise ValueError("--model, --tokenizer and --url belong to --corpus infini-gram")
    if index is not None:
        asked = Index(index)
        if out.is_file():
            frame = earlier_counts(out, asked.identity(fact_set, window, matching), "skip")
        else:
            frame = asked.count(fact_set, window=window, matching=matching, progress=output.progress)
            write_table(frame, out, "counts", frame.attrs["provenance"])
    else:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
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
        for warning in raised:
            note(str(warning.message))
    seen = {name: int((frame[f"n_{name}"] > 0).sum()) for name in ("both", "subject", "object")}
    n_docs = int(frame["n_docs"].iloc[0])
    quartiles = frame["n_both"].quantile([0.25, 0.5, 0.75, 1.0]).round().astype(int).tolist()
    output.say(
        {"n_facts": len(frame), "n_docs": n_docs, "n_with": seen, "quartiles_of_both": quartiles, "counts": str(out)},
        f"{len(frame)} facts in {n_docs} documents: {seen['both']} have a document with subject and object, "
        f"{seen['subject']} one with the subject, {seen['object']} one with the object.\n"
        f"Documents with both, quartiles and most: {', '.join(map(str, quartiles))}.\nAll counts: {out}",
    )


def _refuse(source: str, **options: object) -> None:
    """Refuse options that a source cannot respect, instead of leaving them out silently."""
    if asked := [f"--{name}" for name, value in options.items() if value is not None]:
        raise ValueError(f"{' and '.join(asked)} cannot be respected by {source}: leave them out")


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
        f"{len(frame)} facts in {source.name}: {with_both} occur with subject and object near each other; {uncertain} "
        f"are zero in a sample alone and flagged.\nAll counts: {out}",
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
        f"{len(frame)} facts in {source.name}: the subject of {seen} occurs. It cannot count two names together.\n"
        f"All counts: {out}",
    )


def _count_entities(facts: FactSet, corpus: tuple[str, ...], out: Path, output: Output) -> None:
    """Counts from an entity map, as a table and in words."""
    from laser_interp.frequency.entity_maps import count_entities
    from laser_interp.storage.tables import write_table

    if len(corpus) != 1:
        raise ValueError(f"{corpus[0]} is an entity map, and {len(corpus) - 1} more were given: expected it alone")
    found = count_entities(facts, corpus[0], progress=output.progress)
    about = {"facts": facts.name, "facts_sha256": facts.sha256, "source": Path(corpus[0]).name}
    write_table(found.counts, out, "counts", about)
    with_both = int((found.counts["n_both"] > 0).sum())
    output.say(
        {"n_facts": len(found.counts), "n_missing": len(found.missing), "n_with_both": with_both, "counts": str(out)},
        f"{found}; {with_both} have a document with both.\nAll counts: {out}",
    )
