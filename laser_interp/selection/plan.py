"""The plan of a search: its cells, facts and units. All of it is checked before any work starts."""

import hashlib
from collections.abc import Iterable
from typing import Any

from laser_interp.choices import UNIT_PROMPTS
from laser_interp.edits.sites import Site, resolve_layers, resolve_matrices
from laser_interp.facts.tasks import AnyFacts, Task, task_of
from laser_interp.models.bfloat16 import bfloat16_is_faster
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.scoring.answer_rules import answers_up_to, most_answer_tokens
from laser_interp.scoring.memory import parse_memory
from laser_interp.selection.cells import Cell
from laser_interp.selection.grid import grid_cells
from laser_interp.selection.settings import GridSettings, SearchSettings
from laser_interp.selection.units import Unit, Worker, WorkerOptions, rounds_of, shards_of
from laser_interp.storage.provenance import provenance

BASE_GROUP = "base"


def sites_of(model: Model, settings: GridSettings) -> list[Site]:
    """The sites that the settings name, by matrix, then layer."""
    layers = resolve_layers(model, "all" if settings.layers is None else settings.layers)
    return [Site(layer, matrix) for matrix in resolve_matrices(model, settings.matrices) for layer in layers]


def as_task(model: Model, source: AnyFacts) -> tuple[Task, list[str]]:
    """Facts as a task, and notes. Facts whose answers the rule cannot judge are dropped.

    Generation drops answers that are longer than `max_new_tokens`, and the published rule of the next token drops
    answers of more than one token.
    """
    check_model(model)
    task = task_of(source)
    most = most_answer_tokens(task)
    if most is None:
        return task, []
    short, dropped = answers_up_to(model, task.facts, most)
    if not dropped:
        return task, []
    return task.keep(short), [f"{dropped} facts have answers of more than {most} tokens: dropped"]


class Plan:
    """A search's cells, facts and units.

    Attributes:
        task: with facts that have a validation split.
        by_site, by_group: cells; a group is a layer.
        lifted: notes on cells that were lifted to rank 1 or dropped.
        notes: these, and a note on facts that were dropped.
        method: how the edit is searched for.
        screens: whether the rounds of a race run in bfloat16.
        text: running text for the method rmt, which accepts an edit if the text's perplexity falls; else None.
        identity: what two runs must have in common to be the same run.

    Raises:
        ValueError: something is wrong that would otherwise only fail later, during the search.
    """

    def __init__(self, model: Model, source: AnyFacts, settings: SearchSettings, *, text: str | None = None) -> None:
        task, self.notes = as_task(model, source)
        self.model, self.settings = model, settings
        self.task = task.keep(task.facts.ensure_split(settings.split, seed=settings.seed))
        self.facts = self.task.facts
        sites = sites_of(model, settings)
        self.by_site, notes = grid_cells(model, sites, settings)
        self.lifted = notes
        self.notes += notes
        self.by_group: dict[str, tuple[Cell, ...]] = {}
        for layer in sorted({site.layer for site in sites}):
            cells = tuple(cell for site in sites if site.layer == layer for cell in self.by_site[site])
            self.by_group[f"layer-{layer:03d}"] = cells
        self.shards = shards_of(self.facts, UNIT_PROMPTS)
        self.method = settings.method_for(self.task.rule, self.n_cells)
        self.text = _text_for_rmt(text) if self.method == "rmt" else None
        if self.method != "grid":
            test = [shard for shard in self.shards if shard.facts[0].split != "validation"]
            self.shards = [*rounds_of(self.facts.split("validation"), settings.seed), *test]
        # Without a grid, answers are ranked among those of their relation on test only, for the chosen cell
        plainly = [i for i in range(len(self.shards)) if self.method != "grid" and self.validates(i)]
        self.worker = Worker(model, self.task, self.shards, WorkerOptions.of(settings), without_candidates=plainly)
        races = self.method in ("race", "learned")
        self.screens = races and (
            settings.screen == "bfloat16" or (settings.screen == "auto" and bfloat16_is_faster(model))
        )
        self.prompts = [sum(len(fact.prompts) for fact in shard) for shard in self.shards]
        self._check()

    @property
    def n_cells(self) -> int:
        """Cells besides the model as trained."""
        return sum(map(len, self.by_site.values()))

    @property
    def identity(self) -> dict[str, Any]:
        """Which model, task and settings the run is of."""
        task = {"rule": self.task.rule, "protocol": self.task.protocol, "max_new_tokens": self.task.max_new_tokens}
        of_method: dict[str, Any] = {"method": self.method}
        if self.screens:
            of_method["screened"] = "bfloat16"
        if self.text is not None:
            of_method["text_sha256"] = hashlib.sha256(self.text.encode()).hexdigest()
        grid = {"sites": [str(site) for site in self.by_site], "unit_prompts": UNIT_PROMPTS}
        return provenance(self.model, self.facts) | {"task": task} | self.settings.identity() | grid | of_method

    def _check(self) -> None:
        parse_memory(self.settings.memory, self.model)
        for cells in self.by_site.values():
            for cell in cells:
                if Cell.parse(str(cell)) != cell:
                    raise ValueError(f"the cell {str(cell)!r} cannot be read back as it was: choose other numbers")
        self.worker.check()
        first = next((cells[0] for cells in self.by_site.values() if cells), None)
        if first is not None:
            self.worker.placed(first.edit(self.model), 0).check(self.model)

    def validates(self, shard: int) -> bool:
        """Whether a shard belongs to validation."""
        return self.shards[shard].facts[0].split == "validation"

    def units(self, by_group: dict[str, tuple[Cell, ...]], *, validation: bool) -> list[Unit]:
        """The units of one split, group by group; then the model as trained, which continues from the last layer."""
        shards = [i for i in range(len(self.shards)) if self.validates(i) == validation]
        base = [Unit(BASE_GROUP, i, ()) for i in shards]
        return [Unit(group, i, cells) for group, cells in by_group.items() if cells for i in shards] + base

    def count_prompts(self, shards: Iterable[int]) -> int:
        """Prompts of some shards."""
        return sum(self.prompts[i] for i in shards)


def _text_for_rmt(text: str | None) -> str:
    """The text.

    Raises:
        ValueError: there is none.
    """
    if not text:
        raise ValueError(
            "the method rmt needs a text, to accept edits if its perplexity falls: give one, by text= or --text"
        )
    return text
