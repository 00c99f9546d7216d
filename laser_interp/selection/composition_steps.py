"""The table of what a composition tried, step by step; both methods of composing write this table."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from laser_interp.edits.blocks import Blocks
from laser_interp.edits.sites import Site
from laser_interp.selection.cells import Cell

Ranks = Mapping[Site, int]


def cell_of(ranks: Ranks, blocks: Blocks | None = None) -> Cell:
    """LASER at all of these sites, as one cell."""
    return Cell(tuple(ranks), ranks=tuple(ranks.values()), blocks=blocks)


def in_one_line(cell: Cell) -> str:
    """The edits of such a cell, as `--edit` takes them."""
    how = "" if cell.blocks is None else f":{cell.blocks}"
    return " + ".join(f"{site}:rank={rank}{how}" for site, rank in zip(cell.sites, cell.ranks, strict=True))


def step_row(site: Site, rho: float | None, rank: int, row: Mapping[Any, Any], kept: bool, edit: str) -> dict[str, Any]:
    """One try: where, what all edits together reach on validation, whether it was kept, and all edits in one line."""
    return {
        "site": str(site),
        "rho": rho,
        "rank_kept": float(rank),
        "score": float(row["score"]),
        "loss": float(row["loss"]),
        "n_not_finite": int(row["n_not_finite"]),
        "kept": kept,
        "edit": edit,
    }


def kept_after(steps: Sequence[Mapping[str, Any]], ranks: Ranks) -> dict[Site, int]:
    """The ranks with what was kept last among these steps of one site or one round."""
    chosen = [row for row in steps if row["kept"]]
    return {**ranks, Site.parse(chosen[-1]["site"]): int(chosen[-1]["rank_kept"])} if chosen else dict(ranks)


def no_steps() -> pd.DataFrame:
    """An empty table of steps, for when no site is left to try."""
    row = step_row(Site(0, "in"), 1.0, 1, {"score": 0.0, "loss": 0.0, "n_not_finite": 0}, False, "")
    return pd.DataFrame([row])[:0]
