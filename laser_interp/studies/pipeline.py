"""The study: all steps, one after the other, then summary, report and figures.

search (validation chooses an edit) -> test beside its controls -> frequency -> discarded part -> paraphrases
-> composition -> side effects -> directions -> summary, report in words, figures
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from laser_interp.choices import AnswerRule
from laser_interp.display import Drawable
from laser_interp.edits.edit import Edit
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import AnyFacts, Task, task_of
from laser_interp.frequency.shipped_counts import load_counts
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.plots.registry import FIGURES, draw_all, draw_figure
from laser_interp.selection.cells import Cell
from laser_interp.selection.search_result import Search, Selection
from laser_interp.selection.search_run import save_facts
from laser_interp.selection.units import placed
from laser_interp.storage.atomic import check_writable, write_json, write_text
from laser_interp.storage.checksums import with_checksum
from laser_interp.storage.provenance import provenance
from laser_interp.storage.run_folder import EDIT, REPORT, SUMMARY, open_run
from laser_interp.storage.run_folder import FIGURES as FIGURES_FOLDER
from laser_interp.studies import report_in_words
from laser_interp.studies.context import StudyContext
from laser_interp.studies.settings import StudySettings
from laser_interp.studies.steps import STEPS
from laser_interp.studies.summary import summarise_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCHEMAS = {
    "cells": "cells",
    "scores": "scores",
    "discarded_answers": "answers",
    "composition": "steps",
    "composed_test": "scores",
}


@dataclass(frozen=True)
class Study(Drawable):
    """A finished study. If it has a folder, everything is saved there too.

    Attributes:
        selection: what validation chose, beside the model as trained.
        cell: the edit that was studied.
        search: every cell that was looked at.
        tables: name -> table; `laser_interp.studies.steps` says which step makes which.
        summary: the numbers that the report names, as JSON holds them.
        report: what was found, in words, as Markdown.
        out: the folder, or None.

    Example:
        >>> study = li.study(model, facts, matrices="mlp", rhos=[0.2, 0.05], n_draws=2)
        >>> print(study.report)
    """

    selection: Selection
    cell: Cell
    search: Search
    tables: Mapping[str, pd.DataFrame]
    summary: Mapping[str, Any]
    report: str
    out: Path | None = None

    def edit(self, model: Model) -> Edit:
        """The edit that was studied, made for a model with the same weights."""
        return self.cell.edit(model)

    figure_name = "controls"

    @property
    def figure_tables(self) -> Mapping[str, pd.DataFrame]:
        return self.tables

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure whose tables are there, by name."""
        return {
            name: draw_figure(name, self.tables)
            for name, (_, needed) in FIGURES.items()
            if all(table in self.tables and len(self.tables[table]) for table in needed)
        }

    def __repr__(self) -> str:
        return f"Study({str(self.cell)!r}, {len(self.tables)} tables)"

    def _repr_markdown_(self) -> str:
        return self.report


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
        facts: facts, what `li.load_facts` makes facts of, or a task of `li.load_task` or `li.own_task`.
        counts: training frequencies, from `li.count` or elsewhere: one row a fact, with `fact_id` and `n_both`; or what
            `li.load_counts` loads. None takes the facts' own `frequency`, where all have one.
        task: the rule by which an answer counts as right, if `facts` are not already a task; see `li.own_task`.
        settings, changes: see `StudySettings`; changes by name, as in `matrices="mlp"`.
        out: folder for tables, figures, `summary.json` and `REPORT.md`; a study with the same settings resumes there.
        text: running text, for perplexity before and after.
        control_model: a second model and its facts, on which the edit should have no effect.

    Raises:
        ValueError: bad settings, a folder with another run, or one that another process is writing to.

    Example:
        >>> study = li.study(model, facts, counts, matrices="mlp", rhos=[0.05], n_draws=1, compose=False)
        >>> print(study.report)
    """
    check_model(model)
    if not isinstance(facts, Task):
        facts = task_of(facts, task or "next_token")
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
    return run_study(context)


def run_study(context: StudyContext) -> Study:
    """All steps of a study."""
    started = time.perf_counter()
    model, task, settings = context.model, context.task, context.settings
    rule = {"task": task.name, "rule": task.rule, "protocol": task.protocol}
    identity = provenance(model, task.facts) | rule | settings.identity()
    with ExitStack() as stack:
        folder = None
        if context.out is not None:
            folder = stack.enter_context(open_run(context.out, identity))
            save_facts(folder, task.facts)
        tables: dict[str, pd.DataFrame] = {}
        about: dict[str, Any] = {}
        for step in STEPS:
            made = step(context)
            about = {"edit": str(context.cell), "seed": settings.study_seed}
            for name, table in made.items():
                if folder is not None:
                    folder.write_table(name, table, _SCHEMAS.get(name), **about)
            tables |= made
        summary = summarise_study(context, tables, time.perf_counter() - started)
        figures: list[Path] = []
        if folder is not None:
            caption = {"model": model.name, "edit": str(context.cell), "command": f"laser-interp figures {folder.path}"}
            figures = draw_all(tables, folder.path / FIGURES_FOLDER, about=caption)
        report = report_in_words.describe(context, tables, summary, [p for p in figures if p.suffix == ".pdf"])
        if folder is not None:
            write_json(with_checksum(summary), folder.path / SUMMARY)
            write_text(report, folder.path / REPORT)
            edit = placed(model, context.edit, task.facts, path=settings.path, at=settings.at)
            edit.save(folder.path / EDIT, model=model)
    return Study(context.selection, context.cell, context.search, tables, summary, report, context.out)
