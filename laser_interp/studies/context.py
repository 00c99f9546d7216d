"""What every question of a study is asked of: a model, a task, and what earlier questions found.

Each result is computed once, when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.edits.controls import CONTROLS, fits_layer
from laser_interp.edits.edit import Edit
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import Task, facts_of
from laser_interp.frequency.shipped_counts import counts_of, own_counts
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.scoring.text_loss import check_text
from laser_interp.selection.composition import Composition, run_composition
from laser_interp.selection.plan import Plan, divided_task, sites_of
from laser_interp.selection.score_store import ScoreStore
from laser_interp.selection.search_result import Search, Selection
from laser_interp.selection.search_run import run_plan
from laser_interp.selection.settings import CompositionSettings, SearchSettings
from laser_interp.statistics.paired_scores import UNCERTAIN, known_counts
from laser_interp.studies.settings import StudySettings


@dataclass
class StudyContext:
    """A study in progress, of what `li.study` takes.

    Attributes:
        task: the facts with the rule by which an answer counts as right.
        out: folder of the results, from which a stopped study resumes; with None nothing is saved.
        chosen: the edit to be studied; None lets validation choose it.
    """

    model: Model
    task: Task
    settings: StudySettings = field(default_factory=StudySettings)
    counts: pd.DataFrame | None = None
    out: Path | None = None
    chosen: EditSpec | None = None
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
            self.control_model = other, _ = self.control_model[0], facts_of(self.control_model[1])
            sites = sites_of(self.model, self.settings) if self.chosen is None else self.chosen.sites
            if missing := [site for site in sites if (site.layer, site.matrix) not in other.maps]:
                raise ValueError(
                    f"the control model {other.name!r} has no {missing[0]}, which the study may choose: give one with "
                    "the same layers and matrices"
                )
        if self.text is not None:
            check_text(self.model, self.text)
        self.whole_task, notes = divided_task(self.model, self.task, self.settings.split, self.settings.seed)
        self.notes += notes
        self.task = self.whole_task
        if self.settings.prompts == "first":
            first = [replace(fact, paraphrases=()) for fact in self.whole_task.facts]
            self.task = self.whole_task.keep(self.whole_task.facts.keep(first))
        if self.counts is None:
            self.counts = own_counts(self.task.facts)
        if self.counts is None and (shipped := counts_of(self.task.facts)) is not None:
            self.counts = shipped
            self.notes.append(f"the counts are those that come with the facts: load_counts({self.task.facts.name!r})")
        test = self.test  # raises where there are none
        if self.counts is not None:
            if isinstance(self.counts, pd.DataFrame) and UNCERTAIN in self.counts.columns:
                self.counts = self.counts[~self.counts[UNCERTAIN]]  # as facts without a count
            self.counts = known_counts(self.counts)
            if not {fact.fact_id for fact in test} & set(self.counts["fact_id"]):
                raise ValueError(
                    f"the counts hold none of the {len(test)} test facts of {self.task.name!r}: they are of other facts"
                )

    @property
    def facts(self) -> FactSet:
        """All facts, with their splits."""
        return self.task.facts

    @property
    def test(self) -> FactSet:
        """The test facts."""
        return self.facts.split("test")

    @property
    def permutations(self) -> dict[str, Any]:
        """How the statistics permute subjects."""
        return {"n_permutations": self.settings.n_permutations, "seed": self.settings.study_seed}

    def folder(self, name: str) -> Path | None:
        """A folder inside the study's folder, or None where nothing is saved."""
        return None if self.out is None else self.out / name

    # --- which edit -------------------------------------------------------------------------------

    @cached_property
    def search(self) -> Search:
        """What the method looked at, on validation."""
        plan = Plan(self.model, self.task, SearchSettings.of(self.settings, {}), text=self.text)
        return run_plan(plan, self.folder("search"), store=self.store, progress=self.progress)

    @cached_property
    def selection(self) -> Selection:
        """What validation chose."""
        return self.search.select()

    @property
    def composes(self) -> bool:
        """Whether edits are composed."""
        wanted = self.settings.compose
        return self.task.rule == "next_token" if wanted is None else wanted

    @property
    def single(self) -> EditSpec:
        """The edit that the search chose, or the given one."""
        return self.selection.cell if self.chosen is None else self.chosen

    @cached_property
    def cell(self) -> EditSpec:
        """The edit that is studied: the composition where validation prefers it, by score, then by loss."""
        if self.chosen is not None or self.settings.subject == "single" or not self.composes:
            return self.single
        found = self.composition
        if found.spec is None or replace(found.spec, rho=None) == replace(self.single, rho=None):
            return self.single
        last, single = found.by_step.iloc[-1].to_dict(), self.selection
        composed = (float(last["validation_score"]), -float(last["validation_loss"]))
        return found.spec if composed > (single.score, -single.loss) else self.single

    @cached_property
    def edit(self) -> Edit:
        """The edit that is studied, made for the model; it acts on all prompts of the study."""
        return self.cell.edit(self.model, self.whole_task.facts)

    @property
    def discards_something(self) -> bool:
        """Whether the edit keeps less than the whole matrix, so that there is a discarded part to look at."""
        return any(bool((part.gains != 1).any()) for part in self.edit.parts.values())

    @property
    def _placed(self) -> dict[str, Any]:
        """Where the given edit acts, and how it divides matrices, if one is given."""
        return {} if self.chosen is None else {name: getattr(self.chosen, name) for name in ("path", "at", "blocks")}

    @cached_property
    def around(self) -> Search | None:
        """A search at the chosen site: every ρ, its discarded part, and that part injected at several strengths."""
        if len(self.cell.sites) != 1:
            return None
        settings: dict[str, Any] = {
            "matrices": (self.cell.site.matrix,),
            "layers": (self.cell.site.layer,),
            "alphas": self.settings.strengths,
            "controls": ("discarded",),
            "method": "grid",
            "test": "all" if self.settings.test == "all" else "none",
        }
        plan = Plan(self.model, self.task, SearchSettings.of(self.settings, settings | self._placed))
        return run_plan(plan, self.folder("search-selected"), store=self.store, progress=self.progress)

    @cached_property
    def composition(self) -> Composition:
        """Several edits together, each chosen on validation."""
        changes = {"method": self.settings.composition} | self._placed
        if self.settings.matrices == ("all",):
            changes["matrices"] = CompositionSettings.matrices  # the paper composes MLP matrices
        settings = CompositionSettings.of(self.settings, changes)
        may_start = settings.method == "guided" and self.chosen is None and self.single.kind == "laser"
        return run_composition(
            self.model,
            self.task,
            settings,
            start=self.single if may_start and self.selection.improves else None,
            out=self.folder("composed"),
            store=self.store,
            progress=self.progress,
        )

    # --- scores -----------------------------------------------------------------------------------

    @cached_property
    def store(self) -> ScoreStore:
        """The scores of this study, whichever question asks for them."""
        return ScoreStore(self.model, self.task, self.settings, self.folder("scores"), self.progress)

    @cached_property
    def control_edits(self) -> dict[str, EditSpec | None]:
        """Label -> edit: the model as trained, LASER, and all controls; random ones are labelled "NAME/SEED". Beside a
        composition stands the single edit."""
        edits: dict[str, EditSpec | None] = {"base": None, "laser": self.cell}
        if self.cell != self.single:
            edits["single"] = self.single
        seeds = range(self.settings.study_seed, self.settings.study_seed + self.settings.n_draws)
        for name, control in CONTROLS.items():
            if name == "discarded" and not self.discards_something:
                continue
            if name == "layer_0" and not fits_layer(self.model, self.cell.sites, 0, self.cell.blocks):
                continue
            if control.is_random:
                edits |= {f"{name}/{seed}": self.cell.of_kind(name, seed=seed) for seed in seeds}
            else:
                edits[name] = self.cell.of_kind(name)
        return edits

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Test scores under the edit and its controls."""
        return self.store.scores(self.test, self.control_edits)

    @cached_property
    def scores_of_all_prompts(self) -> pd.DataFrame:
        """Test scores of the model as trained and the edit, on every prompt of each fact."""
        asked = self.scores[self.scores["edit"].isin(["base", "laser"])]
        test = self.whole_task.facts.split("test")
        others = [replace(f, prompt=f.paraphrases[0], paraphrases=f.paraphrases[1:]) for f in test if f.paraphrases]
        if self.settings.prompts == "all" or not others:
            return asked
        edits = {"base": None, "laser": self.cell}
        more = self.store.scores(self.whole_task.facts.keep(others), edits, candidates=False)
        return pd.concat([asked, more.assign(prompt_id=more["prompt_id"] + 1)], ignore_index=True)

    def on_control_model(self) -> StudyContext | None:
        """The study of the control model, by the same rule, where there is one."""
        if self.control_model is None:
            return None
        model, facts = self.control_model
        settings = replace(self.settings, test="chosen")
        task = replace(self.task, name=facts.name, facts=facts, title="", licence="", citation="", dropped={})
        out, text = self.folder("control-model"), self.text if settings.method == "rmt" else None
        return StudyContext(model, task, settings, out=out, text=text, progress=self.progress)
