"""Executing a search: workers score units of edits and facts, here or on a Ray cluster, and their scores are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pandas as pd

from laser_interp.choices import Executor, check_choice, whole_number
from laser_interp.edits.edit import Edit
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.extras import require
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import Task
from laser_interp.models.bfloat16 import in_bfloat16
from laser_interp.models.loading import load_model
from laser_interp.models.model import Model
from laser_interp.parallel.ray_cluster import Actors
from laser_interp.scoring.answer_rules import DETAILED_RULES
from laser_interp.scoring.scorer import Scorer
from laser_interp.selection.settings import SearchSettings


@dataclass(frozen=True)
class Unit:
    """Some edits on one part of the facts.

    Attributes:
        group: what the edits have in common, "layer-003" or "base"; units of a group run one after the other on one
            worker, so that its factors and residual streams can be reused.
        shard: which part of the facts.
        cells: the edits that are scored; an empty tuple means the model as trained.
        screened: whether matrices are multiplied in bfloat16, which is exact enough to tell good edits from bad ones.
    """

    group: str
    shard: int
    cells: tuple[EditSpec, ...]
    screened: bool = False

    @property
    def name(self) -> str:
        """Where the unit's scores are kept."""
        return f"{self.group}/{self.shard:05d}"

    @property
    def n_cells(self) -> int:
        """How many times each prompt is scored."""
        return max(len(self.cells), 1)


class Worker:
    """A model with a task in parts, tokenised once, that scores one unit after the other.

    Args:
        task: what is asked, and the rule by which an answer counts as right.
        shards: parts of its facts.
        settings: of these the engine, its memory, the generic words, and how answers are ranked.
        without_candidates: parts on which answers are not ranked among those of their relation.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        shards: Sequence[FactSet],
        settings: SearchSettings,
        *,
        without_candidates: Collection[int] = (),
    ) -> None:
        self.model, self.task, self.shards, self.settings = model, task, shards, settings
        self.without_candidates = frozenset(without_candidates)
        self._scorers: dict[int, Scorer] = {}

    def check(self, spec: EditSpec | None = None) -> None:
        """Tokenise every answer of every part, and look for every position at which an edit acts.

        Raises:
            ValueError: something is wrong that would otherwise only fail later.
        """
        for shard, facts in enumerate(self.shards):
            self._scorer(shard)
            if spec is not None and (shard == 0 or spec.at is not None):
                spec.edit(self.model, facts).check(self.model)

    def ranks(self, shard: int) -> bool:
        """Whether answers of a part are ranked among those of their relation."""
        return self.settings.candidates and shard not in self.without_candidates

    def _scorer(self, shard: int) -> Scorer:
        if shard not in self._scorers:
            self._scorers[shard] = Scorer(
                self.model,
                self.task.keep(self.shards[shard]),
                generic=self.settings.generic,
                candidates=self.ranks(shard),
                rank_by=self.settings.rank_by if self.task.rule not in DETAILED_RULES else "answers",
            )
        return self._scorers[shard]

    def scores(self, unit: Unit, tick: Callable[[float], object] | None = None) -> Iterator[pd.DataFrame]:
        """The scores under each edit of a unit, with the columns of `li.score`, and its text in `cell`."""
        edits: dict[str, Edit | None] = {
            str(cell): cell.edit(self.model, self.shards[unit.shard]) for cell in unit.cells
        } or {"": None}
        labelled = self._scorer(unit.shard).run(
            edits, tick=tick, engine=self.settings.engine, memory=self.settings.memory
        )
        with in_bfloat16(self.model) if unit.screened else nullcontext():
            for name, frame in labelled:
                yield frame.assign(cell=name)

    def run(self, unit: Unit, tick: Callable[[float], object] | None = None) -> pd.DataFrame:
        """The unit's scores, a row per (cell, fact, prompt)."""
        kinds = [cell.kind for cell in unit.cells] or ["base"]
        frames = [frame.assign(kind=kind) for kind, frame in zip(kinds, self.scores(unit, tick), strict=True)]
        return pd.concat(frames, ignore_index=True)


class Execution(ExitStack):
    """Where the units of a search run; see `li.search`. As a context, it keeps Ray's actors and their models."""

    def __init__(self, executor: Executor = "local", workers: int | None = None) -> None:
        check_choice("executor", executor, Executor)
        if workers is not None and whole_number("workers", workers) < 1:
            raise ValueError(f"workers is {workers}: at least one is needed")
        super().__init__()
        self.executor, self.workers = executor, workers
        self._actors: Actors | None = None

    def check(self, model: Model) -> None:
        """Refuse, before any work is done, what other processes cannot do.

        Raises:
            ModuleNotFoundError: Ray is not installed.
            ValueError: the model was made from an object in memory.
        """
        if self.executor == "local":
            return
        require("ray", "ray", what="executor='ray'")
        if model.source is None:
            raise ValueError(
                f"{model.name!r} was made from an object in memory, which no other process can load: save it "
                "(model.save_checkpoint) to a disk that all machines see, and load that folder (load_model)"
            )

    def run(
        self, units: Sequence[Unit], worker: Worker, advance: Callable[[Unit, float], object]
    ) -> Iterator[tuple[Unit, pd.DataFrame]]:
        """Each unit and its scores, in the order in which they are done."""
        if self.executor == "local":
            for unit in units:
                yield unit, worker.run(unit, lambda share, unit=unit: advance(unit, share))
            return
        if not units:
            return
        actors = self._actors_of(worker)
        pieces = [piece for unit in units for piece in _pieces(unit, math.ceil(actors.n_workers() / len(units)))]
        done: dict[str, dict[int, pd.DataFrame]] = {unit.name: {} for unit in units}
        for piece, part in actors.run(pieces, affinity=lambda p: (p.unit.group, p.number), name=lambda p: p.name):
            advance(piece.unit, piece.share.n_cells / piece.unit.n_cells)
            parts = done[piece.unit.name]
            parts[piece.number] = part
            if len(parts) == piece.of:
                yield piece.unit, pd.concat([parts[i] for i in range(piece.of)], ignore_index=True)

    def _actors_of(self, worker: Worker) -> Actors:
        """The actors with a worker's model and facts. A search has one worker, so that they are started once."""
        if self._actors is None:
            model = worker.model
            assert model.source is not None  # `check` refuses such a model
            how = worker.settings, worker.without_candidates
            arguments = (dict(model.source), model.weights_sha256, worker.task, list(worker.shards), *how)
            self._actors = self.enter_context(Actors(_Actor, arguments, self.workers))
        return self._actors


@dataclass(frozen=True)
class _Piece:
    """A share of a unit's cells, where there are fewer units than workers."""

    unit: Unit
    number: int
    of: int
    share: Unit  # with its cells only

    @property
    def name(self) -> str:
        return self.unit.name if self.of == 1 else f"{self.unit.name}, part {self.number + 1} of {self.of}"


def _pieces(unit: Unit, n: int) -> list[_Piece]:
    """A unit as at most `n` pieces. Neighbours stay together: cells of one site share its factors."""
    n = min(n, unit.n_cells)
    bounds = [round(i * unit.n_cells / n) for i in range(n + 1)]
    shares = [replace(unit, cells=unit.cells[start:stop]) for start, stop in pairwise(bounds)]
    return [_Piece(unit, number, n, share) for number, share in enumerate(shares)]


class _Actor:
    """Runs in a process of its own; it holds the model and the worker that scores units."""

    def __init__(
        self,
        source: dict[str, Any],
        weights_sha256: str,
        task: Task,
        shards: Sequence[FactSet],
        settings: SearchSettings,
        without_candidates: frozenset[int],
        cpus: int,
        has_gpu: bool,
    ) -> None:
        import torch

        torch.set_num_threads(cpus)
        model: Model = load_model(**source, device="auto" if has_gpu else "cpu")
        if model.weights_sha256 != weights_sha256:
            raise ValueError(
                f"{source['source']!r} holds other weights on this worker than where the search was started"
            )
        self._worker = Worker(model, task, shards, settings, without_candidates=without_candidates)

    def run(self, piece: _Piece) -> pd.DataFrame:
        return self._worker.run(piece.share)
