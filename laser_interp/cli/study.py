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
    rule: AnswerRule = "next_token",
    protocol: Protocol = "corrected",
    limit: int | None = None,
    counts: str | None = None,
    text: Path | None = None,
    out: Path,
    settings: Annotated[StudySettings, Parameter(name="*")] = StudySettings(),
    output: Output = Output(),
) -> None:
    """Ask everything that the paper asks, of any model and any facts, and write tables, figures and a report.

    Args:
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        task: A published set, instead of facts: counterfact, fever, truthfulqa and so on.
        data: The published set's file or folder. Without it the set is looked for on the hub.
        rule: The rule by which an answer of your own facts counts as right.
        protocol: The corrected rule, or the paper's with its faults.
        limit: Only the first so many facts.
        counts: Training frequencies, from laser-interp count, or wikidata for those of the shipped facts.
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
        asked = asked.keep(asked.facts.keep(asked.facts.facts[:limit]))
    frame = None if counts is None else load_counts(counts)
    running = None if text is None else read_text(text)
    note(str(asked))
    found = run(model.load(), asked, frame, settings=settings, out=out, text=running, progress=output.progress)
    output.say(dict(found.summary), f"{found.report}\nAll results: {out} ({REPORT} is this text)")


def _task(facts: str | None, task: str | None, data: Path | None, rule: AnswerRule, protocol: Protocol) -> Task:
    from laser_interp.facts.published import load_task
    from laser_interp.facts.tasks import own_task

    if (facts is None) == (task is None):
        raise ValueError("expected either --facts, your own, or --task, a published set")
    if task is not None:
        return load_task(task, data, protocol=protocol)
    return own_task(facts, rule)
