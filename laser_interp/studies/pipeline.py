"""The study: all questions, one after the other; then the sum of their numbers, and the report of their sentences."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.choices import AnswerRule
from laser_interp.display import Drawable
from laser_interp.edits.edit_spec import Described, EditSpec
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import AnyFacts, Task, own_task
from laser_interp.frequency.shipped_counts import load_counts
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.plots.registry import draw_all
from laser_interp.selection.search_result import Search, Selection
from laser_interp.signatures import with_settings
from laser_interp.storage.atomic import check_writable, plain, write_json, write_text
from laser_interp.storage.checksums import with_checksum
from laser_interp.storage.provenance import code_version, provenance
from laser_interp.storage.run_folder import EDIT, FIGURES, FIGURES_LINE, REPORT, SINGLE, SUMMARY, open_run
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer
from laser_interp.studies.questions import QUESTIONS
from laser_interp.studies.settings import StudySettings


@dataclass(frozen=True)
class Study(Described, Drawable):
    """A finished study. If it has a folder, everything is saved there too.

    Attributes:
        selection: what validation chose, beside the model as trained.
        cell: the edit that was studied.
        search: every cell that was looked at.
        answers: what each question found.
        tables: name -> table, of all answers.
        summary: the numbers of all answers, as JSON holds them.
        report: what was found, in words, as Markdown.
        out: the folder, or None.
        single: the study of the single edit, where both were asked for and the strongest is a composition.

    Example:
        >>> study = li.study(model, facts, matrices="mlp", rhos=[0.2, 0.05], n_draws=2)
        >>> print(study.report)
    """

    selection: Selection
    cell: EditSpec
    search: Search
    answers: Sequence[Answer]
    tables: Mapping[str, pd.DataFrame]
    summary: Mapping[str, Any]
    report: str
    out: Path | None = None
    facts: FactSet | None = field(default=None, repr=False)
    single: Study | None = field(default=None, repr=False)

    figure_name = "controls"

    def __repr__(self) -> str:
        return f"Study({str(self.cell)!r}, {len(self.tables)} tables)"

    def _repr_markdown_(self) -> str:
        return self.report


@with_settings(StudySettings)
def study(
    model: Model,
    facts: AnyFacts,
    counts: pd.DataFrame | str | Path | None = None,
    task: AnswerRule | None = None,
    settings: StudySettings | None = None,
    *,
    out: str | Path | None = None,
    text: str | None = None,
    control_model: tuple[Model, FactSet] | None = None,
    progress: bool = True,
    **changes: Any,
) -> Study:
    """Run every analysis of the paper on any model and any facts.

    Args:
        facts: facts, what `li.load_facts` makes facts of, or a task of `li.tasks.load_task` or `li.tasks.own_task`.
        counts: training frequencies, from `li.count` or elsewhere: one row a fact, with `fact_id` and `n_both`; or what
            `li.load_counts` loads. None takes the facts' own `frequency`, where all have one, and for shipped facts the
            shipped counts.
        task: the rule by which an answer counts as right, if `facts` are not already a task; see `li.tasks.own_task`.
        settings, changes: see `StudySettings`; changes by name, as in `matrices="mlp"`.
        out: folder for tables, figures, `summary.json` and `REPORT.md`; a study with the same settings resumes there.
        text: running text, for perplexity before and after, and for the method rmt.
        control_model: a second model and its facts, on which the edit should have no effect.

    Raises:
        ValueError: bad settings, a folder with another run, or one that another process is writing to.

    Example:
        >>> study = li.study(model, facts, counts, matrices="mlp", rhos=[0.05], n_draws=1, compose=False)
        >>> print(study.report)
    """
    check_model(model)
    if not isinstance(facts, Task):
        facts = own_task(facts, task or "next_token")
    elif task is not None and task != facts.rule:
        raise ValueError(f"task is {task!r}, and the facts are a task with the rule {facts.rule!r}: give one of them")
    if isinstance(counts, str | Path):
        counts = load_counts(counts)
    context = StudyContext(
        model,
        facts,
        StudySettings.of(settings, changes),
        counts,
        None if out is None else check_writable(out),
        control_model=control_model,
        text=text,
        progress=progress,
    )
    found = run_study(context)
    if context.settings.subject == "both" and context.cell != context.single:
        own = {"chosen": context.single, "task": context.whole_task, "out": context.folder(SINGLE), "notes": []}
        single = replace(context, **own, settings=replace(context.settings, chance=0))
        single.search, single.composition, single.store = context.search, context.composition, context.store
        found = replace(found, single=run_study(single))
    return found


def run_study(context: StudyContext) -> Study:
    """All questions of a study."""
    started = time.perf_counter()
    model, task, settings = context.model, context.task, context.settings
    rule = {"task": task.name, "rule": task.rule, "protocol": task.protocol}
    identity = provenance(model, task.facts) | rule | settings.identity()
    with open_run(context.out, identity, task.facts) as folder:
        asked: list[Answer] = []
        for question in QUESTIONS:
            if (answer := question.ask(context)) is None:
                continue
            asked.append(answer)
            about = {"edit": str(context.cell), "seed": settings.study_seed}
            for name, table in answer.tables.items():
                folder.write_table(name, table, answer.schemas.get(name), **about)
        summary = _summary(context, asked, time.perf_counter() - started)
        answers = [replace(answer, numbers=summary) for answer in asked]
        tables = {name: table for answer in answers for name, table in answer.tables.items()}
        figures: list[Path] = []
        if context.out is not None:
            caption = {"model": model.name, "edit": str(context.cell), "command": f"laser-interp figures {folder.path}"}
            figures = draw_all(tables, folder.path / FIGURES, about=caption)
        report = _report(context, answers, summary, [path for path in figures if path.suffix == ".pdf"])
        if context.out is not None:
            write_json(with_checksum(summary), folder.path / SUMMARY)
            write_text(report, folder.path / REPORT)
            context.edit.save(folder.path / EDIT, model=model)
    facts = context.whole_task.facts
    return Study(context.selection, context.cell, context.search, answers, tables, summary, report, context.out, facts)


def _summary(context: StudyContext, answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    """All numbers. A question that was not asked has none."""
    model, task = context.model, context.task
    of_model = {"name": model.name, "n_params": model.n_params, "weights_sha256": model.weights_sha256}
    of_model |= {"quantisation": model.quantisation} if model.quantisation else {}
    notes = [*context.notes, *context.search.notes]
    if not context.selection.improves:
        notes.append("validation found no cell better than the model as trained")
    summary: dict[str, Any] = {
        "model": of_model,
        "task": {"name": task.name, "rule": task.rule, "protocol": task.protocol},
        "dropped": dict(task.dropped),
    }
    for answer in answers:
        summary |= answer.numbers
    about = {"code_version": code_version(), "seed": context.settings.study_seed, "seconds": round(seconds, 1)}
    return plain(summary | {"notes": notes} | about)


_MOST_NOTES = 5  # in the report; the summary has all


def _report(
    context: StudyContext, answers: Sequence[Answer], summary: Mapping[str, Any], figures: Sequence[Path]
) -> str:
    """The report, as Markdown."""
    task, was = context.task, summary["model"].get("quantisation")
    n_prompts = summary["test"]["base"]["n"]
    dequantised = f", dequantised from {was} (LASER may also remove noise of the quantisation)" if was else ""
    notes = [f"- {note}" for note in summary["notes"][:_MOST_NOTES]]
    if (more := len(summary["notes"]) - len(notes)) > 0:
        notes.append(f"- … and {more} more in summary.json")
    sections = [
        [f"# LASER on {html.escape(context.model.name)}: {html.escape(task.title or task.name)}"],
        [
            f"{summary['model']['n_params']:,} parameters{dequantised}; {n_prompts} test prompts of "
            f"{len(context.test)} facts, judged by the rule {task.rule} ({task.protocol}); "
            f"{summary['seconds']:.0f} s."
        ],
        ["## What was found", "", *(f"- {found}" for answer in answers if (found := answer.finding()))],
        *([f"## {answer.title}", "", *lines] for answer in answers if (lines := answer.lines())),
        ["## Notes", "", *notes] if notes else [],
        [f"{FIGURES_LINE}`{figures[0].parent}`: {', '.join(path.stem for path in figures)}."] if figures else [],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
