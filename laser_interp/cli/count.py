"""`laser-interp count`."""

import warnings
from pathlib import Path

from laser_interp.choices import Executor
from laser_interp.cli.options import CorpusOptions, Output, note


def count(
    *,
    facts: str,
    corpus: tuple[str, ...] | None = None,
    index: Path | None = None,
    out: Path,
    window: int | None = None,
    reading: CorpusOptions = CorpusOptions(),
    executor: Executor = "local",
    workers: int | None = None,
    output: Output = Output(),
) -> None:
    """Count how many documents of a corpus mention each fact's subject, its object, and both.

    Args:
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        corpus: Files, folders or patterns: .txt .jsonl .json (.gz .zst), .parquet, saved datasets, or organism.
        index: Ask this index, which laser-interp index made, instead of scanning.
        out: A .parquet file. The same command goes on if it was stopped.
        window: Also count both with at most so many words between them.
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
    if index is not None:
        asked = Index(index)
        if out.is_file():
            frame = earlier_counts(out, asked.identity(fact_set, window), "skip")
        else:
            frame = asked.count(fact_set, window=window, progress=output.progress)
            write_table(frame, out, "counts", frame.attrs["provenance"])
    else:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            frame = run(
                fact_set,
                corpus or (),
                window=window,
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
