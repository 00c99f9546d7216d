"""Units: the pieces in which cells are scored, and the worker that scores them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import pandas as pd

from laser_interp.choices import EngineName, Path, Position, RankBy
from laser_interp.edits.edit import Edit
from laser_interp.edits.placement import positions
from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.facts.tasks import Task
from laser_interp.models.bfloat16 import in_bfloat16
from laser_interp.models.model import Model
from laser_interp.scoring.answer_rules import DETAILED_RULES
from laser_interp.scoring.scorer import Scorer
from laser_interp.selection.cells import Cell
from laser_interp.selection.settings import SearchSettings
from laser_interp.storage.schemas import SCHEMAS

_LEAN = list(SCHEMAS["search_part"])
FIRST_ROUND = 16  # prompts of a race; each round has as many as all before it


@dataclass(frozen=True)
class Unit:
    """Some cells on one part of the facts.

    Attributes:
        group: what the cells have in common, "layer-003" or "base"; units of a group run one after the other on one
            worker, so that its factors and residual streams can be reused.
        shard: which part of the facts.
        cells: the cells that are scored; an empty tuple means the model as trained.
        screened: whether matrices are multiplied in bfloat16, which is exact enough to tell good cells from bad ones.
    """

    group: str
    shard: int
    cells: tuple[Cell, ...]
    screened: bool = False

    @property
    def name(self) -> str:
        """Where the unit's scores are kept."""
        return f"{self.group}/{self.shard:05d}"

    @property
    def n_cells(self) -> int:
        """How many times each prompt is scored."""
        return max(len(self.cells), 1)


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker scores; see `SearchSettings`."""

    generic: tuple[str, ...] | None = None
    candidates: bool = True
    rank_by: RankBy = "answers"
    engine: EngineName = "fast"
    memory: int | str | None = None
    path: Path = "network"
    at: Position | None = None

    @classmethod
    def of(cls, settings: SearchSettings) -> WorkerOptions:
        """Those of the settings that a worker needs."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})


class Worker:
    """A model with a task in parts, tokenised once, that scores one unit after the other.

    Args:
        task: what is asked, and the rule by which an answer counts as right.
        shards: parts of its facts.
        lean: keep only the columns that a table of cells is made from.
        without_candidates: parts on which answers are not ranked among those of their relation.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        shards: Sequence[FactSet],
        options: WorkerOptions,
        *,
        lean: bool = True,
        without_candidates: Collection[int] = (),
    ) -> None:
        self.model, self.task, self.shards, self.options, self.lean = model, task, shards, options, lean
        self.without_candidates = frozenset(without_candidates)
        self.made: dict[Cell, Edit] = {}  # edits that a cell's text does not describe
        self._scorers: dict[int, Scorer] = {}

    def check(self) -> None:
        """Tokenise every answer of every part, and look for every place at which edits act.

        Raises:
            ValueError: something is wrong that would otherwise only fail later.
        """
        for shard, facts in enumerate(self.shards):
            self._scorer(shard)
            if self.options.at is not None:
                positions(self.model, self.options.at, facts)

    def _scorer(self, shard: int) -> Scorer:
        if shard not in self._scorers:
            self._scorers[shard] = Scorer(
                self.model,
                self.task.keep(self.shards[shard]),
                generic=self.options.generic,
                candidates=self.options.candidates and shard not in self.without_candidates,
                rank_by=self.options.rank_by if self.task.rule not in DETAILED_RULES else "answers",
            )
        return self._scorers[shard]

    def placed(self, edit: Edit, shard: int) -> Edit:
        """The edit where the options want it."""
        return placed(self.model, edit, self.shards[shard], path=self.options.path, at=self.options.at)

    def run(self, unit: Unit, tick: Callable[[float], object] | None = None) -> pd.DataFrame:
        """The unit's scores, a row per (cell, fact, prompt)."""
        edits: dict[str, Edit | None] = {
            str(cell): self.placed(self.made.get(cell) or cell.edit(self.model), unit.shard) for cell in unit.cells
        } or {"": None}
        scorer = self._scorer(unit.shard)
        labelled = scorer.run(edits, tick=tick, engine=self.options.engine, memory=self.options.memory)
        frames = []
        with in_bfloat16(self.model) if unit.screened else nullcontext():
            for name, frame in labelled:
                frame = frame.assign(cell=name)
                if self.lean:
                    frame = frame.assign(kind=Cell.parse(name).kind if name else "base")[_LEAN]
                frames.append(frame)
        return pd.concat(frames, ignore_index=True)


def placed(model: Model, edit: Edit, facts: FactSet, *, path: Path, at: Position | None) -> Edit:
    """The edit along a path, and at chosen positions of the facts' prompts."""
    edit = edit.via(path)
    return edit if at is None else edit.at(model, at, facts)


def shards_of(facts: FactSet, n_prompts: int) -> list[FactSet]:
    """The facts in parts of about `n_prompts` prompts, none with facts of two splits, validation first."""
    by_split: dict[str, list[Fact]] = {}
    for fact in facts:
        by_split.setdefault(fact.split or "", []).append(fact)
    order = sorted(by_split, key=lambda name: (name != "validation", name))
    return [part for split in order for part in facts.keep(by_split[split]).in_parts(n_prompts)]


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
