"""Composing LASER: greedily, from the last layer and the smallest ρ (paper, section 4 and table 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.edits.edit import Edit, laser, parse_laser
from laser_interp.edits.sites import Site, resolve_layers, resolve_matrices
from laser_interp.facts.fact_set import FactSet
from laser_interp.models.model import Model
from laser_interp.scoring.scorer import Scorer, summarise
from laser_interp.selection.cells import RHOS, Cell, divided, grid, provenance
from laser_interp.storage import tables as results


@dataclass(frozen=True)
class Composition:
    """LASER on several sites, found greedily.

    Attributes:
        ranks: site -> the rank kept there; empty where nothing improved on validation.
        steps: one row a try, in order: the site, its ρ and rank, the validation `top1` and `loss` of all
            edits together with this one, whether it was `kept`, and the whole `edit` in one line.
        scores: means per edit ("base", "composed") and split, test among them.
    """

    ranks: Mapping[Site, int]
    steps: pd.DataFrame
    scores: pd.DataFrame

    def __str__(self) -> str:
        return _line(self.ranks)

    def edit(self, model: Model) -> Edit:
        """All its edits as one.

        Raises:
            ValueError: nothing was kept.
        """
        if not self.ranks:
            raise ValueError("no step improved on validation: there is nothing to compose")
        return parse_laser(model, str(self))


def _line(ranks: Mapping[Site, int]) -> str:
    return " + ".join(f"{site}:rank={rank}" for site, rank in ranks.items())


def compose(
    model: Model,
    facts: FactSet,
    *,
    matrices: str | Iterable[str] = "mlp",
    layers: str | int | Iterable[int] = "all",
    rhos: Sequence[float] = RHOS,
    split: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    engine: str = "fast",
    memory: int | str | None = None,
    progress: bool = True,
) -> Composition:
    """Add one LASER after the other, from the last layer down and from the smallest ρ up.

    A step is kept if validation improves, by accuracy, then by loss; at a site that has an edit already a
    larger ρ replaces it if that is better still. Test is scored once, at the end.

    Args:
        matrices, layers: where to try; the paper composes MLP matrices.
        rhos: fractions of rank kept; one that rounds to rank 0 is lifted to rank 1.
        split, seed, engine, memory: as in `li.sweep`.
        out: folder for the results; each site's steps are written as they come, and a run with the same
            settings goes on from them.

    Raises:
        ValueError: bad settings, a folder with another run, or one that another process is writing to.
    """
    from tqdm.auto import tqdm

    facts = divided(facts, split, seed)
    sites = [Site(n, m) for n in reversed(resolve_layers(model, layers)) for m in resolve_matrices(model, matrices)]
    plans, _ = grid(model, sites, rhos=rhos)
    settings = provenance(model, facts, rhos) | {"composed": [str(site) for site in sites], "engine": engine}
    scorer = Scorer(model, facts.split("validation"), candidates=False)

    def score(tried: Mapping[str, Edit | None]) -> dict[str, dict[str, Any]]:
        found = scorer.run(tried, engine=engine, memory=memory)
        means = summarise(pd.concat([frame for _, frame in found], ignore_index=True)).to_dict("records")
        return {str(row["edit"]): {str(k): v for k, v in row.items()} for row in means}

    with ExitStack() as stack:
        folder = None
        if out is not None:
            folder = Path(out)
            stack.enter_context(results.locked(folder))
            stack.enter_context(results.keeping(folder))
            results.open_run(folder, settings)
        ranks: dict[Site, int] = {}
        edits: dict[Site, Edit] = {}
        base = score({"base": None})["base"]
        best = (float(base["top1"]), -float(base["loss"]))
        frames: list[pd.DataFrame] = []
        for site in tqdm(sites, desc="composing", unit="site", disable=not progress):
            path = folder / "parts" / f"{site}.parquet" if folder is not None else None
            tried = list(reversed(plans[site]))  # the smallest ρ first
            frame = results.read_whole(path, "steps") if path is not None else None
            if frame is None:
                # Whether a smaller ρ here was kept makes no difference to a larger one: it would replace it.
                together: dict[str, Edit | None] = {}
                for cell in tried:
                    together[str(cell.rank)] = reduce(add, edits.values(), laser(model, site, rank=cell.rank))
                means = score(together)
                rows = []
                for cell in tried:
                    row = means[str(cell.rank)]
                    now = (float(row["top1"]), -float(row["loss"]))
                    kept = row["n_not_finite"] == 0 and now > best
                    best = now if kept else best
                    rows.append(_step(cell, row, kept, {**ranks, site: cell.rank or 0}))
                frame = pd.DataFrame(rows)
                frame.insert(0, "step", range(len(frame)))
                frame["step"] += sum(map(len, frames))
                if path is not None:
                    results.write_table(frame, path, "steps", settings)
            if chosen := frame[frame["kept"]].to_dict("records"):
                last = chosen[-1]
                ranks[site] = int(last["rank_kept"])
                edits[site] = laser(model, site, rank=ranks[site])
                best = (float(last["top1"]), -float(last["loss"]))
            frames.append(frame)
        steps = results.check(pd.concat(frames, ignore_index=True), "steps")
        final: dict[str, Edit | None] = {"base": None}
        if ranks:
            final["composed"] = reduce(add, edits.values())
        found = Scorer(model, facts, candidates=False).run(final, engine=engine, memory=memory)
        scores = summarise(pd.concat([one for _, one in found], ignore_index=True), ("edit", "split"))
        if folder is not None:
            results.write_table(steps, folder / "steps.parquet", "steps", settings)
            results.write_table(scores, folder / "scores.parquet", None, settings)
    return Composition(ranks, steps, scores)


def _step(cell: Cell, row: Mapping[str, Any], kept: bool, ranks: Mapping[Site, int]) -> dict[str, Any]:
    return {
        "site": str(cell.site),
        "rho": float(cell.rho or 0),
        "rank_kept": float(cell.rank or 0),
        "top1": float(row["top1"]),
        "loss": float(row["loss"]),
        "n_not_finite": int(row["n_not_finite"]),
        "kept": bool(kept),
        "edit": _line(ranks),
    }
