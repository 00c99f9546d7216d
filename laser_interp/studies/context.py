"""What every step of a study works on: a model, a task, and what earlier steps found.

Each result is computed once, when it is asked for.

`laser_interp.studies.pipeline` uses all results; each file in `analyses/` answers one question and uses some of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from laser_interp.edits.controls import CONTROLS
from laser_interp.edits.edit import Edit
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import Task, facts_of
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.scoring.text_loss import check_text
from laser_interp.selection.cells import Cell
from laser_interp.selection.composition import Composition, compose
from laser_interp.selection.plan import as_task
from laser_interp.selection.score_cells import score_cells
from laser_interp.selection.search_result import Search, Selection
from laser_interp.selection.search_run import search
from laser_interp.selection.settings import CompositionSettings, GridSettings
from laser_interp.selection.units import WorkerOptions
from laser_interp.statistics.association import Association, associate
from laser_interp.statistics.comparison import Comparison, compare
from laser_interp.statistics.paired_scores import UNCERTAIN, as_table, known_counts
from laser_interp.studies.settings import StudySettings


@dataclass
class StudyContext:
    """A study in progress.

    Attributes:
        model, task: the model, and the facts with the rule by which an answer counts as right.
        settings: of the study.
        counts: training frequencies, one row a fact; None takes the facts' own `frequency`, where all have one.
        out: folder of the results, from which a stopped study resumes; with None nothing is saved.
        chosen: the edit to be studied; None lets validation choose it.
        control_model: a second model and its facts, on which the edit should have no effect.
        text: running text, for perplexity.
    """

    model: Model
    task: Task
    settings: StudySettings = field(default_factory=StudySettings)
    counts: pd.DataFrame | None = None
    out: Path | None = None
    chosen: Cell | None = None
    control_model: tuple[Model, FactSet] | None = None
    text: str | None = None
    progress: bool = True
    notes: list[str] = field(default_factory=list)
    whole_task: Task = field(init=False)  # with all prompts, even if the study asks only the first of each fact

    def __post_init__(self) -> None:
        """Check all that is given, before any work."""
        if self.control_model is not None:
            if not isinstance(self.control_model, tuple) or len(self.control_model) != 2:
                raise ValueError(
                    "control_model is no pair: expected (model, facts), as of li.load_model and li.load_facts"
                )
            check_model(self.control_model[0])
            self.control_model = self.control_model[0], facts_of(self.control_model[1])
        if self.text is not None:
            check_text(self.model, self.text)
        task, notes = as_task(self.model, self.task)
        self.notes += notes
        self.whole_task = task.keep(task.facts.ensure_split(self.settings.split, seed=self.settings.seed))
        self.task = self.whole_task
        if self.settings.prompts == "first":
            first = [replace(fact, paraphrases=()) for fact in self.whole_task.facts]
            self.task = self.whole_task.keep(self.whole_task.facts.keep(first))
        if self.counts is None and all(fact.frequency is not None for fact in self.task.facts):
            frequency = self.task.facts.to_frame()[["fact_id", "frequency"]]
            self.counts = frequency.rename(columns={"frequency": "n_both"})
        if self.counts is not None and not isinstance(self.counts, pd.DataFrame):
            self.counts = as_table(self.counts)
        if self.counts is not None and UNCERTAIN in self.counts.columns:
            self.counts = self.counts[~self.counts[UNCERTAIN]].reset_index(drop=True)  # as facts without a count
        test = self.test.facts  # raises where there are none
        if self.counts is not None:
            self.counts = known_counts(self.counts)
            if not {fact.fact_id for fact in test} & set(self.counts["fact_id"]):
                raise ValueError(
                    f"the counts hold none of the {len(test)} test facts of {self.task.name!r}: they are of other facts"
                )

    # --- which edit -------------------------------------------------------------------------------

    @property
    def facts(self) -> FactSet:
        """All facts, with their splits."""
        return self.task.facts

    @property
    def test(self) -> Task:
        """The task on its test facts."""
        return self.task.keep(self.facts.split("test"))

    @cached_property
    def search(self) -> Search:
        """Every cell on validation."""
        with lifted_cells_are_in_the_notes():
            return search(
                self.model, self.task, self.settings.of_search(), out=self.folder("search"), progress=self.progress
            )

    @cached_property
    def selection(self) -> Selection:
        """What validation chose."""
        return self.search.select()

    @cached_property
    def cell(self) -> Cell:
        """The edit that is studied."""
        return self.selection.cell if self.chosen is None else self.chosen

    @cached_property
    def edit(self) -> Edit:
        """The edit that is studied, made for the model."""
        return self.cell.edit(self.model)

    @property
    def discards_something(self) -> bool:
        """Whether the edit keeps less than the whole matrix, so that there is a discarded part to look at."""
        return any(bool((part.gains != 1).any()) for part in self.edit.parts.values())

    @cached_property
    def around(self) -> Search | None:
        """A search at the chosen site: every ρ, its discarded part, and that part injected at several strengths."""
        if len(self.cell.sites) != 1:
            return None
        settings = self.settings.of_search(
            matrices=(self.cell.site.matrix,),
            layers=(self.cell.site.layer,),
            alphas=self.settings.strengths,
            controls=("discarded",),
            method="grid",
            test="all" if self.settings.test == "all" else "none",
        )
        with lifted_cells_are_in_the_notes():
            return search(self.model, self.task, settings, out=self.folder("search-selected"), progress=self.progress)

    # --- the edit on test, beside its controls ----------------------------------------------------

    @cached_property
    def control_cells(self) -> dict[str, Cell | None]:
        """Label -> cell: the model as trained, LASER, and all controls; random ones are labelled "NAME/SEED"."""
        cells: dict[str, Cell | None] = {"base": None, "laser": self.cell}
        seeds = range(self.settings.study_seed, self.settings.study_seed + self.settings.n_draws)
        for name, control in CONTROLS.items():
            if name == "discarded" and not self.discards_something:
                continue
            if name == "layer_0" and any(site.layer == 0 for site in self.cell.sites):
                continue
            if control.is_random:
                cells |= {f"{name}/{seed}": self.cell.of_kind(name, seed=seed) for seed in seeds}
            else:
                cells[name] = self.cell.of_kind(name)
        return cells

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Test scores under the edit and its controls."""
        return self.score(self.control_cells, "test")

    def score(self, cells: dict[str, Cell | None], part: str) -> pd.DataFrame:
        """Test scores under some cells, kept in a folder of this name."""
        return self._score(self.test, cells, part)

    @cached_property
    def scores_of_all_prompts(self) -> pd.DataFrame:
        """Test scores of the model as trained and the edit, on every prompt of each fact."""
        if self.settings.prompts == "all":
            return self.scores[self.scores["edit"].isin(["base", "laser"])]
        asked = self.scores[self.scores["edit"].isin(["base", "laser"])]
        test = self.whole_task.facts.split("test")
        others = [replace(f, prompt=f.paraphrases[0], paraphrases=f.paraphrases[1:]) for f in test if f.paraphrases]
        if not others:
            return asked
        task = self.whole_task.keep(self.whole_task.facts.keep(others))
        more = self._score(task, {"base": None, "laser": self.cell}, "test-paraphrases", candidates=False)
        return pd.concat([asked, more.assign(prompt_id=more["prompt_id"] + 1)], ignore_index=True)

    def score_validation(self, cells: dict[str, Cell | None], part: str) -> pd.DataFrame:
        """Validation scores under some cells, kept in a folder of this name."""
        return self._score(self.task.keep(self.facts.split("validation")), cells, part, candidates=False)

    def _score(self, task: Task, cells: dict[str, Cell | None], part: str, *, candidates: bool = True) -> pd.DataFrame:
        options = WorkerOptions.of(self.settings)
        options = replace(options, candidates=options.candidates and candidates)
        return score_cells(self.model, task, cells, options, out=self.folder(part), progress=self.progress)

    # --- for which facts --------------------------------------------------------------------------

    @cached_property
    def counted_scores(self) -> pd.DataFrame:
        """Test scores of the facts that have a count; how many have none is noted."""
        assert self.counts is not None
        counted = self.scores["fact_id"].isin(set(self.counts["fact_id"]))
        without, n_facts = self.scores.loc[~counted, "fact_id"].nunique(), self.scores["fact_id"].nunique()
        if without:
            self.notes.append(
                f"{without} of {n_facts} test facts have no count: the analysis of frequency leaves them out"
            )
        return self.scores[counted].reset_index(drop=True)

    @cached_property
    def association(self) -> Association:
        """Do the gains fall on rare facts?"""
        return associate(
            self.counted_scores, self.counts, seed=self.settings.study_seed, n_permutations=self.settings.n_permutations
        )

    @cached_property
    def placebo(self) -> Comparison:
        """The same question asked of random edits of equal norm, which should show nothing."""
        random = [
            label
            for label in dict.fromkeys(self.counted_scores["edit"])
            if (control := CONTROLS.get(str(label).partition("/")[0])) is not None and control.is_placebo
        ]
        return compare(
            self.counted_scores,
            self.counts,
            edits=["laser", *random],
            placebos=random,
            n_permutations=self.settings.n_permutations,
            seed=self.settings.study_seed,
        )

    # --- more edits than one ----------------------------------------------------------------------

    @cached_property
    def composition(self) -> Composition:
        """Several edits together, each chosen on validation."""
        shared = {name: getattr(self.settings, name) for name in GridSettings.__dataclass_fields__}
        if self.settings.matrices == ("all",):
            del shared["matrices"]  # the paper composes MLP matrices
        settings = CompositionSettings(**shared, method=self.settings.composition, most_edits=self.settings.most_edits)
        guided = settings.method == "guided"
        start = self.cell if guided and self.chosen is None and self.selection.improves else None
        return compose(
            self.model, self.task, settings, start=start, out=self.folder("composed"), progress=self.progress
        )

    def folder(self, name: str) -> Path | None:
        """A folder inside the study's folder, or None where nothing is saved."""
        return None if self.out is None else self.out / name

    def on_control_model(self) -> StudyContext | None:
        """The study of the control model, where there is one."""
        if self.control_model is None:
            return None
        model, facts = self.control_model
        settings = replace(self.settings, test="chosen")
        return StudyContext(
            model, Task(facts.name, facts), settings, out=self.folder("control-model"), progress=self.progress
        )


@contextmanager
def lifted_cells_are_in_the_notes() -> Iterator[None]:
    """Silence the warning about cells that were lifted or dropped, because the caller reports them as notes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\d+ cells of the grid")
        yield
