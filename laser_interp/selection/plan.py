"""The plan of a search: its edits, facts and units. All of it is checked before any work starts."""

import hashlib
import random
from collections.abc import Iterable
from typing import Any

import pandas as pd

from laser_interp.choices import PROPOSED, UNIT_PROMPTS, SplitRule
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.edits.sites import Site, resolve_layers, sites_in
from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.facts.tasks import AnyFacts, Task, task_of
from laser_interp.models.bfloat16 import bfloat16_is_faster
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.scoring.answer_rules import answers_up_to, most_answer_tokens
from laser_interp.scoring.memory import parse_memory
from laser_interp.selection.execution import Unit, Worker
from laser_interp.selection.grid import grid_cells
from laser_interp.selection.settings import GridSettings, SearchSettings
from laser_interp.storage.provenance import provenance
from laser_interp.storage.run_folder import RunFolder

BASE_GROUP = "base"
FIRST_ROUND = 16  # prompts of a race; each round has as many as all before it


def sites_of(model: Model, settings: GridSettings) -> list[Site]:
    """The sites that the settings name, by matrix, then layer."""
    layers = resolve_layers(model, "all" if settings.layers is None else settings.layers)
    sites = sites_in(model, layers, settings.matrices)
    return sorted(sites, key=lambda site: (model.matrices.index(site.matrix), site.layer))


def _not_everywhere(model: Model, sites: Iterable[Site]) -> list[str]:
    """Of the matrices that only some layers of a hybrid have, how many."""
    has = {m: sum((layer, m) in model.maps for layer in range(model.n_layers)) for m in {s.matrix for s in sites}}
    return [f"{m}: {n} of {model.n_layers} layers have it" for m, n in sorted(has.items()) if n < model.n_layers]


def divided_task(model: Model, source: AnyFacts, split: SplitRule | None, seed: int) -> tuple[Task, list[str]]:
    """Facts as a task with a validation and a test half, and notes. Facts that the rule cannot judge are dropped.

    Generation drops answers that are longer than `max_new_tokens`, and the published rule of the next token drops
    answers of more than one token.
    """
    check_model(model)
    task, notes = task_of(source), []
    most = most_answer_tokens(task)
    if most is not None:
        short, dropped = answers_up_to(model, task.facts, most)
        if dropped:
            task, notes = task.keep(short), [f"{dropped} facts have answers of more than {most} tokens: dropped"]
    return task.keep(task.facts.ensure_split(split, seed=seed)), notes


class Plan:
    """A search's cells, facts and units.

    Args:
        task: as `divided_task` makes it.

    Attributes:
        by_site, by_group: cells; a group is a layer.
        lifted: notes on cells that were lifted to rank 1 or dropped.
        notes: how many layers have a matrix that not every layer has, and what a proposal left out.
        method: how the edit is searched for.
        screens: whether the rounds of a race run in bfloat16.
        text: running text for the method rmt, which accepts an edit if the text's perplexity falls; else None.
        identity: what two runs must have in common to be the same run.

    Raises:
        ValueError: something is wrong that would otherwise only fail later, during the search.
    """

    def __init__(self, model: Model, task: Task, settings: SearchSettings, *, text: str | None = None) -> None:
        self.model, self.task, self.settings = model, task, settings
        self.facts = task.facts
        sites = sites_of(model, settings)
        self.by_site, self.lifted = grid_cells(model, sites, settings)
        self.notes = _not_everywhere(model, sites)
        self.by_group: dict[str, tuple[EditSpec, ...]] = {}
        for layer in sorted({site.layer for site in sites}):
            cells = tuple(cell for site in sites if site.layer == layer for cell in self.by_site[site])
            self.by_group[f"layer-{layer:03d}"] = cells
        self.shards = shards_of(self.facts, UNIT_PROMPTS)
        self.method = settings.method_for(task.rule, self.n_cells)
        self.text = text if self.method == "rmt" else None
        if self.method == "rmt" and not text:
            raise ValueError(
                "the method rmt accepts edits if the perplexity of a text falls: give one, by text= or --text"
            )
        if self.method == "learned" and len(self.facts.split("validation")) < 2:
            raise ValueError("the method learned needs two validation facts: half of them stop the learning")
        if self.method != "grid":
            test = [shard for shard in self.shards if shard.facts[0].split != "validation"]
            self.shards = [*rounds_of(self.facts.split("validation"), settings.seed), *test]
        # Without a grid, answers are ranked among those of their relation on test only, for the chosen cell
        plainly = [i for i in range(len(self.shards)) if self.method != "grid" and self.validates(i)]
        self.worker = Worker(model, task, self.shards, settings, without_candidates=plainly)
        self.screens = False
        self.prompts = [sum(len(fact.prompts) for fact in shard) for shard in self.shards]
        parse_memory(settings.memory, model)
        self.worker.check(next(iter(self.cells), None))

    @property
    def cells(self) -> list[EditSpec]:
        """All cells of the grid, site by site."""
        return [cell for cells in self.by_site.values() for cell in cells]

    @property
    def n_cells(self) -> int:
        """Cells besides the model as trained."""
        return sum(map(len, self.by_site.values()))

    @property
    def is_large(self) -> bool:
        """Whether so much is scored that only the columns are kept from which a table of cells is made."""
        return self.method == "grid" and self.n_cells > PROPOSED

    @property
    def identity(self) -> dict[str, Any]:
        """Which model, task and settings the run is of."""
        task = {"rule": self.task.rule, "protocol": self.task.protocol, "max_new_tokens": self.task.max_new_tokens}
        of_method: dict[str, Any] = {"method": self.method}
        if self.text is not None:
            of_method["text_sha256"] = hashlib.sha256(self.text.encode()).hexdigest()
        grid = {"sites": [str(site) for site in self.by_site], "unit_prompts": UNIT_PROMPTS}
        return provenance(self.model, self.facts) | {"task": task} | self.settings.identity() | grid | of_method

    def choose_screening(self, folder: RunFolder) -> None:
        """Decide whether a race's rounds run in bfloat16, as the run was begun: its speed is measured once."""
        if self.method not in ("race", "learned"):
            return
        known = folder.read_part("screening", "screening")
        if known is None:
            asked = self.settings.screen
            faster = asked == "bfloat16" or (asked == "auto" and bfloat16_is_faster(self.model))
            known = pd.DataFrame({"in_bfloat16": [faster]})
            folder.write_part("screening", known, "screening")
        self.screens = bool(known["in_bfloat16"].iloc[0])

    def validates(self, shard: int) -> bool:
        """Whether a shard belongs to validation."""
        return self.shards[shard].facts[0].split == "validation"

    def units(self, by_group: dict[str, tuple[EditSpec, ...]], *, validation: bool) -> list[Unit]:
        """The units of one split, group by group; then the model as trained, which continues from the last layer."""
        shards = [i for i in range(len(self.shards)) if self.validates(i) == validation]
        base = [Unit(BASE_GROUP, i, ()) for i in shards]
        return [Unit(group, i, cells) for group, cells in by_group.items() if cells for i in shards] + base

    def n_prompts(self, *, validation: bool) -> int:
        """Prompts of one split."""
        return sum(n for i, n in enumerate(self.prompts) if self.validates(i) == validation)


def shards_of(facts: FactSet, n_prompts: int) -> list[FactSet]:
    """The facts in parts of about `n_prompts` prompts, none with facts of two splits, validation first."""
    splits = [facts.split(name) for name in sorted(facts.splits, reverse=True)] or [facts]  # validation first
    return [part for split in splits for part in split.in_parts(n_prompts)]


def rounds_of(facts: FactSet, seed: int) -> list[FactSet]:
    """Validation facts in random order, in parts that double the prompts that were seen: 16, 16, 32, 64, …"""
    shuffled: list[Fact] = list(facts)
    random.Random(seed).shuffle(shuffled)
    left = sum(len(fact.prompts) for fact in shuffled)
    parts: list[FactSet] = []
    part: list[Fact] = []
    seen = n_prompts = 0
    for fact in shuffled:
        part.append(fact)
        n_prompts += len(fact.prompts)
        left -= len(fact.prompts)
        size = max(seen, FIRST_ROUND)
        if n_prompts >= size and left >= n_prompts + size:  # less is not worth a round of its own
            parts.append(facts.keep(part))
            seen, part, n_prompts = seen + n_prompts, [], 0
    return [*parts, facts.keep(part)]
