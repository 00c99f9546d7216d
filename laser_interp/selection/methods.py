"""The methods of searching: each is a function that looks at some cells and says which were scored on all facts."""

import random
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from laser_interp.edits.edit_spec import EditSpec
from laser_interp.progress import by_fractions
from laser_interp.selection.execution import Execution, PartStore, Unit, score_units
from laser_interp.selection.learned_gains import SITES, learn_gains
from laser_interp.selection.marchenko_pastur import accept_by_perplexity
from laser_interp.selection.plan import Plan
from laser_interp.selection.race import n_proposed, proposed, race_cells, score_base
from laser_interp.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Trials:
    """What a search looked at before it chose.

    Attributes:
        finalists: cells that were scored on all validation facts; none where no edit was accepted.
        units: those that scored the finalists and the model as trained, on all validation facts.
        n_cells: how many cells were looked at.
        cell_prompts: prompts times cells that were run.
        rounds: of a race, one row per (round, cell): `round, n_facts, cell, n` (prompts so far), `logprob` (mean),
            `kept`; of other methods what they tried, in their own columns; None for a grid.
        n_attributed: prompts with gradients, each of which costs about three times as much.
        n_texts: how many times a running text was read.
    """

    finalists: list[EditSpec]
    units: list[Unit]
    n_cells: int
    cell_prompts: int
    rounds: pd.DataFrame | None = None
    n_attributed: int = 0
    n_texts: int = 0


@dataclass
class Work:
    """What every method is given: the plan, where scores are kept and run, and how to tell of progress."""

    plan: Plan
    folder: RunFolder | None
    execution: Execution
    bar: Any
    progress: bool

    def __post_init__(self) -> None:
        self.store = PartStore(self.folder)
        self._add = by_fractions(self.bar)

    def advance(self, unit: Unit, share: float) -> None:
        """Move the bar by a share of a unit."""
        self._add(share * unit.n_cells * self.plan.prompts[unit.shard])

    def run(self, units: list[Unit]) -> None:
        """Score some units, and keep their scores."""
        score_units(units, self.plan.worker, self.store, self.execution, self.advance)

    def score(self, cells: list[EditSpec], *, halved: bool, n_attributed: int = 0, group: str = "raced") -> Trials:
        """Score the model as trained and these cells, all of them on all facts unless they are halved."""
        if not cells:
            raise ValueError("nothing can be proposed: every rho keeps the whole rank; give one below 1")
        raced = race_cells(self.plan, cells, group, self.store, self.execution, self.advance, halved=halved)
        # After the edits: the model as trained goes on from the last layer that they share
        base = score_base(self.plan, self.store, self.execution, self.advance)
        of_base = self.plan.count_prompts(unit.shard for unit in base)
        return Trials(
            raced.finalists, base + raced.units, len(cells), raced.cell_prompts + of_base, raced.rounds, n_attributed
        )


def grid(work: Work) -> Trials:
    """Every cell, on all validation facts."""
    plan = work.plan
    n_validation, n_test = plan.n_prompts(validation=True), plan.n_prompts(validation=False)
    n_tested = {"all": plan.n_cells + 1, "chosen": 2, "none": 0}[plan.settings.test]
    work.bar.total = (plan.n_cells + 1) * n_validation + n_tested * n_test
    units = plan.units(plan.by_group, validation=True)
    work.run(units)
    return Trials(plan.cells, units, plan.n_cells, (plan.n_cells + 1) * n_validation)


def race(work: Work) -> Trials:
    """The cells that gradients propose compete."""
    cells, n_attributed = proposed(work.plan, work.folder, work.progress)
    return work.score(cells, halved=True, n_attributed=n_attributed)


def gradient(work: Work) -> Trials:
    """The best proposal alone."""
    cells, n_attributed = proposed(work.plan, work.folder, work.progress)
    return work.score(cells[:1], halved=False, n_attributed=n_attributed)


def at_random(work: Work) -> Trials:
    """As many cells as a race has, drawn at random."""
    everything = [cell for cells in work.plan.by_group.values() for cell in cells]
    n = min(n_proposed(work.plan), len(everything))
    return work.score(random.Random(work.plan.settings.seed).sample(everything, n), halved=False)


def rmt(work: Work) -> Trials:
    """laserRMT's rule: no facts are looked at until it has chosen."""
    assert work.plan.text is not None
    accepted, tries = accept_by_perplexity(work.plan, work.plan.text, work.folder)
    n_tried = len(tries) - 1
    if accepted is None:
        base = score_base(work.plan, work.store, work.execution, work.advance)
        return Trials([], base, n_tried, 0, tries, n_texts=len(tries))
    found = work.score([accepted], halved=False)
    return replace(found, n_cells=n_tried, cell_prompts=0, rounds=tries, n_texts=len(tries))


def learned(work: Work) -> Trials:
    """Gains that gradients learn, on the sites of a race's finalists."""
    raced = race(work)
    sites = list(dict.fromkeys(cell.site for cell in raced.finalists))[:SITES]
    spec, course, n_attributed, n_scored = learn_gains(work.plan, sites, work.folder)
    found = work.score([spec], halved=False, group="learned")
    return replace(
        found,
        n_cells=raced.n_cells + 1,
        cell_prompts=raced.cell_prompts + n_scored + work.plan.n_prompts(validation=True),
        rounds=course,
        n_attributed=raced.n_attributed + n_attributed,
    )


METHODS = {"grid": grid, "race": race, "gradient": gradient, "random": at_random, "rmt": rmt, "learned": learned}
