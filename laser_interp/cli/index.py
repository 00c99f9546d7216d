"""`laser-interp index`."""

from pathlib import Path

from laser_interp.cli.options import CorpusOptions, Output, warnings_as_notes


def index(
    *,
    corpus: tuple[str, ...],
    out: Path,
    fold_accents: bool = True,
    reading: CorpusOptions = CorpusOptions(),
    output: Output = Output(),
) -> None:
    """Index a corpus once, so that later counts are fast.

    For example: laser-interp index --corpus 'data/*.jsonl.zst' --out index

    Args:
        corpus: Files, folders or patterns: .txt .jsonl .json (.gz .zst .bz2 .xz), .parquet, saved datasets, organism.
        out: Folder for the index; it must not exist.
        fold_accents: Treat "é" as "e", and so on, in the index and in every count from it.
    """
    from laser_interp.frequency.index import build_index

    with warnings_as_notes():
        made = build_index(corpus, out, fold_accents=fold_accents, progress=not output.quiet, **reading.as_arguments())
    output.say(
        {"index": str(out), "n_docs": made.about["n_docs"], "skipped": made.about["skipped"]},
        f"The index of {made.about['n_docs']} documents is in {out}.",
    )
