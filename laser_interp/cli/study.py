"""`laser-interp study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from laser_interp.choices import AnswerRule, Protocol
from laser_interp.cli.options import ModelOptions, Output, note, read_text
from laser_interp.studies.settings import StudySettings

if TYPE_CHECKING:
    from laser_interp.facts.tasks import Task


def study(
    *,
    model: ModelOptions,
    facts: str | None = None,
    task: str | None = None,
    data: Path | None = None,
    rule: AnswerRule | None = None,
    protocol: Protocol | None = None,
    limit: int | None = None,
    counts: str | None = None,
    text: Path | None = None,
    out: Path,
    settings: Annotated[StudySettings, Parameter(name="*")] = StudySettings(),
    output: Output = Output(),
) -> None:
    """Run every analysis of the paper on any model and any facts, and write tables, figures and a report.

    For example: laser-interp study --model organism --facts organism --matrices mlp --rho 0.2,0.05 --out runs/study

    Args:
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        task: A published set, instead of facts: counterfact, fever, truthfulqa and so on.
        data: File or folder of the published set. If left out, the set is looked for on the hub.
        rule: How an answer to your own facts is judged. If left out, by next_token.
        protocol: How a published set is judged: with corrected rules (if left out), or with the paper's own, faults
            included.
        limit: Only the first so many facts.
        counts: Training frequencies, from laser-interp count. If left out, those that come with the facts.
        text: A text file, for perplexity before and after.
        out: Folder for the results. The same command goes on from it.
    """
    from laser_interp.frequency.shipped_counts import load_counts
    from laser_interp.storage.run_folder import REPORT
    from laser_interp.studies.pipeline import study as run

    asked = _task(facts, task, data, rule, protocol)
    if limit is not None:
        if limit < 1:
            raise ValueError(f"limit is {limit}: expected 1 or more facts")
        asked = asked.keep(asked.facts[:limit])
    frame = None if counts is None else load_counts(counts)
    running = None if text is None else read_text(text)
    note(str(asked))
    found = run(model.load(), asked, frame, settings=settings, out=out, text=running, progress=not output.quiet)
    output.say(dict(found.summary), f"{found.report}\nAll results: {out} ({REPORT} is this text)")


def _task(
    facts: str | None, task: str | None, data: Path | None, rule: AnswerRule | None, protocol: Protocol | None
) -> Task:
    from laser_interp.facts.published import load_task
    from laser_interp.facts.tasks import own_task

    if (facts is None) == (task is None):
        raise ValueError("expected either --facts (your own facts) or --task (a published set)")
    if task is not None:
        if rule is not None:
            raise ValueError(f"--rule is for your own facts, and {task} is a published set with its own: leave it out")
        return load_task(task, data, protocol=protocol or "corrected")
    if data is not None or protocol is not None:
        raise ValueError("--data and --protocol are for --task, a published set: leave them out with --facts")
    return own_task(facts, rule or "next_token")
