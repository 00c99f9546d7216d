"""What a grid is made of: cells, the edits it scores, and units, the pieces in which they are scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from laser_interp.edits import edit as edits_module
from laser_interp.edits.edit import Edit, band, laser, rank_of, zeroed
from laser_interp.edits.sites import Site
from laser_interp.facts.fact_set import FactSet
from laser_interp.models.model import Model
from laser_interp.scoring.engine import parse_memory
from laser_interp.scoring.scorer import Scorer
from laser_interp.storage import tables as results

# Fractions of rank kept: the paper's table 5, and the .4 its main table uses.
RHOS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01)
# What stands beside each LASER cell on request: its discarded part, the zeroed matrix, the matched controls.
BESIDE = (
    "discarded",
    "zeroed",
    "bottom_kept",
    "random_kept",
    "random_equal_energy",
    "random_subspace",
    "same_spectrum_random",
)
_SEEDED = BESIDE[3:]

_PART_COLUMNS = list(results.SCHEMAS["sweep_part"])


@dataclass(frozen=True)
class Cell:
    """One edit of the grid, by what it is and not by its numbers: it can be written down and read again.

    Attributes:
        site: what is edited.
        kind: "laser", "inject", "band", or one of `BESIDE`.
        rho, rank: fraction of rank kept, as asked for (also where its rank was lifted to 1), and the rank.
        alpha: strength of the injected part.
        start, stop: of the band that is kept.
        seed: of a random control.
    """

    site: Site
    kind: str = "laser"
    rho: float | None = None
    rank: int | None = None
    alpha: float | None = None
    start: int | None = None
    stop: int | None = None
    seed: int | None = None

    def __str__(self) -> str:
        told = [f"{k}={getattr(self, k):g}" for k in _CELL_NUMBERS if getattr(self, k) is not None]
        return " ".join([str(self.site), self.kind, *told])

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read what `str` wrote.

        Raises:
            ValueError: text of another form.
        """
        site, kind, *told = text.split()
        numbers: dict[str, Any] = {}
        for one in told:
            name, _, value = one.partition("=")
            if name not in _CELL_NUMBERS:
                raise ValueError(f"{text!r} is no cell of a sweep: {name!r} is none of {', '.join(_CELL_NUMBERS)}")
            numbers[name] = float(value) if name in ("rho", "alpha") else int(value)
        return cls(Site.parse(site), kind, **numbers)

    def edit(self, model: Model) -> Edit:
        """The edit itself."""
        if self.kind == "band":
            assert self.start is not None
            assert self.stop is not None
            return band(model, self.site, self.start, self.stop)
        if self.kind == "zeroed":
            return zeroed(model, self.site)
        base = laser(model, self.site, rank=self.rank)
        base = Edit(base.parts, base.kind, self.rho)  # known by the ρ that was asked for, lifted or not
        if self.kind == "laser":
            return base
        if self.kind == "inject":
            assert self.alpha is not None
            return base.inject(self.alpha)
        if self.kind == "discarded":
            return base.discarded()
        if self.kind in _SEEDED:
            return getattr(edits_module, self.kind)(model, base, seed=self.seed)
        return edits_module.bottom_kept(model, base)


_CELL_NUMBERS = ("rho", "rank", "alpha", "start", "stop", "seed")


def divided(facts: FactSet, split: str | None, seed: int) -> FactSet:
    """The facts with a validation split: their own, or a new one.

    Raises:
        ValueError: an unknown split, or facts whose own splits lack "validation".
    """
    if split not in (None, "subject", "paper"):
        raise ValueError(f"split is {split!r}: expected 'subject', 'paper', or None to keep that of the facts")
    if split is not None or not facts.splits:
        facts = facts.with_split(0.2, seed=seed, by="order" if split == "paper" else "subject")
    facts.split("validation")
    return facts


def provenance(model: Model, facts: FactSet, rhos: Sequence[float] | None = None) -> dict[str, Any]:
    """Which model, facts and, of a grid, ρ a run is of."""
    of_grid = {} if rhos is None else {"rhos": sorted(map(float, set(rhos)), reverse=True)}
    return of_grid | {
        "model": model.name,
        "revision": model.revision,
        "weights_sha256": model.weights_sha256,
        "facts": facts.name,
        "facts_sha256": facts.sha256,
    }


def grid(
    model: Model,
    sites: Sequence[Site],
    *,
    rhos: Sequence[float] = RHOS,
    alphas: Sequence[float] = (),
    bands: Sequence[tuple[int, int]] = (),
    controls: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
) -> tuple[dict[Site, list[Cell]], list[str]]:
    """The cells of each site, and what was lifted to rank 1 or dropped as equal to another.

    Raises:
        ValueError: a ρ, strength, band or control that cannot be.
    """
    if not rhos:
        raise ValueError("no rhos given: expected fractions of rank kept, as in li.RHOS")
    if unknown := [name for name in controls if name not in BESIDE]:
        raise ValueError(f"unknown controls {', '.join(unknown)}: expected some of {', '.join(BESIDE)}")
    if bad := [alpha for alpha in alphas if not math.isfinite(alpha)]:
        raise ValueError(f"alphas has {bad[0]}: expected finite numbers")
    out: dict[Site, list[Cell]] = {}
    notes = []
    for site in sites:
        r = min(model.weight(site.layer, site.matrix).shape)
        ranks: dict[int, float] = {}
        for rho in sorted(set(rhos), reverse=True):
            rank = rank_of(rho, r)
            lifted, rank = rank == 0, max(rank, 1)
            if rank in ranks:
                notes.append(f"{site}: rho {rho:g} is rank {rank}, as is rho {ranks[rank]:g}: dropped")
                continue
            ranks[rank] = rho
            if lifted:
                notes.append(f"{site}: rho {rho:g} rounds to rank 0: lifted to rank 1")
        cells = []
        for rank, rho in ranks.items():
            at: dict[str, Any] = {"rho": rho, "rank": rank}
            cells.append(Cell(site, "laser", **at))
            cells += [Cell(site, "inject", alpha=float(alpha), **at) for alpha in alphas]
            for name in controls:
                if name == "zeroed" or (rank == r and name == "discarded"):
                    continue  # of the matrix, not of a rank; nothing is discarded
                cells += [Cell(site, name, seed=seed, **at) for seed in (seeds if name in _SEEDED else (None,))]
        if "zeroed" in controls:
            cells.append(Cell(site, "zeroed"))
        for start, stop in bands:
            if not 0 <= start < stop:
                raise ValueError(f"band {start}:{stop}: expected 0 <= start < stop")
            if stop > r:
                notes.append(f"{site}: band {start}:{stop} ends above its rank {r}: dropped")
                continue
            cells.append(Cell(site, "band", start=int(start), stop=int(stop)))
        out[site] = cells
    return out, notes


@dataclass(frozen=True)
class Unit:
    """Some cells of one layer on one part of the facts; None is the model as trained.

    Attributes:
        layer: of the cells; -1 for the model as trained.
        shard: which part of the facts.
        cells: what is scored.
    """

    layer: int
    shard: int
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        return f"{'base' if self.layer < 0 else f'layer-{self.layer:03d}'}/{self.shard:05d}"


class Worker:
    """A model with the facts in parts, tokenised once, that scores one unit after the other.

    Args:
        shards: parts of the fact set.
        options: of `Scorer` (`generic`, `candidates`), `engine` and `memory`, and where the edits act: `path` (see
            `Edit.via`) and `at` (see `Edit.at`; None for every position).
    """

    def __init__(self, model: Model, shards: Sequence[FactSet], options: dict[str, Any]) -> None:
        self.model, self.shards, self.options = model, shards, options
        self._scorers: dict[int, Scorer] = {}

    def scorer(self, shard: int) -> Scorer:
        if shard not in self._scorers:
            self._scorers[shard] = Scorer(
                self.model,
                self.shards[shard],
                generic=self.options["generic"],
                candidates=self.options["candidates"],
                keep=parse_memory(self.options["memory"], self.model) // 2 // len(self.shards),
            )
        return self._scorers[shard]

    def placed(self, edit: Edit, shard: int) -> Edit:
        """The edit where the options want it."""
        edit = edit.via(self.options["path"])
        at = self.options["at"]
        return edit if at is None else edit.at(self.model, at, self.shards[shard])

    def run(self, unit: Unit, tick: Any = None) -> pd.DataFrame:
        """The unit's scores, a row per (cell, fact, prompt)."""
        edits: dict[str, Edit | None] = {
            str(cell): self.placed(cell.edit(self.model), unit.shard) for cell in unit.cells
        } or {"": None}
        options = {"engine": self.options["engine"], "memory": self.options["memory"]}
        frames = []
        for name, frame in self.scorer(unit.shard).run(edits, tick=tick, **options):
            frames.append(frame.assign(cell=name, kind=Cell.parse(name).kind if name else "base")[_PART_COLUMNS])
        return pd.concat(frames, ignore_index=True)


def shards(facts: FactSet, n_prompts: int) -> list[FactSet]:
    """The facts in parts of about `n_prompts` prompts, none with facts of two splits, validation first."""
    by_split: dict[str, list[Any]] = {}
    for fact in facts:
        by_split.setdefault(fact.split or "", []).append(fact)
    out = []
    for split in sorted(by_split, key=lambda name: (name != "validation", name)):
        part: list[Any] = []
        for fact in by_split[split]:
            part.append(fact)
            if sum(len(one.prompts) for one in part) >= n_prompts:
                out.append(facts.keep(part))
                part = []
        if part:
            out.append(facts.keep(part))
    return out
