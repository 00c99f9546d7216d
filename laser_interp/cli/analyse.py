"""Answer a single question of the paper.

For example: laser-interp analyse controls --model organism --edit 3.in:0.05

`analyses/` has one file per question.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App, Parameter

from laser_interp.cli.app import COMMANDS, help_of

if TYPE_CHECKING:
    from types import ModuleType

    from laser_interp.studies.context import StudyContext
    from laser_interp.studies.question import Answer

analyse = App(name="analyse", suppress_keyboard_interrupt=False, **COMMANDS["analyse"])


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Question:
    """What an analysis works on: a model, facts, their frequencies and an edit.

    Attributes:
        model: Name of a shipped model, a folder, or a hub id.
        facts: Name of shipped facts, or a fact file. If left out, the facts of the shipped example.
        counts: Training frequencies, from laser-interp count, or wikidata for those of the shipped facts.
        corpus: Corpus to count in, where there are no counts. If left out, a shipped organism's own corpus.
        edit: SITE:RHO, as in 3.in:0.05. If left out, the edit that validation chooses.
        out: Folder for the results; runs/MODEL if left out. Analyses with the same settings share the search in it.
    """

    model: str = "organism"
    facts: str | None = None
    counts: str | None = None
    corpus: str | None = None
    edit: str | None = None
    out: Path | None = None

    def context(self, **changes: Any) -> StudyContext:
        """The study of which the analysis is a step.

        Args:
            changes: settings by name, where the analysis needs others than the example's.
        """
        from laser_interp.edits.edit_loading import read_edit
        from laser_interp.edits.edit_spec import EditSpec
        from laser_interp.facts.files import load_facts
        from laser_interp.facts.shipped import SHIPPED
        from laser_interp.facts.tasks import Task
        from laser_interp.frequency.counting import count
        from laser_interp.frequency.shipped_counts import load_counts
        from laser_interp.models.loading import load_model
        from laser_interp.studies.context import StudyContext
        from laser_interp.studies.examples import EXAMPLES
        from laser_interp.studies.settings import StudySettings

        if self.counts is not None and self.corpus is not None:
            raise ValueError("expected --counts, or --corpus to count in, and both were given: leave one out")
        ours = self.model in SHIPPED
        example = EXAMPLES.get(self.model)
        if self.facts is None and not ours and example is None:
            raise ValueError(f"--facts is needed for the model {self.model!r}")
        facts = load_facts(self.facts or (self.model if example is None else example.facts))
        counts = None if self.counts is None else load_counts(self.counts)  # a wrong path is told at once
        model = load_model(self.model)
        corpus = self.model if self.corpus is None and ours and self.facts is None else self.corpus
        if counts is None and corpus is not None:
            counts = count(facts, corpus)
        as_others = StudySettings() if example is None else example.settings
        settings = StudySettings.of(as_others, changes)
        out = self.out or Path("runs") / Path(self.model).name
        return StudyContext(
            model,
            Task(facts.name, facts),
            settings,
            counts=counts,
            out=out if settings == as_others else out / "-".join(map(str, changes.values())),  # a search of its own
            chosen=None if self.edit is None else EditSpec.of(read_edit(model, self.edit, facts)),
        )


def analyses_package() -> ModuleType:
    """The package with the analyses: `laser_interp.analyses` in an installed wheel, `analyses` in the checkout."""
    name = "laser_interp.analyses" if find_spec("laser_interp.analyses") else "analyses"
    return importlib.import_module(name)


def answered(context: StudyContext, question: type[Answer]) -> Answer:
    """The answer to one question of a study.

    Raises:
        ValueError: it cannot be asked of this model and these facts.
    """
    answer = question.ask(context)
    if answer is None:
        raise ValueError(f"this question cannot be asked here: {context.task.name} is judged by {context.task.rule}")
    return answer


def finish(context: StudyContext, tables: Mapping[str, Any], text: str) -> None:
    """Write the tables and figures of an analysis that is a step of a study, and print their paths."""
    from laser_interp.storage.provenance import provenance

    assert context.out is not None
    command = {"command": f"laser-interp figures {context.out}"}
    write_all(context.out, tables, text, provenance(context.model, context.facts) | command)


def write_all(out: Path, tables: Mapping[str, Any], text: str, about: Mapping[str, Any], *own_figures: Any) -> None:
    """Write tables and figures, and print a text and their paths.

    Args:
        about: where the tables come from, and the `command` that captions name.
        own_figures: figures of the analysis itself; without them, every figure of `li.plots` that can be drawn.
    """
    from laser_interp.plots.registry import draw_all
    from laser_interp.storage.run_folder import FIGURES, TABLES
    from laser_interp.storage.tables import write_table

    figures = [function.figure for function in own_figures] or None
    paths = [write_table(table, out / TABLES / f"{name}.parquet", None, about) for name, table in tables.items()]
    paths += draw_all(tables, out / FIGURES, about=about, figures=figures)
    print("\n".join(filter(None, [text, *map(str, paths)])))


_package = analyses_package()
for _path in sorted(Path(_package.__path__[0]).glob("[!_]*.py")):
    analyse.command(f"{_package.__name__}.{_path.stem}:main", name=_path.stem, **help_of(_path, "main"))
