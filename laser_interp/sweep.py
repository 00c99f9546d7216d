"""The grid: every layer, matrix and ρ; validation selects, test reports."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp import results
from laser_interp.edit import Edit, laser, rank_of
from laser_interp.facts import FactSet
from laser_interp.model import Model
from laser_interp.score import Scorer, summarise
from laser_interp.sites import Site, resolve_layers, resolve_matrices
from laser_interp.spectrum import spectrum

# Fractions of rank kept: the paper's table 5, and the .4 its main table uses.
RHOS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01)

_PART_COLUMNS = list(results.SCHEMAS["sweep_part"])


@dataclass(frozen=True)
class Selection:
    """The cell that validation chose.

    Attributes:
        site, rho, rank: the edit. `rho` is as asked for, also where its rank was lifted to 1.
        top1, loss: of the edit on validation.
        base_top1, base_loss: of the model as trained on validation.
    """

    site: Site
    rho: float
    rank: int
    top1: float
    loss: float
    base_top1: float
    base_loss: float

    @property
    def improves(self) -> bool:
        """Whether it beats the model as trained on validation, by accuracy, then loss."""
        return (self.top1, -self.loss) > (self.base_top1, -self.base_loss)

    def edit(self, model: Model) -> Edit:
        """The chosen edit."""
        return laser(model, self.site, rank=self.rank)


@dataclass(frozen=True)
class Sweep:
    """A finished grid.

    Attributes:
        cells: one row per (cell, split): the edit, and means over facts and prompts. The model as
            trained is the cell of kind "base".
        notes: what was lifted to rank 1 or dropped as equal to another cell.
    """

    cells: pd.DataFrame
    notes: tuple[str, ...] = field(default=())

    def _repr_html_(self) -> str:
        edits = self.cells[self.cells["kind"] == "laser"]
        best = edits.sort_values(["split", "top1", "loss"], ascending=[True, False, True]).groupby("split").head(3)
        return f"<p>Sweep of {edits['site'].nunique()} sites; the best cells:</p>{best.to_html(index=False)}"

    def changes(self, split: str) -> pd.DataFrame:
        """Each cell's change against the model as trained: `d_top1`, `d_loss`, `d_p_generic`."""
        cells = self.cells[self.cells["split"] == split]
        base = cells[cells["kind"] == "base"].iloc[0]
        out = cells[cells["kind"] != "base"].copy()
        for metric in ("top1", "loss", "p_generic"):
            out[f"d_{metric}"] = out[metric] - base[metric]
        return out

    def select(self, split: str = "validation") -> Selection:
        """The best cell by accuracy, then by loss.

        Raises:
            ValueError: no such split, or no cell with a finite loss.
        """
        cells = self.cells[self.cells["split"] == split]
        if cells.empty:
            raise ValueError(f"the sweep has no split {split!r}: it has {sorted(set(self.cells['split']))}")
        base = cells[cells["kind"] == "base"].iloc[0]
        edits = cells[(cells["kind"] == "laser") & cells["loss"].notna() & (cells["n_not_finite"] == 0)]
        if edits.empty:
            raise ValueError("no cell of the sweep has a finite loss: nothing can be selected")
        best = edits.sort_values(["top1", "loss"], ascending=[False, True], kind="stable").iloc[0]
        return Selection(
            Site.parse(best["site"]),
            float(best["rho"]),
            int(best["rank_kept"]),
            float(best["top1"]),
            float(best["loss"]),
            float(base["top1"]),
            float(base["loss"]),
        )


def grid(model: Model, site: Site, rhos: Sequence[float]) -> tuple[dict[int, float], list[str]]:
    """The distinct ranks of a site's cells, with the ρ of each, and what was lifted or dropped."""
    of_site = spectrum(model, site)
    ranks: dict[int, float] = {}
    notes = []
    for rho in sorted(set(rhos), reverse=True):
        rank = rank_of(rho, of_site.max_rank)
        lifted = rank == 0
        rank = max(rank, 1)
        if rank in ranks:
            notes.append(f"{site}: rho {rho:g} is rank {rank}, as is rho {ranks[rank]:g}: dropped")
            continue
        ranks[rank] = rho
        if lifted:
            notes.append(f"{site}: rho {rho:g} rounds to rank 0: lifted to rank 1")
    return ranks, notes


def sweep(
    model: Model,
    facts: FactSet,
    *,
    matrices: str | Iterable[str] = "all",
    layers: str | int | Iterable[int] = "all",
    rhos: Sequence[float] = RHOS,
    out: str | Path | None = None,
    generic: Sequence[str] | None = None,
    candidates: bool = True,
    progress: bool = True,
) -> Sweep:
    """Score LASER at every layer, matrix and ρ.

    Args:
        facts: with a "validation" split; a set without splits gets one by subject (20 %, seed 0).
        matrices, layers: groups, names, numbers, or "all".
        rhos: fractions of rank kept. One that rounds to rank 0 is lifted to rank 1; cells of equal rank
            are run once. Both are told in a warning and in `Sweep.notes`.
        candidates: also rank each answer among the answers of its relation. Where those have several
            tokens, each costs a row of its own: leave it out on large sets.
        out: folder for the results. Each site's scores are written as they come, and a run with the
            same settings resumes from them.

    Raises:
        ValueError: bad settings, or a folder that holds a run with other settings.
    """
    from tqdm.auto import tqdm

    if not rhos:
        raise ValueError("no rhos given: expected fractions of rank kept, as in li.RHOS")
    if not facts.splits:
        facts = facts.with_split(0.2, seed=0)
    facts.split("validation")
    sites = [Site(n, m) for m in resolve_matrices(model, matrices) for n in resolve_layers(model, layers)]
    scorer = Scorer(model, facts, generic=generic, candidates=candidates)
    plans: dict[Site, dict[int, float]] = {}
    notes: list[str] = []
    for site in tqdm(sites, desc="factorising", unit="matrix", disable=not progress):
        plans[site], said = grid(model, site, rhos)
        notes += said
    if notes:
        warnings.warn(
            f"{len(notes)} cells of the grid were lifted to rank 1 or dropped, as Sweep.notes says; "
            f"the first: {notes[0]}",
            stacklevel=2,
        )

    provenance = {
        "model": model.name,
        "revision": model.revision,
        "weights_sha256": model.weights_sha256,
        "facts": facts.name,
        "facts_sha256": facts.sha256,
        "sites": [str(site) for site in sites],
        "rhos": sorted(map(float, set(rhos)), reverse=True),
        "generic": list(generic) if generic is not None else None,
        "candidates": candidates,
    }
    folder = results.open_run(out, provenance) if out is not None else None

    total = sum(map(len, plans.values())) + 1
    cells = []
    with tqdm(total=total, desc="sweep", unit="cell", disable=not progress) as bar:

        def of_site(name: str, edits: dict[str, Edit | None]) -> pd.DataFrame:
            path = folder / "parts" / f"{name}.parquet" if folder is not None else None
            if path is not None and (done := _finished(path)) is not None:
                bar.update(len(edits))
                return done
            part = pd.concat([frame[_PART_COLUMNS] for _, frame in scorer.run(edits)], ignore_index=True)
            bar.update(len(edits))
            if path is not None:
                results.write_table(part, path, "sweep_part", provenance)
            return part

        cells.append(_cells(of_site("base", {"base": None})))
        for site, ranks in plans.items():
            edits = {f"{rank}": _with_rho(laser(model, site, rank=rank), rho) for rank, rho in ranks.items()}
            cells.append(_cells(of_site(str(site), edits)))  # type: ignore[arg-type]

    frame = results.check(pd.concat(cells, ignore_index=True), "cells")
    if folder is not None:
        results.write_table(frame, folder / "cells.parquet", "cells", provenance)
    return Sweep(frame, tuple(notes))


def _with_rho(edit: Edit, rho: float) -> Edit:
    """A cell is known by the ρ that was asked for, also where its rank was lifted to 1."""
    return Edit(edit.parts, edit.kind, rho)


def _finished(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        return results.read_table(path, "sweep_part")
    except ValueError as error:
        warnings.warn(f"{path.name} is damaged and is computed again: {error}", stacklevel=3)
        return None


def _cells(part: pd.DataFrame) -> pd.DataFrame:
    """Means over facts and prompts, per cell and split."""
    frame = part.assign(
        top1=part["rank"] <= 1,
        top5=part["rank"] <= 5,
        top10=part["rank"] <= 10,
        candidate_top1=(part["candidate_rank"] == 1).where(part["candidate_rank"].notna()).astype(float),
    )
    cells = summarise(frame, ("site", "kind", "rho", "rank_kept", "alpha", "split"))
    place: list[Any] = [Site.parse(site) if site else None for site in cells["site"]]
    cells["layer"] = [float("nan") if p is None else float(p.layer) for p in place]
    cells["matrix"] = ["" if p is None else p.matrix for p in place]
    return cells[list(results.SCHEMAS["cells"])]
