"""Composing LASER: greedily, from the last layer and the smallest ρ (paper, section 4 and table 3)."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.edits.constructors import laser
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import Task
from laser_interp.models.model import Model
from laser_interp.scoring.scorer import Scorer
from laser_interp.scoring.scores import summarise
from laser_interp.selection.cells import Cell
from laser_interp.selection.grid import ranks_of
from laser_interp.selection.plan import as_task, sites_of
from laser_interp.selection.search_run import save_facts
from laser_interp.selection.settings import CompositionSettings
from laser_interp.storage.provenance import provenance
from laser_interp.storage.run_folder import open_run
from laser_interp.storage.schemas import check


@dataclass(frozen=True)
class Composition:
    """LASER on several sites, found greedily.

    Attributes:
        ranks: site -> the rank kept there; empty where nothing improved on validation.
        steps: one row a try, in order: the site, its ρ and rank, the validation `score` and `loss` of all edits
            together with this one, whether it was `kept`, and the whole `edit` in one line.
        scores: means per edit ("base", "composed") and split, test among them.
    """

    ranks: Mapping[Site, int]
    steps: pd.DataFrame
    scores: pd.DataFrame

    def __str__(self) -> str:
        return _line(self.ranks)

    @property
    def cell(self) -> Cell:
        """All its edits as one cell.

        Raises:
            ValueError: nothing was kept.
        """
        if not self.ranks:
            raise ValueError("no step improved on validation: there is nothing to compose")
        return Cell(tuple(self.ranks), "laser", ranks=tuple(self.ranks.values()))

    def edit(self, model: Model) -> Edit:
        """All its edits as one.

        Raises:
            ValueError: nothing was kept.
        """
        return self.cell.edit(model)


def _line(ranks: Mapping[Site, int]) -> str:
    return " + ".join(f"{site}:rank={rank}" for site, rank in ranks.items())


def compose(
    model: Model,
    task: FactSet | Task,
    settings: CompositionSettings | None = None,
    *,
    out: str | Path | None = None,
    progress: bool = True,
    **changes: Any,
) -> Composition:
    """Add one LASER after the other, from the last layer down and from the smallest ρ up.

    A step is kept if validation improves, by score, then by loss. At a site that has an edit already a larger ρ
    replaces it if that is better still. Test is scored once, at the end.

    Args:
        task: as `li.search` takes it.
        settings, changes: where to try, as in `li.search`; the paper composes MLP matrices.
        out: folder for the results; each site's steps are written as they come, and a run with the same settings goes
            on from them.

    Raises:
        ValueError: bad settings, a folder with another run, or one that another process is writing to.

    Example:
        >>> composed = li.compose(model, facts, rhos=[0.4, 0.05])
        >>> print(composed)
    """
    from tqdm.auto import tqdm

    settings = CompositionSettings.of(settings, changes)
    task, _ = as_task(model, task)
    task = task.keep(task.facts.ensure_split(settings.split, seed=settings.seed))
    sites = sorted(sites_of(model, settings), key=lambda site: -site.layer)
    validation = Scorer(model, task.keep(task.facts.split("validation")), candidates=False)
    everything = Scorer(model, task, candidates=False)
    identity = provenance(model, task.facts) | {"rule": task.rule, "protocol": task.protocol} | settings.identity()

    def means(scorer: Scorer, edits: Mapping[str, Edit | None], by: Sequence[str] = ("edit",)) -> pd.DataFrame:
        labelled = scorer.run(edits, engine=settings.engine, memory=settings.memory)
        return summarise(pd.concat([frame for _, frame in labelled], ignore_index=True), by)

    with ExitStack() as stack:
        folder = None
        if out is not None:
            folder = stack.enter_context(open_run(out, {"composed": [str(site) for site in sites]} | identity))
            save_facts(folder, task.facts)
        ranks: dict[Site, int] = {}
        edits: dict[Site, Edit] = {}
        base = means(validation, {"base": None}).iloc[0]
        best = (float(base["score"]), -float(base["loss"]))
        frames: list[pd.DataFrame] = []
        for site in tqdm(sites, desc="composing", unit="site", disable=not progress):
            frame = folder.read_part(str(site), "steps") if folder is not None else None
            if frame is None:
                of_rank, _ = ranks_of(site, min(model.weight(site.layer, site.matrix).shape), settings.rhos)
                tried = sorted(of_rank.items())  # the smallest ρ first
                # Whether a smaller ρ here was kept makes no difference to a larger one: it would replace it.
                together: dict[str, Edit | None] = {
                    str(rank): reduce(add, edits.values(), laser(model, site, rank=rank)) for rank, _ in tried
                }
                rows = {str(row["edit"]): row for row in means(validation, together).to_dict("records")}
                steps = []
                for rank, rho in tried:
                    row = rows[str(rank)]
                    now = (float(row["score"]), -float(row["loss"]))
                    kept = row["n_not_finite"] == 0 and now > best
                    best = now if kept else best
                    steps.append(_step(site, rho, rank, row, bool(kept), {**ranks, site: rank}))
                frame = pd.DataFrame(steps)
                frame.insert(0, "step", range(len(frame)))
                frame["step"] += sum(map(len, frames))
                if folder is not None:
                    folder.write_part(str(site), frame, "steps")
            if chosen := frame[frame["kept"]].to_dict("records"):
                last = chosen[-1]
                ranks[site] = int(last["rank_kept"])
                edits[site] = laser(model, site, rank=ranks[site])
                best = (float(last["score"]), -float(last["loss"]))
            frames.append(frame)
        steps = check(pd.concat(frames, ignore_index=True), "steps")
        final: dict[str, Edit | None] = {"base": None}
        if ranks:
            final["composed"] = reduce(add, edits.values())
        scores = means(everything, final, ("edit", "split"))
        if folder is not None:
            folder.write_table("composition", steps, "steps")
            folder.write_table("composition_scores", scores)
    return Composition(ranks, steps, scores)


def _step(
    site: Site, rho: float, rank: int, row: Mapping[Any, Any], kept: bool, ranks: Mapping[Site, int]
) -> dict[str, Any]:
    return {
        "site": str(site),
        "rho": rho,
        "rank_kept": float(rank),
        "score": float(row["score"]),
        "loss": float(row["loss"]),
        "n_not_finite": int(row["n_not_finite"]),
        "kept": kept,
        "edit": _line(ranks),
    }
