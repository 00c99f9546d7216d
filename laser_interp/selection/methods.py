"""The methods of searching: each is a function that looks at some cells and says which were scored on all facts."""

import random
from dataclasses import replace

from laser_interp.edits.edit_spec import EditSpec
from laser_interp.selection.learned_gains import SITES, learn_gains
from laser_interp.selection.marchenko_pastur import accept_by_perplexity
from laser_interp.selection.race import Trials, Work, n_proposed, proposed, race_cells, score_base


def _scored(work: Work, cells: list[EditSpec], *, halved: bool, group: str = "raced", **counted: int) -> Trials:
    """Score the model as trained and these cells, all of them on all facts unless they are halved."""
    if not cells:
        raise ValueError("nothing can be proposed: every rho keeps the whole rank; give one below 1")
    raced = race_cells(work, cells, group, halved=halved)
    # After the edits: the model as trained goes on from the last layer that they share
    base = score_base(work)
    spent = raced.cell_prompts + work.plan.n_prompts(validation=True)
    return replace(raced, units=base + raced.units, cell_prompts=spent, **counted)


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
    cells, n_attributed = proposed(work)
    return _scored(work, cells, halved=True, n_attributed=n_attributed)


def gradient(work: Work) -> Trials:
    """The best proposal alone."""
    cells, n_attributed = proposed(work)
    return _scored(work, cells[:1], halved=False, n_attributed=n_attributed)


def at_random(work: Work) -> Trials:
    """As many cells as a race has, drawn at random."""
    everything = [cell for cells in work.plan.by_group.values() for cell in cells]
    n = min(n_proposed(work.plan), len(everything))
    return _scored(work, random.Random(work.plan.settings.seed).sample(everything, n), halved=False)


def rmt(work: Work) -> Trials:
    """laserRMT's rule: no facts are looked at until it has chosen."""
    assert work.plan.text is not None
    accepted, tries = accept_by_perplexity(work.plan, work.plan.text, work.folder)
    found = Trials([], score_base(work), 0, 0) if accepted is None else _scored(work, [accepted], halved=False)
    return replace(found, n_cells=len(tries) - 1, cell_prompts=0, rounds=tries, n_texts=len(tries))


def learned(work: Work) -> Trials:
    """Gains that gradients learn, on the sites of a race's finalists."""
    raced = race(work)
    sites = list(dict.fromkeys(cell.site for cell in raced.finalists))[:SITES]
    spec, course, n_attributed, n_scored = learn_gains(work.plan, sites, work.folder)
    found = _scored(work, [spec], halved=False, group="learned")
    return replace(
        found,
        n_cells=raced.n_cells + 1,
        cell_prompts=raced.cell_prompts + n_scored + work.plan.n_prompts(validation=True),
        rounds=course,
        n_attributed=raced.n_attributed + n_attributed,
    )


METHODS = {"grid": grid, "race": race, "gradient": gradient, "random": at_random, "rmt": rmt, "learned": learned}
