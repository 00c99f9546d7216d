"""The search without the grid: proposals from gradients, a race between them, and honest baselines.

One attribution pass over a few validation facts predicts what each LASER would change if effects were linear. This
prediction is wrong in early layers, so it only proposes cells, and a race decides. The race has rounds over growing
numbers of validation facts. Each round drops the worse half of the cells, and also cells that are worse than the leader
beyond doubt (successive halving, Jamieson & Talwalkar 2016). The last few are scored on all validation facts, and the
best by score, then by loss, is chosen. If bfloat16 is faster on this machine, the rounds run in bfloat16, and the
finalists are scored again in the model's own numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from laser_interp.choices import PROPOSED
from laser_interp.discarded.attribution import attribute
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.edits.sites import Site
from laser_interp.progress import by_fractions
from laser_interp.selection.execution import Execution, Unit
from laser_interp.selection.plan import Plan
from laser_interp.selection.score_store import ScoreStore, text_of
from laser_interp.storage.run_folder import SCREENED, RunFolder
from laser_interp.storage.schemas import SCHEMAS

_SHARE = 8  # one in eight of a grid's cells enters the race ...
_AT_LEAST = 16  # ... but at least 16 cells do, and at most `PROPOSED`
OF_A_SITE = 3  # cells of one site, at most
ATTRIBUTED = 100  # validation prompts for the gradients
FINALISTS = 4
_SURE = 0.99  # one-sided


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
    """What every method is given: the plan, where scores are kept and run, and how to tell of progress.

    Attributes:
        store: where a study keeps scores; what is known there is not scored again.
    """

    plan: Plan
    folder: RunFolder
    execution: Execution
    bar: Any
    progress: bool
    store: ScoreStore | None = None

    def __post_init__(self) -> None:
        self._add = by_fractions(self.bar)

    def advance(self, unit: Unit, share: float) -> None:
        """Move the bar by a share of a unit."""
        self._add(share * unit.n_cells * self.plan.prompts[unit.shard])

    def run(self, units: list[Unit]) -> None:
        """Score those units whose scores are not kept yet, and keep them as they come."""
        waiting, known = [], {}
        for unit in units:
            if self.folder.read_part(unit.name, "search_part") is not None:
                self.advance(unit, 1.0)
                continue
            found = {cell: self._recall(unit, cell) for cell in unit.cells or (None,)}
            known[unit.name] = [frame for frame in found.values() if frame is not None]
            left = [cell for cell, frame in found.items() if frame is None]
            if left:
                waiting.append(replace(unit, cells=tuple(cell for cell in left if cell is not None)))
            else:
                self._keep(unit, known[unit.name])
                self.advance(unit, 1.0)
        for unit, part in self.execution.run(waiting, self.plan.worker, self.advance):
            self._keep(unit, [*known[unit.name], part])

    def _keep(self, unit: Unit, parts: list[pd.DataFrame]) -> None:
        part = pd.concat(parts, ignore_index=True)
        part = part[list(SCHEMAS["search_part"])] if self.plan.is_large else part
        self.folder.write_part(unit.name, part, "search_part")

    def _recall(self, unit: Unit, cell: EditSpec | None) -> pd.DataFrame | None:
        if self.store is None or unit.screened:
            return None
        frame = self.store.recall(self.plan.shards[unit.shard], cell, self.plan.worker.ranks(unit.shard))
        return None if frame is None else frame.assign(cell=text_of(cell), kind=cell.kind if cell else "base")

    def remember(self, units: list[Unit], cells: Sequence[EditSpec | None]) -> None:
        """Let later questions know what some cells scored."""
        if self.store is None or self.plan.is_large:
            return
        for unit in units:
            by_cell = dict(tuple(read_units([unit], self.folder).groupby("cell", sort=False)))
            for cell in {*cells} & {*(unit.cells or (None,))}:
                facts, ranked = self.plan.shards[unit.shard], self.plan.worker.ranks(unit.shard)
                self.store.remember(facts, cell, ranked, by_cell[text_of(cell)])


def score_base(work: Work) -> list[Unit]:
    """The model as trained, on all validation facts."""
    base = work.plan.units({}, validation=True)
    work.run(base)
    return base


def race_cells(
    work: Work, cells: list[EditSpec], group: str, *, halved: bool = True, at_least: pd.DataFrame | None = None
) -> Trials:
    """The race itself.

    Args:
        group: the name under which scores are kept.
        halved: whether cells are dropped after each round.
        at_least: scores that a cell has to beat. Cells that are worse than these beyond doubt are dropped too, so
            that only one cell may be left.
    """
    plan, n_cells = work.plan, len(cells)
    scored: dict[EditSpec, list[pd.DataFrame]] = {cell: [] for cell in cells}
    rows: list[dict[str, object]] = []
    units: list[Unit] = []
    cell_prompts = n_facts = 0
    shards = [i for i in range(len(plan.shards)) if plan.validates(i)]
    screened = halved and plan.screens
    for number, shard in enumerate(shards):
        if screened and (len(cells) <= FINALISTS or number == len(shards) - 1):
            break
        name = group + SCREENED if screened else group
        unit = Unit(name, shard, tuple(sorted(cells, key=lambda cell: (cell.sites, cell.ranks))), screened)
        work.run([unit])
        units += [] if screened else [unit]
        part = work.folder.read_part(unit.name, "search_part")
        assert part is not None
        by_name = dict(tuple(part.groupby("cell", sort=False)))
        for cell in cells:
            scored[cell].append(by_name[str(cell)])
        cell_prompts += len(cells) * plan.prompts[shard]
        n_facts += len(plan.shards[shard])
        so_far = {cell: pd.concat(scored[cell], ignore_index=True) for cell in cells}
        kept = survivors(so_far, at_least) if halved and number < len(shards) - 1 else cells
        for cell, frame in so_far.items():
            about = {"round": number, "n_facts": n_facts, "cell": str(cell), "n": len(frame)}
            rows.append(about | {"logprob": float(frame["logprob"].mean()), "kept": cell in kept})
        cells = kept
    if screened:
        last = race_cells(work, cells, group, halved=False)
        assert last.rounds is not None
        last.rounds["round"] += len({row["round"] for row in rows})
        rounds = pd.concat([pd.DataFrame(rows), last.rounds], ignore_index=True)
        return Trials(cells, last.units, n_cells, cell_prompts + last.cell_prompts, rounds)
    return Trials(cells, units, n_cells, cell_prompts, pd.DataFrame(rows))


def read_units(units: list[Unit], folder: RunFolder) -> pd.DataFrame:
    """The scores of some units, one below the other."""
    parts: list[pd.DataFrame] = [p for unit in units if (p := folder.read_part(unit.name, "search_part")) is not None]
    return pd.concat(parts, ignore_index=True)


def survivors(so_far: dict[EditSpec, pd.DataFrame], at_least: pd.DataFrame | None = None) -> list[EditSpec]:
    """The better half by mean log-probability, without cells that are worse than the leader beyond doubt, but at least
    `FINALISTS` cells. With `at_least`, cells worse than these scores beyond doubt go too; if all are, the leader stays.
    """
    means = {cell: float(frame["logprob"].mean()) for cell, frame in so_far.items()}
    ranked = sorted(so_far, key=lambda cell: -means[cell] if math.isfinite(means[cell]) else math.inf)
    leader = so_far[ranked[0]]
    better = ranked[FINALISTS : math.ceil(len(ranked) / 2)]
    kept = ranked[:FINALISTS] + [cell for cell in better if not is_worse(so_far[cell], leader)]
    if at_least is None:
        return kept
    return [cell for cell in kept if not is_worse(so_far[cell], at_least)] or kept[:1]


def is_worse(frame: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether log-probabilities are lower than others by more than chance: the upper end of a one-sided 99 % interval
    of the mean difference, over subjects, is below 0 (Student's t)."""
    from scipy.stats import t

    there = other.set_index(["fact_id", "prompt_id"])["logprob"]
    difference = frame["logprob"] - there.reindex(pd.MultiIndex.from_frame(frame[["fact_id", "prompt_id"]])).to_numpy()
    by_subject = difference.groupby(frame["subject"]).mean()
    n = len(by_subject)
    return n > 1 and float(by_subject.mean() + t.ppf(_SURE, n - 1) * by_subject.std(ddof=1) / math.sqrt(n)) < 0


def proposed(
    work: Work, *, sites: Sequence[Site] | None = None, kept: EditSpec | None = None, name: str = "proposal"
) -> tuple[list[EditSpec], int]:
    """The cells that would help most if effects were linear, a few of each site, the most promising first; and the
    number of prompts that gradients were taken of.

    Args:
        sites: where cells are proposed; None takes all sites of the plan.
        kept: the edit that is active while gradients are taken; None is the model as trained.
        name: the name under which the proposal is kept.
    """
    plan = work.plan
    asked = plan.facts.split("validation").draw(ATTRIBUTED, seed=plan.settings.seed)
    table = work.folder.read_part(name, "proposal")
    if table is None:
        found = attribute(
            plan.model,
            asked,
            list(plan.by_site) if sites is None else sites,
            edit=None if kept is None else kept.edit(plan.model, asked),
            blocks=plan.settings.blocks,
            memory=plan.settings.memory,
            progress=work.progress,
        )
        reached = {site: values for site, values in found.gradients.items() if values.any()} or found.gradients
        table = replace(found, gradients=reached).propose(rhos=plan.settings.rhos)
        table["n_unreached"] = len(found.gradients) - len(reached)
        work.folder.write_part(name, table, "proposal")
    if "n_unreached" in table and len(table) and (unreached := int(table["n_unreached"].iloc[0])):  # not in old folders
        note = f"{unreached} sites change no answer of the validation facts (an expert may not be chosen): not tried"
        plan.notes += [note] * (note not in plan.notes)
    at = {(str(cell.site), cell.rank): cell for cells in plan.by_site.values() for cell in cells}
    best_of_site = table.groupby("site", sort=False).head(OF_A_SITE)
    places = zip(best_of_site["site"], best_of_site["rank"], strict=True)
    cells = [at[site, int(rank)] for site, rank in places if (site, int(rank)) in at]
    # Site by site, so that one site with many good ranks does not crowd out the others
    order = {site: place for place, site in enumerate(dict.fromkeys(str(cell.site) for cell in cells))}
    n = n_proposed(plan)
    leaders = [cell for cell in cells if order[str(cell.site)] < math.ceil(n / OF_A_SITE)]
    return (leaders + [cell for cell in cells if cell not in leaders])[:n], sum(len(fact.prompts) for fact in asked)


def n_proposed(plan: Plan) -> int:
    """How many cells enter a race."""
    return min(PROPOSED, max(plan.n_cells // _SHARE, _AT_LEAST))
