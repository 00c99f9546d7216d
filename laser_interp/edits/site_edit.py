"""What an edit does at one site: gains on the directions of its spectrum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import Spectrum
from laser_interp.models.forward import score_dtype
from laser_interp.models.hooks import Rewrite
from laser_interp.models.model import Model


@dataclass(frozen=True, eq=False)
class SiteEdit:
    """What an edit does at one site.

    Attributes:
        spectrum: of the site's weight.
        gains: `[r]`, fp64, one factor a singular direction.
        added: factors `(A [d_in, n], B [n, d_out])` of a matrix added to the edited weight. Only edits that use other
            directions than the weight's own have one: some controls, pruning, and LASER of a difference.
    """

    spectrum: Spectrum
    gains: Float[Tensor, " r"]
    added: tuple[Float[Tensor, "d_in n"], Float[Tensor, "n d_out"]] | None = None

    @property
    def weight(self) -> Float[Tensor, "d_in d_out"]:
        """The edited weight in fp64. A copy of the model with this weight computes the same without hooks."""
        edited = self.spectrum.matrix(self.gains)
        return edited if self.added is None else edited + self.added[0].double() @ self.added[1].double()

    @property
    def removed_energy(self) -> float:
        """Squared Frobenius distance from the original weight, as a share of the weight's own."""
        if self.added is None and self.spectrum.is_orthonormal:  # large matrices take a minute to make
            return float((self.spectrum.energy * (1 - self.gains).square()).sum())
        original = self.spectrum.matrix()
        return float((original - self.weight).square().sum() / original.square().sum())

    def times(self, outer: SiteEdit) -> SiteEdit:
        if outer.added is not None or self.added is not None:
            raise ValueError("an edit that adds a matrix to the weight cannot be nested with another edit of this site")
        if not self.spectrum.has_directions_of(outer.spectrum):
            raise ValueError("edits of one site in different directions cannot be nested: their gains do not multiply")
        return replace(self, gains=self.gains * outer.gains)

    @torch.inference_mode(False)  # gradients may flow through it
    def rewrite(self, model: Model, site: Site) -> Rewrite:
        """The function that a hook runs. It computes the kept directions instead of subtracting the removed ones,
        which is exact to rounding at every rank."""
        dtype = score_dtype(model.dtype)
        device = model.weight(site.layer, site.matrix).device  # a large model's layers may lie on several
        bias = model.bias(site.layer, site.matrix)
        bias = None if bias is None else bias.to(device, dtype)
        used = self.gains.nonzero().squeeze(1)
        scale = (self.spectrum.S * self.gains)[used]
        down = (self.spectrum.U[:, used].double() * scale).to(device, dtype)
        up = self.spectrum.Vh[used].to(device, dtype)
        if self.added is not None:
            down = torch.cat([down, self.added[0].to(device, dtype)], dim=1)
            up = torch.cat([up, self.added[1].to(device, dtype)], dim=0)
        factors = (down, up)
        if down.shape[1] * (down.shape[0] + up.shape[1]) > down.shape[0] * up.shape[1]:
            factors = (down @ up,)  # fewer operations than through both

        def apply(x: Tensor, y: Tensor) -> Tensor:
            out = reduce(torch.matmul, factors, x.to(dtype))
            return (out if bias is None else out + bias).to(y.dtype)

        return apply
