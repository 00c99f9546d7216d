"""`laser-interp trajectory`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from laser_interp.choices import Executor
from laser_interp.cli.options import Output, note
from laser_interp.selection.settings import SearchSettings


def trajectory(
    *training: str,
    facts: str,
    steps: tuple[str, ...] = ("log",),
    edit: str | None = None,
    corpus: tuple[str, ...] | None = None,
    documents_per_step: int | None = None,
    counts: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    out: Path,
    settings: Annotated[SearchSettings, Parameter(name="*")] = SearchSettings(),
    executor: Executor = "local",
    workers: int | None = None,
    output: Output = Output(),
) -> None:
    """Ask the same questions at each checkpoint of a training.

    For example: laser-interp trajectory organism --facts organism --edit 3.in:0.05 --out runs/training

    Args:
        training: A folder with folders checkpoint-STEP, a hub id such as EleutherAI/pythia-410m, or organism; or
            several checkpoints, as folders or ID@REVISION.
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        steps: Of one training: log (at most twelve), all, or numbers.
        edit: The edit at all checkpoints, as in 3.in:0.05. If left out, validation chooses it at the last checkpoint.
            each also lets validation choose one at each checkpoint, and difference also keeps, of what training changed
            since the checkpoint before, as many directions.
        corpus: The training text in its order, to count what had been read at each step; an organism's is known.
        documents_per_step: How many documents of the corpus training read in a step.
        counts: Training frequencies, from laser-interp count, that hold for all steps.
        device: Where the models run: auto, cpu, cuda, cuda:1 or mps.
        dtype: Precision: auto, float32, bfloat16, float16 or float64.
        out: Folder for the results. The same command goes on from it.
        executor: One checkpoint after the other here, or each as a task of a Ray cluster.
        workers: How many Ray tasks at a time.
    """
    from laser_interp.facts.files import load_facts
    from laser_interp.frequency.shipped_counts import load_counts
    from laser_interp.organism.checkpoint_corpus import documents_per_step as of_organism
    from laser_interp.studies.training_checkpoints import Checkpoint, checkpoints
    from laser_interp.studies.training_trajectory import counts_so_far
    from laser_interp.studies.training_trajectory import trajectory as run

    if counts is not None and corpus is not None:
        raise ValueError("expected --counts, or --corpus to count in, and both were given: leave one out")
    if not training:
        raise ValueError("no checkpoints are given: expected a folder, a hub id, or organism")
    fact_set = load_facts(facts)
    if documents_per_step is not None and documents_per_step < 1:
        raise ValueError(f"--documents-per-step is {documents_per_step}: expected 1 or more")
    if len(training) == 1 and ("@" not in training[0] or Path(training[0]).is_dir()):
        named = len(steps) == 1 and not steps[0].isdigit()
        if not named and (bad := [step for step in steps if not step.isdigit()]):
            raise ValueError(f"--steps has {bad[0]!r}: expected log, all, or numbers")
        which = steps[0] if named else list(map(int, steps))
        asked = checkpoints(training[0], steps=which)
    elif steps != ("log",):
        raise ValueError("--steps chooses among the checkpoints of one training, and several are given: leave it out")
    else:
        asked = [Checkpoint.of(one) for one in training]
    own = Path(asked[-1].source).parent / "facts.jsonl"
    if own.is_file() and load_facts(own).sha256 != fact_set.sha256:
        note(f"the training has facts of its own, {own}, and others are asked")
    known = None if counts is None else load_counts(counts)
    if counts is None and corpus is None and (found := of_organism(asked[-1].source)) is not None:
        corpus, documents_per_step = (asked[-1].source,), found
    if corpus is not None:
        if documents_per_step is None:
            raise ValueError("--documents-per-step is missing: how many documents of the corpus a step reads")
        known = counts_so_far(asked, fact_set, corpus, documents_per_step, progress=not output.quiet)
    result = run(
        asked,
        fact_set,
        known,
        edit,
        settings=settings,
        load={"device": device, "dtype": dtype},
        out=out,
        executor=executor,
        workers=workers,
        progress=not output.quiet,
    )
    whole = result.tables["trajectory"].query("facts == 'all'")
    output.say({"edit": str(result.edit), "steps": whole.to_dict("records"), "out": str(out)}, result.report)
