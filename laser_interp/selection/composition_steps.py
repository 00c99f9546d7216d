"""What each step of a composition tried, in the form in which both ways of composing write it down."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import pandas as pd

from laser_interp.edits.constructors import laser
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site
from laser_interp.models.model import Model

Ranks = Mapping[Site, int]


def in_one_line(ranks: Ranks) -> str:
    """The edits, as `--edit` takes them."""
    return " + ".join(f"{site}:rank={rank}" for site, rank in ranks.items())


def combined(model: Model, ranks: Ranks) -> Edit:
    """LASER at all of these sites, as one edit."""
    return reduce(add, [laser(model, site, rank=rank) for site, rank in ranks.items()])


def step_row(
    site: Site, rho: float | None, rank: int, row: Mapping[Any, Any], kept: bool, ranks: Ranks
) -> dict[str, Any]:
    """One try: where, what all edits together reach on validation, and whether it was kept."""
    return {
        "site": str(site),
        "rho": rho,
        "rank_kept": float(rank),
        "score": float(row["score"]),
        "loss": float(row["loss"]),
        "n_not_finite": int(row["n_not_finite"]),
        "kept": kept,
        "edit": in_one_line(ranks),
    }


def kept_after(steps: Sequence[Mapping[str, Any]], ranks: Ranks) -> dict[Site, int]:
    """The ranks with what was kept last among these steps of one site or one round."""
    chosen = [row for row in steps if row["kept"]]
    return {**ranks, Site.parse(chosen[-1]["site"]): int(chosen[-1]["rank_kept"])} if chosen else dict(ranks)


def no_steps() -> pd.DataFrame:
    """A table of steps without a step: there was no site left to try."""
    row = step_row(Site(0, "in"), 1.0, 1, {"score": 0.0, "loss": 0.0, "n_not_finite": 0}, False, {})
    return pd.DataFrame([row])[:0]
