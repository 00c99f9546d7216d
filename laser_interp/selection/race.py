"""The search without the grid: proposals from gradients, a race between them, and honest baselines.

One attribution pass over a few validation facts says what each LASER would change if effects were linear. That is
wrong in early layers, so it only proposes; a race decides. In rounds over growing numbers of validation facts the
worse half of the cells is dropped, and with it what is worse than the leader beyond doubt (successive halving,
Jamieson & Talwalkar 2016). The last few are scored on all validation facts, and the best by score, then by loss, is
chosen.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from laser_interp.discarded.attribution import attribute, propose
from laser_interp.facts.fact_set import Fact
from laser_interp.selection.cell_table import mean_over_subjects
from laser_interp.selection.cells import Cell
from laser_interp.selection.execution import Execution, PartStore, score_units
from laser_interp.selection.plan import BASE_GROUP, Plan
from laser_interp.selection.units import Unit
from laser_interp.storage.run_folder import RunFolder

PROPOSED = 64  # cells that enter a race, or are drawn at random
OF_A_SITE = 3  # of them at most
ATTRIBUTED = 100  # validation prompts for the gradients
FINALISTS = 4
_SURE = 0.99  # one-sided
_PROPOSAL = "proposal"

Advance = Callable[[Unit, float], object]


@dataclass(frozen=True)
class Raced:
    """What a search looked at before it chose.

    Attributes:
        finalists: cells that were scored on all validation facts.
        rounds: one row per (round, cell): `round, n_facts, cell, n` (prompts so far), `logprob` (mean), `kept`.
        units: of the finalists and of the model as trained, on all of validation.
        cell_prompts: prompts times cells that were run.
        n_attributed: prompts of the attribution pass, which costs about three times as much for each.
    """

    finalists: list[Cell]
    rounds: pd.DataFrame
    units: list[Unit]
    cell_prompts: int
    n_attributed: int


def run_race(
    plan: Plan, folder: RunFolder | None, store: PartStore, execution: Execution, advance: Advance, progress: bool
) -> Raced:
    """Propose cells and let them race, as `SearchSettings.method` says."""
    method, seed = plan.settings.method, plan.settings.seed
    everything = [cell for cells in plan.by_group.values() for cell in cells]
    n_attributed = 0
    if method == "random":
        cells = random.Random(seed).sample(everything, min(PROPOSED, len(everything)))
    else:
        cells, n_attributed = _proposed(plan, folder, progress)
        cells = cells[:1] if method == "gradient" else cells
    if not cells:
        raise ValueError("nothing can be proposed: every rho keeps the whole rank; give one below 1")
    shards = [i for i in range(len(plan.shards)) if plan.validates(i)]
    base = [Unit(BASE_GROUP, shard, ()) for shard in shards]
    score_units(base, plan.worker, store, execution, advance)
    scored: dict[Cell, list[pd.DataFrame]] = {cell: [] for cell in cells}
    rows: list[dict[str, object]] = []
    units: list[Unit] = []
    cell_prompts = sum(plan.prompts[shard] for shard in shards)
    n_facts = 0
    for number, shard in enumerate(shards):
        unit = Unit("raced", shard, tuple(sorted(cells, key=lambda cell: (cell.site, cell.ranks))))
        score_units([unit], plan.worker, store, execution, advance)
        units.append(unit)
        part = store.read(unit)
        assert part is not None
        by_name = dict(tuple(part.groupby("cell", sort=False)))
        for cell in cells:
            scored[cell].append(by_name[str(cell)])
        cell_prompts += len(cells) * plan.prompts[shard]
        n_facts += len(plan.shards[shard])
        so_far = {cell: pd.concat(scored[cell], ignore_index=True) for cell in cells}
        last = number == len(shards) - 1
        kept = cells if last or method in ("random", "gradient") else survivors(so_far)
        for cell, frame in so_far.items():
            about = {"round": number, "n_facts": n_facts, "cell": str(cell), "n": len(frame)}
            rows.append(about | {"logprob": float(frame["logprob"].mean()), "kept": cell in kept})
        cells = kept
    return Raced(cells, pd.DataFrame(rows), base + units, cell_prompts, n_attributed)


def survivors(so_far: dict[Cell, pd.DataFrame]) -> list[Cell]:
    """The better half by mean log-probability, without those that are worse than the leader beyond doubt; at least
    `FINALISTS`."""
    means = {cell: float(frame["logprob"].mean()) for cell, frame in so_far.items()}
    ranked = sorted(so_far, key=lambda cell: -means[cell] if math.isfinite(means[cell]) else math.inf)
    leader = so_far[ranked[0]].set_index(["fact_id", "prompt_id"])
    kept = []
    for place, cell in enumerate(ranked[: max(math.ceil(len(ranked) / 2), FINALISTS)]):
        if place < FINALISTS or not _beyond_doubt(leader, so_far[cell]):
            kept.append(cell)
    return kept


def _beyond_doubt(leader: pd.DataFrame, frame: pd.DataFrame) -> bool:
    """Whether a cell is worse than the leader by more than chance, over subjects."""
    from scipy.stats import t

    index = pd.MultiIndex.from_frame(frame[["fact_id", "prompt_id"]])
    worse = frame["logprob"] - leader["logprob"].reindex(index).to_numpy(float)
    mean, error, n_subjects = mean_over_subjects(worse, frame["subject"])
    return n_subjects > 1 and mean + float(t.ppf(_SURE, n_subjects - 1)) * error < 0


def _proposed(plan: Plan, folder: RunFolder | None, progress: bool) -> tuple[list[Cell], int]:
    """Cells by what they would do if effects were linear, the most promising first, a few of each site."""
    validation = plan.facts.split("validation")
    facts = list(validation)
    random.Random(plan.settings.seed).shuffle(facts)
    chosen: list[Fact] = []
    n_prompts = 0
    for fact in facts:
        if chosen and n_prompts + len(fact.prompts) > ATTRIBUTED:
            break
        chosen.append(fact)
        n_prompts += len(fact.prompts)
    table = None if folder is None else folder.read_part(_PROPOSAL, "proposal")
    if table is None:
        found = attribute(
            plan.model, validation.keep(chosen), list(plan.by_site), memory=plan.settings.memory, progress=progress
        )
        table = propose(found, rhos=plan.settings.rhos)
        if folder is not None:
            folder.write_part(_PROPOSAL, table, "proposal")
    at = {(str(cell.site), cell.rank): cell for cells in plan.by_site.values() for cell in cells}
    best_of_site = table.groupby("site", sort=False).head(OF_A_SITE)
    places = zip(best_of_site["site"], best_of_site["rank"], strict=True)
    cells = [at[site, int(rank)] for site, rank in places if (site, int(rank)) in at]
    # Site by site, so that one site with many good ranks does not crowd out the others
    order = {site: place for place, site in enumerate(dict.fromkeys(str(cell.site) for cell in cells))}
    leaders = [cell for cell in cells if order[str(cell.site)] < math.ceil(PROPOSED / OF_A_SITE)]
    return (leaders + [cell for cell in cells if cell not in leaders])[:PROPOSED], n_prompts


def share_of_grid(n_cells: int, n_prompts: int, raced: Raced) -> float:
    """What was run, attribution included, as a share of the grid's cells on all validation prompts."""
    return (raced.cell_prompts + 3 * raced.n_attributed) / max((n_cells + 1) * n_prompts, 1)
