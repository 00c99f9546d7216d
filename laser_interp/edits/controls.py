"""Controls: edits that show whether something else has the same effect. Grids, studies and reports share one list."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from laser_interp.choices import check_seed, seed_of_63_bits
from laser_interp.edits.blocks import Blocks
from laser_interp.edits.constructors import zeroed
from laser_interp.edits.edit import Edit
from laser_interp.edits.site_edit import SiteEdit
from laser_interp.edits.sites import Site, resolve, weight
from laser_interp.edits.spectra import spectrum
from laser_interp.models.model import Model


def same_spectrum_random(model: Model, edit: Edit, *, seed: int) -> Edit:
    """W − R at each site, where R has the singular values of the discarded part and random singular vectors.

    Example:
        >>> li.controls.same_spectrum_random(model, laser, seed=0)
    """
    generator = _generator(seed)
    parts = {}
    for site, part in sorted(edit.parts.items()):
        of_site = part.spectrum
        if of_site.is_orthonormal:
            values = of_site.S * (1 - part.gains)
        else:  # its S are not the singular values of the weight
            values = torch.linalg.svdvals(of_site.matrix() - part.weight)
        left = _random_orthonormal(of_site.U.shape[0], len(values), generator)
        right = _random_orthonormal(of_site.Vh.shape[1], len(values), generator)
        parts[site] = SiteEdit(of_site, torch.ones_like(of_site.S), (-left * values, right.T))
    return edit.with_parts(parts, "control:same_spectrum_random")


def random_subspace(model: Model, edit: Edit, *, seed: int) -> Edit:
    """W without a random subspace of its inputs; what is removed has the Frobenius norm of the discarded part.

    Random orthonormal input directions are projected out one after the other. The last one is removed only in part, so
    that the norms are equal.

    Example:
        >>> li.controls.random_subspace(model, laser, seed=0)
    """
    generator = _generator(seed)
    parts = {}
    for site, part in sorted(edit.parts.items()):
        of_site = part.spectrum
        w = of_site.matrix()
        target = (w - part.weight).square().sum()
        q = _random_orthonormal(w.shape[0], w.shape[0], generator)
        rows = q.T @ w
        share = share_of_each(rows.square().sum(1), target)
        used = share > 0
        parts[site] = SiteEdit(of_site, torch.ones_like(of_site.S), (-q[:, used] * share[used], rows[used]))
    return edit.with_parts(parts, "control:random_subspace")


def random_kept(model: Model, edit: Edit, *, seed: int) -> Edit:
    """As many singular directions as the edit keeps, but drawn at random.

    Example:
        >>> controls = {f"random {seed}": li.controls.random_kept(model, laser, seed=seed) for seed in range(3)}
        >>> li.summarise(li.score(model, test, {"LASER": laser, **controls}))
    """
    generator = _generator(seed)
    _refuse_added(edit)
    parts = {}
    for site, part in sorted(edit.parts.items()):
        shuffled = part.gains[torch.randperm(part.spectrum.max_rank, generator=generator)]
        parts[site] = replace(part, gains=shuffled)
    return edit.with_parts(parts, "control:random_kept")


def random_equal_energy(model: Model, edit: Edit, *, seed: int) -> Edit:
    """Random singular directions removed, with the energy of the discarded part.

    Example:
        >>> li.controls.random_equal_energy(model, laser, seed=0)
    """
    generator = _generator(seed)
    _refuse_added(edit)
    parts = {}
    for site, part in sorted(edit.parts.items()):
        energy = part.spectrum.energy
        target = (energy * (1 - part.gains).square()).sum()
        order = torch.randperm(part.spectrum.max_rank, generator=generator)
        vector = torch.ones_like(energy)
        vector[order] = 1 - share_of_each(energy[order], target)
        parts[site] = replace(part, gains=vector)
    return edit.with_parts(parts, "control:random_equal_energy")


def bottom_kept(model: Model, edit: Edit) -> Edit:
    """As many directions as the edit keeps, but those with the smallest singular values; of each block, if divided.

    Example:
        >>> li.controls.bottom_kept(model, laser)
    """
    _refuse_added(edit)
    parts = {site: replace(part, gains=part.spectrum.reversed(part.gains)) for site, part in edit.parts.items()}
    return edit.with_parts(parts, "control:bottom_kept")


def same_rank_in_layer(model: Model, edit: Edit, layer: int = 0) -> Edit:
    """The edit's gains on the same matrices of another layer.

    Example:
        >>> li.controls.same_rank_in_layer(model, laser, layer=0)
    """
    _refuse_added(edit)
    parts = {}
    for site, part in sorted(edit.parts.items()):
        (there,) = resolve(model, Site(layer, site.matrix))
        if there in parts or there in edit.parts:
            own = "is a site of the edit itself" if there in edit.parts else "takes another site of it already"
            raise ValueError(f"the control of {site} in layer {layer} would be on {there}, which {own}: choose another")
        of_layer = spectrum(model, there, blocks=part.spectrum.blocks)
        if not torch.equal(of_layer.place_in_block, part.spectrum.place_in_block):
            raise ValueError(f"{there} falls into blocks of other sizes than {site}: it cannot take the same gains")
        parts[there] = SiteEdit(of_layer, part.gains)
    return edit.with_parts(parts, f"control:layer_{layer}")


def _refuse_added(edit: Edit) -> None:
    """Refuse an edit that is no choice of directions: one that adds a matrix to the weight, as pruning does."""
    if any(part.added is not None for part in edit.parts.values()):
        raise ValueError(
            "this edit adds a matrix to the weight: it keeps no number of directions for a control to match"
        )


def fits_layer(model: Model, sites: Sequence[Site], layer: int, blocks: Blocks | None = None) -> bool:
    """Whether `same_rank_in_layer` can put an edit of some sites into a layer: it has these matrices, in these sizes
    and in equal blocks, and none of them is edited."""
    there = [Site(layer, site.matrix) for site in sites]
    if (blocks is not None and blocks.grouped == "kmeans") or len({*there, *sites}) < 2 * len(sites):
        return False
    return all(
        (layer, site.matrix) in model.maps and weight(model, other).shape == weight(model, site).shape
        for site, other in zip(sites, there, strict=True)
    )


def _generator(seed: int) -> torch.Generator:
    """A generator of its own for any whole number; torch takes 64 bits, larger numbers are folded into them."""
    check_seed("seed", seed)
    return torch.Generator().manual_seed(seed_of_63_bits(seed))


def _random_orthonormal(d: int, n: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(d, n, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()  # uniform over orthonormal frames


def share_of_each(energies: Tensor, target: Tensor | float) -> Tensor:
    """How much of each piece to remove, in order, so that `sum(share² · energy) = target`."""
    before = energies.cumsum(0) - energies
    return ((target - before) / energies.clamp_min(1e-300)).clamp(0, 1).sqrt()


@dataclass(frozen=True)
class Control:
    """One way of making a control: if the directions of an edit matter, its control should not have the same effect.

    Attributes:
        make: (model, edit, seed) -> the control.
        is_random: whether it is drawn, once for each seed.
        is_placebo: whether it removes something random with the norm of the discarded part; no gain is expected of it.
        of_rank: whether it depends on the rank that is kept; the zeroed matrix does not.
    """

    make: Callable[[Model, Edit, int], Edit]
    is_random: bool = False
    is_placebo: bool = False
    of_rank: bool = True


def _drawn(make: Callable[..., Edit], is_placebo: bool = False) -> Control:
    return Control(lambda model, edit, seed: make(model, edit, seed=seed), is_random=True, is_placebo=is_placebo)


# By their names in labels and tables, and in the order in which they stand there. The discarded part is no control, but
# stands beside them.
CONTROLS = {
    "discarded": Control(lambda model, edit, seed: edit.discarded()),
    "same_spectrum_random": _drawn(same_spectrum_random, is_placebo=True),
    "random_subspace": _drawn(random_subspace, is_placebo=True),
    "random_kept": _drawn(random_kept),
    "random_equal_energy": _drawn(random_equal_energy),
    "bottom_kept": Control(lambda model, edit, seed: bottom_kept(model, edit)),
    "zeroed": Control(lambda model, edit, seed: zeroed(model, edit.sites), of_rank=False),
    "layer_0": Control(lambda model, edit, seed: same_rank_in_layer(model, edit, 0)),
}
