"""Spectra of weights: exact singular value decompositions, from memory, from disk, or computed.

A spectrum is computed once for all ranks, bands and tails, and kept under the hash of its weight, so that no other
model or revision can be served a wrong one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits import spectrum_files
from laser_interp.edits.factorisation import factorise
from laser_interp.edits.random_matrices import median_of_noise
from laser_interp.edits.sites import Site, resolve, resolve_site, weight
from laser_interp.models.forward import score_dtype
from laser_interp.models.model import Model
from laser_interp.models.weights import derived, stored_tensors, tensor_bytes

KEPT_IN_MEMORY = 2 << 30  # bytes of spectra a model keeps at hand; those of GPT-J together take 33 GB


@dataclass(frozen=True, eq=False)
class Spectrum:
    """`weight = U @ diag(S) @ Vh`, singular values descending.

    Attributes:
        U: `[d_in, r]`, orthonormal columns; input side. fp32, or fp64 for an fp64 weight.
        S: `[r]`, fp64.
        Vh: `[r, d_out]`, orthonormal rows; output side. As U.
        weight_sha256: hash of the weight this is the spectrum of.
        metric: "weights", or "activations" for one made by `whitened`, whose U is not orthonormal.
    """

    U: Float[Tensor, "d_in r"]
    S: Float[Tensor, " r"]
    Vh: Float[Tensor, "r d_out"]
    weight_sha256: str
    metric: str = "weights"

    @property
    def max_rank(self) -> int:
        return self.S.shape[0]

    @property
    def n_bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.U, self.S, self.Vh))

    @cached_property
    def energy(self) -> Float[Tensor, " r"]:
        """Share of the squared Frobenius norm in each direction, fp64."""
        squared = self.S.square()
        return squared / squared.sum().clamp_min(torch.finfo(torch.float64).tiny)

    def matrix(self, gains: Float[Tensor, " r"] | None = None) -> Float[Tensor, "d_in d_out"]:
        """`U diag(S * gains) Vh` in fp64; the weight itself where no gains are given."""
        scale = self.S if gains is None else self.S * gains.to(self.S)
        return (self.U.double() * scale) @ self.Vh.double()

    @property
    def stable_rank(self) -> float:
        """‖W‖_F² / ‖W‖₂², that is how many directions of the largest size the matrix is worth."""
        return float(self.S.square().sum() / self.S[0].square().clamp_min(torch.finfo(torch.float64).tiny))

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the normalised singular values (Roy & Vetterli 2007)."""
        share = self.S / self.S.sum().clamp_min(torch.finfo(torch.float64).tiny)
        return float(torch.exp(-(share * share.clamp_min(1e-300).log()).sum()))

    @property
    def noise_edge(self) -> float:
        """Largest singular value that a matrix of noise alone would have, the Marchenko–Pastur edge σ(√d_in + √d_out).

        σ, of one entry, is estimated from the median singular value over that of the Marchenko–Pastur law (Gavish &
        Donoho 2014), so that a few large directions do not move it. A matrix without noise in it has an edge too:
        it is where noise would end, no proof that there is any.
        """
        if self.metric != "weights":
            raise ValueError("a whitened spectrum has no Marchenko–Pastur edge: its entries are not alike")
        d_in, d_out = self.U.shape[0], self.Vh.shape[1]
        sigma = float(self.S.median()) / median_of_noise(d_in, d_out)
        return sigma * (d_in**0.5 + d_out**0.5)

    @property
    def rank_above_noise(self) -> int:
        """Directions above `noise_edge`, the rank that random-matrix theory would keep."""
        return int((self.noise_edge < self.S).sum())

    def __repr__(self) -> str:
        return f"Spectrum({self.U.shape[0]}x{self.Vh.shape[1]}, rank {self.max_rank}, top {float(self.S[0]):.4g})"

    def _repr_html_(self) -> str:
        cumulative = self.energy.cumsum(0)
        half = int((cumulative < 0.5).sum()) + 1
        return f"<p>{self!r}; half of its energy is in the top {half} of {self.max_rank} directions</p>"


def spectrum(model: Model, site: Site | str, *, cache: bool = True) -> Spectrum:
    """The spectrum of a site, from memory, from disk, or computed.

    Args:
        site: `Site(3, "in")` or "3.in".
        cache: read and write the disk cache.
    """
    site = resolve_site(model, site)
    kept: dict[Site, Spectrum] = derived(model, "spectra", dict)
    known = kept.pop(site, None)
    if known is None or known.weight_sha256 != site_sha256(model, site):
        known = _of_weight(weight(model, site), cache=cache)
    of_site = kept[site] = known  # the last used is the last to go
    while sum(other.n_bytes for other in kept.values()) > KEPT_IN_MEMORY and len(kept) > 1:
        del kept[next(iter(kept))]
    return of_site


def site_sha256(model: Model, site: Site) -> str:
    """Hash of a site's weight, computed once, and again where the weight changed."""
    resolve(model, site)
    tensors = stored_tensors(model, site.layer, site.matrix)
    return derived(model, ("weight_sha256", site), lambda: weight_sha256(weight(model, site)), of=tensors)


def weight_sha256(matrix: Tensor) -> str:
    """Hash of a weight's dtype, shape and values."""
    digest = hashlib.sha256(f"{matrix.dtype} {tuple(matrix.shape)}\n".encode())
    digest.update(tensor_bytes(matrix))
    return digest.hexdigest()


def _of_weight(matrix: Tensor, *, cache: bool) -> Spectrum:
    digest = weight_sha256(matrix)
    if cache and (stored := spectrum_files.read(digest)) is not None:
        return Spectrum(stored["U"], stored["S"], stored["Vh"], digest)
    U, S, Vh = factorise(matrix)
    keep = score_dtype(matrix.dtype)
    factors = {"U": U.to("cpu", keep).contiguous(), "S": S.cpu(), "Vh": Vh.to("cpu", keep).contiguous()}
    if cache:
        spectrum_files.write(digest, factors)
    return Spectrum(factors["U"], factors["S"], factors["Vh"], digest)


def boundaries(model: Model, sites: Sequence[Site]) -> pd.DataFrame:
    """Where each spectrum might be cut, by what random matrices and the spectrum itself say.

    Returns:
        One row a site: `site, d_in, d_out, top` (largest singular value), `noise_edge`, `rank_above_noise`,
        `energy_above_noise` (share of the squared norm), `effective_rank`, `stable_rank`.
    """
    rows = []
    for site in sites:
        known = spectrum(model, site)
        rank = known.rank_above_noise
        rows.append(
            {
                "site": str(site),
                "d_in": known.U.shape[0],
                "d_out": known.Vh.shape[1],
                "top": float(known.S[0]),
                "noise_edge": known.noise_edge,
                "rank_above_noise": rank,
                "energy_above_noise": float(known.energy[:rank].sum()),
                "effective_rank": known.effective_rank,
                "stable_rank": known.stable_rank,
            }
        )
    return pd.DataFrame(rows)
