"""The cells of a grid: LASER at every site and ρ, and the controls and other edits that are scored beside it."""

from collections.abc import Sequence
from typing import Any

from laser_interp.edits.blocks import Blocks
from laser_interp.edits.constructors import rank_of
from laser_interp.edits.controls import CONTROLS, fits_layer
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import block_rank
from laser_interp.models.model import Model
from laser_interp.selection.settings import SearchSettings, parse_band


def ranks_of(max_rank: int, rhos: Sequence[float]) -> tuple[dict[int, float], list[str]]:
    """Rank -> its ρ, from large to small; and notes on each ρ that was lifted to rank 1, or dropped as a repeat."""
    ranks: dict[int, float] = {}
    notes = []
    for rho in sorted(set(rhos), reverse=True):
        rank = rank_of(rho, max_rank)
        lifted, rank = rank == 0, max(rank, 1)
        if rank in ranks:
            notes.append(f"rho {rho:g} is rank {rank}, as is rho {ranks[rank]:g}: dropped")
            continue
        ranks[rank] = rho
        if lifted:
            notes.append(f"rho {rho:g} rounds to rank 0: lifted to rank 1")
    return ranks, notes


def grid_cells(
    model: Model, sites: Sequence[Site], settings: SearchSettings
) -> tuple[dict[Site, list[EditSpec]], list[str]]:
    """The cells of each site, and notes of what was lifted to rank 1 or dropped."""
    by_site: dict[Site, list[EditSpec]] = {}
    notes: list[str] = []
    where: dict[str, list[str]] = {}  # a note on some sites -> these
    blocks = Blocks.parse(settings.blocks)
    anywhere: dict[str, Any] = {"path": settings.path, "at": settings.at}
    clusters = blocks is not None and blocks.grouped == "kmeans"
    if clusters and "layer_0" in settings.controls:
        notes.append("layer_0 is left out: the clusters of that layer's matrices have other sizes")
    for site in sites:
        max_rank = block_rank(model, site, blocks)
        ranks, of_site = ranks_of(max_rank, settings.rhos)
        cells = []
        in_layer_0 = fits_layer(model, (site,), 0, blocks)
        if "layer_0" in settings.controls and site.layer and not in_layer_0 and not clusters:
            of_site.append("layer_0 is left out: that layer has no such matrix of this size")
        for rank, rho in ranks.items():
            at = EditSpec((site,), "laser", rho=rho, ranks=(rank,), blocks=blocks, **anywhere)
            cells.append(at)
            cells += [at.of_kind("inject", alpha=alpha) for alpha in settings.alphas]
            for name in settings.controls:
                if not CONTROLS[name].of_rank or (rank == max_rank and name == "discarded"):
                    continue  # the control does not depend on the rank, or there is nothing to discard
                if name == "layer_0" and not in_layer_0:
                    continue
                seeds = settings.control_seeds if CONTROLS[name].is_random else (None,)
                cells += [at.of_kind(name, seed=seed) for seed in seeds]
        cells += [EditSpec((site,), name, **anywhere) for name in settings.controls if not CONTROLS[name].of_rank]
        for start, stop in map(parse_band, settings.bands):
            if stop > max_rank:
                of_site.append(f"band {start}:{stop} ends above the rank {max_rank}: dropped")
                continue
            cells.append(EditSpec((site,), "band", start=start, stop=stop, **anywhere))
        by_site[site] = cells
        for note in of_site:
            where.setdefault(note, []).append(str(site))
    for note, at in where.items():
        notes.append(f"{f'{len(at)} sites, the first ' if len(at) > 1 else ''}{at[0]}: {note}")
    return by_site, notes
