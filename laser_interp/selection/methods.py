"""The ways of searching without the grid: each looks at some cells and says which are worth scoring on all facts."""

import random
from dataclasses import dataclass, field, replace

import pandas as pd

from laser_interp.edits.blocks import Blocks
from laser_interp.edits.sites import Site
from laser_interp.selection.cells import Cell
from laser_interp.selection.execution import Execution, PartStore
from laser_interp.selection.learned_gains import SITES, learn_gains
from laser_interp.selection.marchenko_pastur import accept_by_perplexity
from laser_interp.selection.plan import Plan
from laser_interp.selection.race import Advance, n_proposed, proposed, race_cells, score_base
from laser_interp.selection.units import Unit
from laser_interp.storage.run_folder import RunFolder


@dataclass(frozen=True)
class LookedAt:
    """What a search looked at before it chose.

    Attributes:
        finalists: cells that were scored on all validation facts; none where no edit was accepted.
        units: those that scored the finalists and the model as trained, on all validation facts.
        n_cells: how many cells were looked at.
        cell_prompts: prompts times cells that were run.
        n_attributed: prompts with gradients, each of which costs about three times as much.
        n_texts: how many times a running text was read.
        rounds: of a race, one row per (round, cell): `round, n_facts, cell, n` (prompts so far), `logprob` (mean),
            `kept`; of other methods what they tried, in their own columns.
        gains: of learned gains, one vector a site.
    """

    finalists: list[Cell]
    units: list[Unit]
    n_cells: int
    cell_prompts: int
    rounds: pd.DataFrame
    n_attributed: int = 0
    n_texts: int = 0
    gains: dict[Site, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """What every method is given: the plan, where scores are kept and run, and how to tell of progress."""

    plan: Plan
    folder: RunFolder | None
    store: PartStore
    execution: Execution
    advance: Advance
    progress: bool

    def score(self, cells: list[Cell], *, halved: bool, n_attributed: int = 0) -> LookedAt:
        """Score the model as trained and these cells, all of them on all facts unless they are halved."""
        if not cells:
            raise ValueError("nothing can be proposed: every rho keeps the whole rank; give one below 1")
        finalists, units, rounds, cell_prompts = race_cells(
            self.plan, cells, "raced", self.store, self.execution, self.advance, halved=halved
        )
        # After the edits: the model as trained goes on from the last layer that they share
        base = score_base(self.plan, self.store, self.execution, self.advance)
        of_base = sum(self.plan.prompts[unit.shard] for unit in base)
        return LookedAt(finalists, base + units, len(cells), cell_prompts + of_base, rounds, n_attributed)


def race(way: Way) -> LookedAt:
    """The cells that gradients propose compete."""
    cells, n_attributed = proposed(way.plan, way.folder, way.progress)
    return way.score(cells, halved=True, n_attributed=n_attributed)


def gradient(way: Way) -> LookedAt:
    """The best proposal alone."""
    cells, n_attributed = proposed(way.plan, way.folder, way.progress)
    return way.score(cells[:1], halved=False, n_attributed=n_attributed)


def at_random(way: Way) -> LookedAt:
    """As many cells as a race has, drawn at random."""
    everything = [cell for cells in way.plan.by_group.values() for cell in cells]
    n = min(n_proposed(way.plan), len(everything))
    return way.score(random.Random(way.plan.settings.seed).sample(everything, n), halved=False)


def rmt(way: Way) -> LookedAt:
    """laserRMT's rule: no facts are looked at until it has chosen."""
    assert way.plan.text is not None
    cells, tries = accept_by_perplexity(way.plan, way.plan.text, way.folder)
    n_tried = len(tries) - 1
    if not cells:
        base = score_base(way.plan, way.store, way.execution, way.advance)
        return LookedAt([], base, n_tried, 0, tries, n_texts=len(tries))
    found = way.score(cells, halved=False)
    return replace(found, n_cells=n_tried, cell_prompts=0, rounds=tries, n_texts=len(tries))


def learned(way: Way) -> LookedAt:
    """Gains that gradients learn, on the sites of a race's finalists."""
    raced = race(way)
    sites = list(dict.fromkeys(cell.site for cell in raced.finalists))[:SITES]
    edit, course, n_attributed, n_scored = learn_gains(way.plan, sites, way.folder)
    cell = Cell(tuple(sites), "learned", blocks=Blocks.parse(way.plan.settings.blocks))
    way.plan.worker.made[cell] = edit
    base = [unit for unit in raced.units if unit.group != "raced"]
    finalists, units, _, cell_prompts = race_cells(
        way.plan, [cell], "learned", way.store, Execution(), way.advance, halved=False
    )
    return LookedAt(
        finalists,
        base + units,
        raced.n_cells + 1,
        raced.cell_prompts + n_scored + cell_prompts,
        course,
        raced.n_attributed + n_attributed,
        gains={site: tuple(part.gains.tolist()) for site, part in edit.parts.items()},
    )


METHODS = {"race": race, "gradient": gradient, "random": at_random, "rmt": rmt, "learned": learned}
