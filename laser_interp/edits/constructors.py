"""Making edits: LASER, a band, the zero matrix, any gains."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from laser_interp.choices import number, rho_of_rate, whole_number
from laser_interp.edits.blocks import AnyBlocks
from laser_interp.edits.edit import Edit
from laser_interp.edits.site_edit import SiteEdit
from laser_interp.edits.sites import Site, Where, resolve
from laser_interp.edits.spectra import spectrum
from laser_interp.models.model import Model


def rank_of(rho: float, max_rank: int) -> int:
    """⌊ρ · max_rank⌋, the rank LASER keeps (paper, section 4).

    Raises:
        ValueError: ρ outside (0, 1].
    """
    if not 0 < number("rho", rho) <= 1:
        raise ValueError(f"rho is {rho}: the fraction of rank kept must lie in (0, 1]")
    return math.floor(round(rho * max_rank, 9))  # 0.29 * 100 is 28.999…, and means 29


def laser(
    model: Model,
    where: Where | None = None,
    rho: float | None = None,
    *,
    layer: int | None = None,
    matrix: str | None = None,
    rank: int | None = None,
    rate: float | None = None,
    blocks: AnyBlocks = None,
) -> Edit:
    """LASER: keep the top singular directions of one matrix or several, discard the rest.

    Args:
        where: `Site(3, "in")`, "3.in", `"*.mlp"`, or several of them.
        layer, matrix: the same in two words: `layer=3, matrix="in"`.
        rho: fraction of the maximum rank kept, in (0, 1].
        rank: number of directions kept, instead of rho.
        rate: as the published scripts say it, instead of rho: 9.9 is rho = .01.
        blocks: divide each matrix, as in 4 or "4-inputs-kmeans", and keep so many directions of each block; see
            `li.Blocks`. None edits whole matrices.

    Raises:
        ValueError: none or several of rho, rank and rate; one out of range; a rho that rounds to rank 0.

    Example:
        >>> li.laser(model, "3.in", rho=0.05)
        >>> li.laser(model, "*.mlp", rank=10)  # both matrices of every MLP
    """
    if (where is None) == (layer is None) or (layer is None) != (matrix is None):
        raise ValueError('where does LASER act? Give either a site, as in "3.in", or layer=3 and matrix="in"')
    layer = None if layer is None else whole_number("layer", layer)
    where = f"{layer}.{matrix}" if where is None else where
    rank = None if rank is None else whole_number("rank", rank, "a whole number of directions; a fraction is rho")
    rho = None if rho is None else number("rho", rho)
    if sum(given is not None for given in (rho, rank, rate)) != 1:
        raise ValueError(f"rho is {rho}, rank is {rank} and rate is {rate}: give exactly one of them")
    rho = rho_of_rate(rate) if rate is not None else rho
    parts = {}
    for site in resolve(model, where):
        of_site = spectrum(model, site, blocks=blocks)
        r = of_site.block_rank
        k = rank or 0 if rho is None else rank_of(rho, r)
        if rho is not None and k == 0:
            raise ValueError(
                f"rho = {rho} of rank {r} at {site} rounds to rank 0: use rho >= {1 / r:.3g}, rank=1, "
                "or li.zeroed for the zero matrix"
            )
        if not 1 <= k <= r:
            raise ValueError(f"rank is {rank}: {site} has ranks 1 to {r} (li.zeroed makes the zero matrix)")
        parts[site] = SiteEdit(of_site, of_site.first(k))
    return Edit(parts, "laser", rho=rho)


def zeroed(model: Model, where: Where) -> Edit:
    """The matrix replaced by zero (its bias stays).

    Example:
        >>> li.score(model, test, {"zeroed": li.zeroed(model, "3.in")})["correct"].mean()
    """
    of_sites = {site: spectrum(model, site) for site in resolve(model, where)}
    return Edit({site: SiteEdit(of_site, of_site.first(0)) for site, of_site in of_sites.items()}, "zeroed")


def band(model: Model, where: Where, start: int, stop: int, *, keep: bool = True, blocks: AnyBlocks = None) -> Edit:
    """Keep only (or, with `keep=False`, remove only) the directions `start <= i < stop`.

    Raises:
        ValueError: an empty band or one outside the site's rank.

    Example:
        >>> li.band(model, "3.in", 3, 10)  # directions 3 to 9 alone
    """
    parts = {}
    start, stop = whole_number("start", start), whole_number("stop", stop)
    for site in resolve(model, where):
        of_site = spectrum(model, site, blocks=blocks)
        if not 0 <= start < stop <= of_site.max_rank:
            raise ValueError(f"band {start}:{stop} at {site}: expected 0 <= start < stop <= {of_site.max_rank}")
        inside = torch.zeros_like(of_site.S)
        inside[start:stop] = 1
        parts[site] = SiteEdit(of_site, inside if keep else 1 - inside)
    return Edit(parts, "band" if keep else "band-removed")


def gains(model: Model, values: Mapping[Site | str, Sequence[float] | Tensor], *, blocks: AnyBlocks = None) -> Edit:
    """An edit from any gains: `{"3.in": [1, 1, 0, ...]}`, one number a singular direction.

    Raises:
        ValueError: a wrong number of gains, or one that is not finite.

    Example:
        >>> li.gains(model, {"3.in": [1.0] * 3 + [0.5] * 61})
    """
    parts: dict[Site, SiteEdit] = {}
    for where, vector in values.items():
        values_64 = torch.as_tensor(vector, dtype=torch.float64).detach().cpu()
        for site in resolve(model, where):
            of_site = spectrum(model, site, blocks=blocks)
            if values_64.shape != (of_site.max_rank,):
                raise ValueError(
                    f"{tuple(values_64.shape)} gains for {site}: expected {of_site.max_rank}, one a singular direction"
                )
            if not bool(values_64.isfinite().all()):
                raise ValueError(f"the gains for {site} are not all finite")
            if site in parts:
                raise ValueError(f"{site} is named twice: one site takes one vector of gains")
            parts[site] = SiteEdit(of_site, values_64)
    if not parts:
        raise ValueError("no gains given: expected {site: gains}")
    return Edit(parts, "gains")
