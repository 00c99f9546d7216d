"""The grid: every layer, matrix and ρ; validation selects, test reports.

The work is cut into units, a layer on some hundred prompts each. A unit's scores are written when it is
done, so that a run that was killed goes on from there; the tables are made from the units in the end.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site, resolve_layers, resolve_matrices
from laser_interp.edits.spectra import spectrum
from laser_interp.facts.fact_set import FactSet
from laser_interp.models.model import Model
from laser_interp.scoring.engine import operations, parse_memory
from laser_interp.scoring.scorer import summarise
from laser_interp.selection.cells import RHOS, Cell, Unit, Worker, divided, grid, provenance, shards
from laser_interp.storage import tables as results

UNIT_PROMPTS = 512
EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Selection:
    """The cell that validation chose.

    Attributes:
        site, rho, rank: the edit. `rho` is as asked for, also where its rank was lifted to 1.
        top1, loss: of the edit on validation.
        base_top1, base_loss: of the model as trained on validation.
        cell: the edit as a `Cell` writes it.
    """

    site: Site
    rho: float
    rank: int
    top1: float
    loss: float
    base_top1: float
    base_loss: float
    cell: str = ""

    @property
    def improves(self) -> bool:
        """Whether it beats the model as trained on validation, by accuracy, then loss."""
        return (self.top1, -self.loss) > (self.base_top1, -self.base_loss)

    def edit(self, model: Model) -> Edit:
        """The chosen edit."""
        return Cell.parse(self.cell).edit(model)


@dataclass(frozen=True)
class Sweep:
    """A finished grid.

    Attributes:
        cells: one row per (cell, split): the edit, and means over facts and prompts. The model as
            trained is the cell of kind "base".
        notes: what was lifted to rank 1 or dropped as equal to another cell, and which cells were stopped
            after validation.
    """

    cells: pd.DataFrame
    notes: tuple[str, ...] = field(default=())

    def _repr_html_(self) -> str:
        edits = self.cells[self.cells["kind"] == "laser"]
        splits = sorted(set(self.cells["split"]), key=lambda name: (name != "validation", name))
        chosen = edits[edits["split"] == splits[0]].sort_values(
            ["top1", "loss"], ascending=[False, True], kind="stable"
        )
        shown = pd.DataFrame({"cell": ["", *chosen["cell"].head(3)]})
        for split in splits:  # test stands beside what selects
            means = self.cells[self.cells["split"] == split].set_index("cell")
            for metric in ("top1", "loss"):
                shown[f"{split}: {metric}"] = means[metric].reindex(shown["cell"]).to_numpy()
        table = shown.replace({"cell": {"": "as trained"}}).to_html(index=False, float_format=lambda v: f"{v:.3f}")
        return f"<p>Sweep of {edits['site'].nunique()} sites; the best cells by {splits[0]}:</p>{table}"

    def changes(self, split: str) -> pd.DataFrame:
        """Each cell's change against the model as trained: `d_top1`, `d_loss`, `d_p_generic`."""
        cells = self.cells[self.cells["split"] == split]
        base = cells[cells["kind"] == "base"].iloc[0]
        out = cells[cells["kind"] != "base"].astype({"layer": int})
        for metric in ("top1", "loss", "p_generic"):
            out[f"d_{metric}"] = out[metric] - base[metric]
        return out

    def select(self, split: str = "validation", *, kinds: Collection[str] = ("laser",)) -> Selection:
        """The best cell by accuracy, then by loss.

        Args:
            split: what selects.
            kinds: which cells may be selected: "laser", and where they were asked for "inject" and "band".

        Raises:
            ValueError: no such split, or no cell with a finite loss.
        """
        cells = self.cells[self.cells["split"] == split]
        if cells.empty:
            raise ValueError(f"the sweep has no split {split!r}: it has {sorted(set(self.cells['split']))}")
        base = cells[cells["kind"] == "base"].iloc[0]
        edits = cells[cells["kind"].isin(list(kinds)) & cells["loss"].notna() & (cells["n_not_finite"] == 0)]
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
            str(best["cell"]),
        )


@dataclass(frozen=True)
class Estimate:
    """What a sweep would take, from a measured part of its first layer.

    Attributes:
        n_cells, n_prompts: cells besides the model as trained, and prompts.
        seconds: of scoring, and of the factorisations that are not on disk yet.
        memory: bytes: weights, the factors of a layer, and what activations may take.
    """

    n_cells: int
    n_prompts: int
    seconds: float
    memory: int

    def __str__(self) -> str:
        hours, rest = divmod(round(self.seconds), 3600)
        took = f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
        return f"{self.n_cells} cells x {self.n_prompts} prompts: about {took}, {self.memory / 1e9:.1f} GB of memory"


def sweep(
    model: Model,
    facts: FactSet,
    *,
    matrices: str | Iterable[str] = "all",
    layers: str | int | Iterable[int] = "all",
    rhos: Sequence[float] = RHOS,
    alphas: Sequence[float] = (),
    bands: Sequence[tuple[int, int]] = (),
    controls: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    split: str | None = None,
    seed: int = 0,
    stop_hopeless: bool = False,
    path: str = "network",
    at: str | None = None,
    out: str | Path | None = None,
    generic: Sequence[str] | None = None,
    candidates: bool = True,
    engine: str = "fast",
    memory: int | str | None = None,
    executor: str = "local",
    workers: int | None = None,
    progress: bool = True,
) -> Sweep:
    """Score LASER at every layer, matrix and ρ.

    Args:
        facts: with a "validation" split; a set without splits gets one by subject (20 %, from `seed`).
        matrices, layers: groups, names, numbers, or "all".
        rhos: fractions of rank kept. One that rounds to rank 0 is lifted to rank 1; cells of equal rank
            are run once. Both are told in a warning and in `Sweep.notes`.
        alphas: also inject the discarded part at these strengths, at each ρ.
        bands: also keep only the directions `start <= i < stop`, as in `[(0, 10), (10, 50)]`.
        controls: also these at each ρ, of `BESIDE`; random ones once for each of `seeds`.
        split: "subject" splits anew by subject, "paper" takes the first 20 % as validation as the paper did.
        stop_hopeless: leave cells out of the test split that are worse than the model as trained on
            validation: the upper end of a one-sided 99 % interval of the change in top-1, over subjects,
            is below 0. They are told in `Sweep.notes`.
        path, at: where all edits act: see `Edit.via` and `Edit.at`.
        out: folder for the results. Each unit's scores are written as they come, and a run with the
            same settings goes on from them.
        candidates: also rank each answer among the answers of its relation. Where those have several
            tokens, each costs a row of its own: leave it out on large sets.
        engine, memory: see `li.score`.
        executor: "local", or "ray" to spread the units over a Ray cluster (`pip install laser-interp[ray]`).
        workers: Ray actors; default: one a GPU of the cluster, or one for each two CPUs.

    Raises:
        ValueError: bad settings, a folder that holds a run with other settings, or one that another
            process is writing to.
        OSError: a result that could not be written; what was computed before is kept.
    """
    plan = _Plan(model, facts, matrices, layers, rhos, alphas, bands, controls, seeds, split, seed)
    if executor not in EXECUTORS:
        raise ValueError(f"executor is {executor!r}: expected one of {', '.join(EXECUTORS)}")
    options = {"generic": generic, "candidates": candidates, "engine": engine, "memory": memory, "path": path, "at": at}
    if plan.cells:  # refused before any work
        Worker(model, plan.shards, options).placed(next(iter(plan.cells.values()))[0].edit(model), 0).check(model)
    parse_memory(memory, model)
    if plan.notes:
        warnings.warn(
            f"{len(plan.notes)} cells of the grid were lifted to rank 1 or dropped, as Sweep.notes says; "
            f"the first: {plan.notes[0]}",
            stacklevel=2,
        )
    settings = plan.settings | {
        "generic": list(generic) if generic is not None else None,
        "candidates": candidates,
        "engine": engine,
        "stop_hopeless": stop_hopeless,
        "path": path,
        "at": at,
    }
    if out is None:
        return _run(plan, options, None, settings, stop_hopeless, executor, workers, progress)
    folder = Path(out)
    with results.locked(folder), results.keeping(folder):
        results.open_run(folder, settings)
        with results.replacing(folder / results.FACTS) as given:
            plan.facts.save(given, suffix=".jsonl")
        return _run(plan, options, folder, settings, stop_hopeless, executor, workers, progress)


class _Plan:
    """What a sweep is made of, checked before any work."""

    def __init__(
        self,
        model: Model,
        facts: FactSet,
        matrices: Any,
        layers: Any,
        rhos: Sequence[float],
        alphas: Sequence[float],
        bands: Sequence[tuple[int, int]],
        controls: Sequence[str],
        seeds: Sequence[int],
        split: str | None,
        seed: int,
    ) -> None:
        facts = divided(facts, split, seed)
        self.model, self.facts = model, facts
        sites = [Site(n, m) for m in resolve_matrices(model, matrices) for n in resolve_layers(model, layers)]
        self.cells, self.notes = grid(
            model, sites, rhos=rhos, alphas=alphas, bands=bands, controls=controls, seeds=seeds
        )
        self.by_layer: dict[int, tuple[Cell, ...]] = {}
        for layer in sorted({site.layer for site in sites}):
            self.by_layer[layer] = tuple(c for site in sites if site.layer == layer for c in self.cells[site])
        self.shards = shards(facts, UNIT_PROMPTS)
        self.n_cells = sum(map(len, self.cells.values()))
        self.n_prompts = sum(len(fact.prompts) for fact in facts)
        self.settings = provenance(model, facts, rhos) | {
            "sites": [str(site) for site in sites],
            "alphas": list(map(float, alphas)),
            "bands": [list(map(int, one)) for one in bands],
            "controls": list(controls),
            "seeds": list(map(int, seeds)),
            "unit_prompts": UNIT_PROMPTS,
        }

    def units(self, cells: dict[int, tuple[Cell, ...]], validation: bool) -> list[Unit]:
        """Layer by layer, so that a worker's factors and residual streams serve again."""
        chosen = [i for i, shard in enumerate(self.shards) if _validates(shard) == validation]
        base = [Unit(-1, i, ()) for i in chosen]
        return base + [Unit(layer, i, some) for layer, some in cells.items() if some for i in chosen]


def _run(
    plan: _Plan,
    options: dict[str, Any],
    folder: Path | None,
    settings: dict[str, Any],
    stop_hopeless: bool,
    executor: str,
    workers: int | None,
    progress: bool,
) -> Sweep:
    from tqdm.auto import tqdm

    parts: dict[str, pd.DataFrame] = {}
    prompts = [sum(len(fact.prompts) for fact in shard) for shard in plan.shards]
    notes = list(plan.notes)
    local = Worker(plan.model, plan.shards, options)
    with tqdm(
        total=(plan.n_cells + 1) * plan.n_prompts, desc="sweep", unit=" prompts", unit_scale=True, disable=not progress
    ) as bar:
        done_cells = 0.0

        def advance(cells: float, n_prompts: float) -> None:
            nonlocal done_cells
            done_cells += cells * n_prompts / plan.n_prompts
            bar.set_postfix_str(f"{done_cells:.0f} of {plan.n_cells + 1} cells", refresh=False)
            bar.update(round(cells * n_prompts))

        def read(unit: Unit) -> pd.DataFrame | None:
            if folder is None:
                return parts.get(unit.name)
            return results.read_whole(folder / "parts" / f"{unit.name}.parquet", "sweep_part")

        def finish(units: list[Unit]) -> None:
            waiting = []
            for unit in units:
                if read(unit) is None:
                    waiting.append(unit)
                else:
                    advance(max(len(unit.cells), 1), prompts[unit.shard])
            for unit, part in _execute(waiting, plan, options, executor, workers, local, advance, prompts):
                if folder is None:
                    parts[unit.name] = part
                else:
                    path = folder / "parts" / f"{unit.name}.parquet"
                    results.write_table(part, path, "sweep_part", settings)

        validation = plan.units(plan.by_layer, validation=True)
        finish(validation)
        remaining = plan.by_layer
        if stop_hopeless:
            base = pd.concat([read(unit) for unit in validation if unit.layer < 0])  # type: ignore[arg-type]
            stopped: list[Cell] = []
            for layer, some in plan.by_layer.items():
                found = pd.concat([read(u) for u in validation if u.layer == layer])  # type: ignore[arg-type]
                stopped += [cell for cell in some if _is_hopeless(found[found["cell"] == str(cell)], base)]
            notes += [f"{cell}: worse than the model as trained on validation: not run on test" for cell in stopped]
            remaining = {n: tuple(c for c in some if c not in stopped) for n, some in plan.by_layer.items()}
            bar.total -= len(stopped) * sum(n for n, s in zip(prompts, plan.shards, strict=True) if not _validates(s))
        test = plan.units(remaining, validation=False)
        finish(test)

        cells = []
        unedited = pd.DataFrame()
        for layer in (-1, *plan.by_layer):
            found = [part for unit in (*validation, *test) if unit.layer == layer and (part := read(unit)) is not None]
            order = [str(cell) for cell in plan.by_layer.get(layer, ())]
            whole = pd.concat(found, ignore_index=True)
            if layer < 0:
                unedited = whole
            cells.append(_cells(whole, order, unedited))
    # By matrix, then layer, as the sites were asked for.
    place = {str(cell): i for i, cell in enumerate(c for some in plan.cells.values() for c in some)} | {"": -1}
    frame = pd.concat(cells, ignore_index=True)
    frame = frame.iloc[np.argsort(frame["cell"].map(place).to_numpy(), kind="stable")].reset_index(drop=True)
    frame = results.check(frame, "cells")
    if folder is not None:
        results.write_table(frame, folder / "cells.parquet", "cells", settings)
    return Sweep(frame, tuple(notes))


def _validates(shard: FactSet) -> bool:
    return shard.facts[0].split == "validation"


def _execute(
    units: list[Unit],
    plan: _Plan,
    options: dict[str, Any],
    executor: str,
    workers: int | None,
    local: Worker,
    advance: Any,
    prompts: Sequence[int],
) -> Iterator[tuple[Unit, pd.DataFrame]]:
    """The units' scores, as they are done."""
    if executor == "ray":
        from laser_interp.parallel.ray_cluster import execute

        for unit, part in execute(units, plan.model, plan.shards, options, workers):
            advance(max(len(unit.cells), 1), prompts[unit.shard])
            yield unit, part
        return
    for unit in units:

        def tick(share: float, unit: Unit = unit) -> None:
            advance(share * max(len(unit.cells), 1), prompts[unit.shard])

        yield unit, local.run(unit, tick)


def _is_hopeless(found: pd.DataFrame, base: pd.DataFrame) -> bool:
    """Whether the upper end of a one-sided 99 % interval of the change in top-1, over subjects, is below 0."""
    both = found.merge(base, on=["fact_id", "prompt_id"], suffixes=("", "_base"))
    change = (both["rank"] <= 1).astype(float) - (both["rank_base"] <= 1)
    by_subject = change.groupby(both["subject"]).mean()
    if len(by_subject) < 2:
        return False
    return float(by_subject.mean() + 2.326 * by_subject.std(ddof=1) / math.sqrt(len(by_subject))) < 0


def estimate(
    model: Model,
    facts: FactSet,
    *,
    matrices: str | Iterable[str] = "all",
    layers: str | int | Iterable[int] = "all",
    rhos: Sequence[float] = RHOS,
    alphas: Sequence[float] = (),
    bands: Sequence[tuple[int, int]] = (),
    controls: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    split: str | None = None,
    seed: int = 0,
    generic: Sequence[str] | None = None,
    candidates: bool = True,
    memory: int | str | None = None,
) -> Estimate:
    """How long a sweep would take and how much memory, from one site scored on a few prompts.

    The time is that of the first site's ranks on up to 64 prompts, scaled by the operations that each site
    needs (`laser_interp.engine.operations`), and one factorisation, scaled likewise.
    """
    plan = _Plan(model, facts, matrices, layers, rhos, alphas, bands, controls, seeds, split, seed)
    options = {
        "generic": generic,
        "candidates": candidates,
        "engine": "fast",
        "memory": memory,
        "path": "network",
        "at": None,
    }
    site, cells = next(iter(plan.cells.items()))
    start = time.perf_counter()
    spectrum(model, site, cache=False)
    factorised = (time.perf_counter() - start) / _svd_operations(model, site)

    few = plan.facts.keep(_some(plan.facts, 64))
    worker = Worker(model, [few], options)
    unit = Unit(site.layer, 0, tuple(cells))
    worker.run(Unit(site.layer, 0, tuple(cells[:1])))  # tokenised and warm
    start = time.perf_counter()
    worker.run(unit)
    took = time.perf_counter() - start
    lengths = [8]
    per_operation = took / operations(model, site, [c.rank or 1 for c in cells], lengths)
    n_few = sum(len(fact.prompts) for fact in few)
    seconds = sum(
        per_operation * operations(model, one, [c.rank or 1 for c in some], lengths) * plan.n_prompts / n_few
        + factorised * _svd_operations(model, one)
        for one, some in plan.cells.items()
    )
    of_layer = [
        sum(model.weight(n, m).shape) * min(model.weight(n, m).shape) for n in plan.by_layer for m in model.matrices
    ]
    factors = 2 * 4 * max(of_layer) * len(model.matrices)
    return Estimate(plan.n_cells, plan.n_prompts, seconds, model.n_bytes + factors + parse_memory(memory, model))


def _some(facts: FactSet, n_prompts: int) -> list[Any]:
    out: list[Any] = []
    step = max(len(facts) // n_prompts, 1)
    for fact in facts.facts[::step]:
        if out and sum(len(one.prompts) for one in out) + len(fact.prompts) > n_prompts:
            break
        out.append(fact)
    return out


def _svd_operations(model: Model, site: Site) -> float:
    d_in, d_out = model.weight(site.layer, site.matrix).shape
    return min(d_in, d_out) ** 2 * float(max(d_in, d_out))


def _loss_changes(part: pd.DataFrame, unedited: pd.DataFrame) -> pd.DataFrame:
    """The standard error of each cell's change of loss against the model as trained; subjects are what is independent.

    Of a mean of n prompts in G clusters: √(G / (G − 1) · Σ_g (Σ_i (d_i − d̄))²) / n, as in a linear model with
    cluster-robust errors. NaN for a single subject.
    """
    known = unedited.set_index(["fact_id", "prompt_id"])["logprob"]
    change = known.reindex(pd.MultiIndex.from_frame(part[["fact_id", "prompt_id"]])).to_numpy() - part["logprob"]
    frame = part[["cell", "split", "subject"]].assign(change=change)
    by = frame.groupby(["cell", "split"], sort=False)["change"]
    frame["change"] -= by.transform("mean")
    sums = frame.groupby(["cell", "split", "subject"], sort=False)["change"].sum()
    groups = (sums**2).groupby(level=["cell", "split"], sort=False)
    n_groups = groups.size().astype(float)
    correction = n_groups / (n_groups - 1).where(n_groups > 1)
    error = (correction * groups.sum()) ** 0.5 / by.size()
    return error.rename("loss_change_se").reset_index()


def _cells(part: pd.DataFrame, order: Sequence[str], unedited: pd.DataFrame) -> pd.DataFrame:
    """Means over facts and prompts, per cell and split."""
    frame = part.assign(
        top1=part["rank"] <= 1,
        top5=part["rank"] <= 5,
        top10=part["rank"] <= 10,
        candidate_top1=(part["candidate_rank"] == 1).where(part["candidate_rank"].notna()).astype(float),
    )
    cells = summarise(frame, ("cell", "site", "kind", "rho", "rank_kept", "alpha", "split"))
    rank = {name: i for i, name in enumerate(order)}
    cells = cells.sort_values("cell", key=lambda c: c.map(rank), kind="stable", ignore_index=True)
    place: list[Any] = [Site.parse(site) if site else None for site in cells["site"]]
    cells["layer"] = [float("nan") if p is None else float(p.layer) for p in place]
    cells["matrix"] = ["" if p is None else p.matrix for p in place]
    cells = cells.merge(_loss_changes(part, unedited), on=["cell", "split"], how="left", validate="one_to_one")
    return cells[list(results.SCHEMAS["cells"])]
