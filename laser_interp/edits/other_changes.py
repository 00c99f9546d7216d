"""Edits that LASER is compared with: truncating the difference of two checkpoints, and pruning small weights."""

import torch

from laser_interp.choices import whole_number
from laser_interp.edits.constructors import rank_of
from laser_interp.edits.edit import Edit
from laser_interp.edits.factorisation import factorise
from laser_interp.edits.site_edit import SiteEdit
from laser_interp.edits.sites import Site, Where, resolve, resolve_site, weight
from laser_interp.edits.spectra import Spectrum, spectrum, weight_sha256
from laser_interp.models.forward import score_dtype
from laser_interp.models.model import Model


def difference_spectrum(model: Model, base: Model, site: Site | str) -> Spectrum:
    """The spectrum of what training changed at a site: the model's weight minus that of the model it began with.

    Raises:
        ValueError: the two weights have different shapes.

    Example:
        >>> li.difference_spectrum(tuned, base, "3.in").effective_rank
    """
    site = resolve_site(model, site)
    now, before = weight(model, site), weight(base, site)
    if now.shape != before.shape:
        raise ValueError(
            f"{site} is {tuple(now.shape)} in {model.name!r} and {tuple(before.shape)} in {base.name!r}: expected two "
            "checkpoints of one architecture"
        )
    change = now.detach().cpu().double() - before.detach().cpu().double()
    U, S, Vh = factorise(change)
    keep = score_dtype(model.dtype)
    return Spectrum(U.to("cpu", keep), S.cpu(), Vh.to("cpu", keep), weight_sha256(change))


def laser_of_difference(
    model: Model, base: Model, where: Where, rho: float | None = None, *, rank: int | None = None
) -> Edit:
    """LASER on what training changed: the base's weight plus the top singular directions of the difference.

    Rank 0 is the base's weight, and the full rank the model as trained (see *Shortcuts in the Tail*, arXiv 2606.07596).

    Args:
        model: the fine-tuned model, on which the edit acts.
        base: the checkpoint that it began with; of the same architecture.
        rho: fraction of the difference's rank that is kept, in (0, 1].
        rank: number of directions kept, instead of rho; 0 keeps nothing of the difference.

    Raises:
        ValueError: neither or both of rho and rank; either out of range; or other shapes.

    Example:
        >>> edit = li.laser_of_difference(tuned, base, "*.mlp", rho=0.1)
    """
    if (rho is None) == (rank is None):
        raise ValueError(f"rho is {rho} and rank is {rank}: give exactly one of them")
    parts = {}
    for site in resolve(model, where):
        changed = difference_spectrum(model, base, site)
        k = rank_of(rho, changed.max_rank) if rho is not None else whole_number("rank", rank)
        if not 0 <= k <= changed.max_rank:
            raise ValueError(f"rank is {rank}: the difference at {site} has ranks 0 to {changed.max_rank}")
        tail = slice(k, None)
        removed = (-changed.U[:, tail].double() * changed.S[tail], changed.Vh[tail].double())
        parts[site] = _added_to(model, site, removed)
    return Edit(parts, "laser-of-difference", rho)


def pruned(model: Model, where: Where, share: float) -> Edit:
    """Magnitude pruning: the smallest weights of a matrix are set to zero. The paper compares LASER with it.

    Args:
        share: of the entries of each matrix that become zero, in (0, 1].

    Raises:
        ValueError: a share out of range.

    Example:
        >>> li.controls.pruned(model, "3.in", 0.9)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: the share of the weights set to zero must lie in (0, 1]")
    parts = {}
    for site in resolve(model, where):
        w = weight(model, site).detach().cpu().double()
        n = round(share * w.numel())
        gone = torch.zeros(w.numel(), dtype=torch.bool)
        gone[w.abs().flatten().argsort(stable=True)[:n]] = True
        removed = -torch.where(gone.view_as(w), w, torch.zeros_like(w))
        identity = torch.eye(min(w.shape), dtype=torch.float64)
        parts[site] = _added_to(model, site, (identity, removed) if w.shape[0] <= w.shape[1] else (removed, identity))
    return Edit(parts, f"pruned-{share:g}")


def _added_to(model: Model, site: Site, added: tuple[torch.Tensor, torch.Tensor]) -> SiteEdit:
    of_site = spectrum(model, site)
    return SiteEdit(of_site, torch.ones_like(of_site.S), added)
