"""Learned gains: how much free gains on a few sites can improve (compare *Beyond Components*, arXiv 2511.20273).

The sites are those of a race's finalists. Their gains start at 1 and stay in [0, 1]. Adam maximises the mean
log p(answer) on one half of the validation facts, minus a penalty proportional to g (1 - g), which pushes each gain to
0 or 1. The gains of the step that is best on the other half are kept. Where edits act at chosen positions, the steps
are scored there, but gradients are of gains at all positions.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from laser_interp.discarded.attribution import attribute
from laser_interp.edits.blocks import Blocks
from laser_interp.edits.edit import Edit
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import spectrum
from laser_interp.facts.fact_set import FactSet
from laser_interp.scoring.scorer import Scorer
from laser_interp.selection.plan import Plan
from laser_interp.storage.run_folder import RunFolder

STEPS = 60
PATIENCE = 8  # training stops after so many steps without a better result on the other half
RATE = 0.05
PENALTY = 0.02  # nats, times g (1 - g): a direction at gain 1/2 costs a quarter of it
SITES = 3

Gains = Mapping[Site, np.ndarray]


def learn_gains(plan: Plan, sites: list[Site], folder: RunFolder) -> tuple[EditSpec, pd.DataFrame, int, int]:
    """The learned edit, its course, and what it cost.

    Returns:
        The edit; one row a step: `step, logprob` (mean, on the half that it learns from) and `held_out` (on the other
        half); how many prompts were run with gradients, and how many without.
    """
    facts = list(plan.facts.split("validation"))
    random.Random(plan.settings.seed).shuffle(facts)
    learns, held_out = plan.facts.keep(facts[::2]), plan.facts.keep(facts[1::2])
    n_learned, n_held_out = (sum(len(fact.prompts) for fact in half) for half in (learns, held_out))
    known = folder.read_part("learned", "gains")
    course = folder.read_part("learned-course", "course")
    if known is None or course is None:
        best, course = _optimise(plan, sites, learns, held_out)
        known = pd.concat(
            [
                pd.DataFrame({"site": str(site), "direction": np.arange(len(values)), "gain": values})
                for site, values in best.items()
            ],
            ignore_index=True,
        )
        folder.write_part("learned-course", course, "course")
        folder.write_part("learned", known, "gains")
    values = {Site.parse(str(site)): rows["gain"].to_numpy() for site, rows in known.groupby("site", sort=False)}
    # A site whose gains all stayed at 1 is not edited
    values = {site: of_site for site, of_site in values.items() if (of_site != 1).any()} or values
    return _described(plan, values), course, n_learned * len(course), n_held_out * len(course)


def _described(plan: Plan, values: Gains) -> EditSpec:
    settings = plan.settings
    where: dict[str, Any] = {"blocks": Blocks.parse(settings.blocks), "path": settings.path, "at": settings.at}
    return EditSpec(
        tuple(values), "gains", gains=tuple(tuple(of_site.tolist()) for of_site in values.values()), **where
    )


def _optimise(plan: Plan, sites: list[Site], learns: FactSet, held_out: FactSet) -> tuple[Gains, pd.DataFrame]:
    model = plan.model
    blocks = plan.settings.blocks

    def made(values: Gains, facts: FactSet) -> Edit:
        return _described(plan, values).edit(model, facts)

    gains = {site: torch.ones(spectrum(model, site, blocks=blocks).max_rank, dtype=torch.float64) for site in sites}
    adam = torch.optim.Adam(gains.values(), lr=RATE, eps=1e-12, maximize=True)
    other_half = Scorer(model, plan.task.keep(held_out), candidates=False)
    best: Gains = {}
    best_score, since = -np.inf, 0
    rows: list[dict[str, float]] = []
    for step in range(STEPS):
        now = {site: values.numpy().copy() for site, values in gains.items()}
        ((_, scored),) = other_half.run({"learned": made(now, held_out)}, memory=plan.settings.memory)
        score = float(scored["logprob"].mean())
        if not best or score > best_score:
            best, best_score, since = now, score, 0
        else:
            since += 1
        found = attribute(
            model, learns, sites, edit=made(now, learns), blocks=blocks, memory=plan.settings.memory, progress=False
        )
        logprob = float(found.prompts["logprob"].mean())
        rows.append({"step": step, "logprob": logprob, "held_out": score})
        if since == PATIENCE:
            break
        for site, values in gains.items():
            slope = found.gradients[site].mean(0, dtype=np.float64)
            values.grad = torch.from_numpy(slope) - PENALTY * (1 - 2 * values)
        adam.step()
        for values in gains.values():
            values.clamp_(0, 1)
    return best, pd.DataFrame(rows).astype({"step": int})
