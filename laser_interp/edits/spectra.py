"""Spectra of weights: exact singular value decompositions, from memory, from disk, or computed.

A spectrum is computed once for all ranks, bands and tails, and kept under the hash of its weight, so that a model or
revision with other weights never gets it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from laser_interp.display import Drawable
from laser_interp.edits import spectrum_files
from laser_interp.edits.blocks import AnyBlocks, Blocks
from laser_interp.edits.factorisation import factorise, factorise_blocks
from laser_interp.edits.sites import Site, resolve, resolve_site, weight
from laser_interp.models.forward import score_dtype
from laser_interp.models.model import Model
from laser_interp.models.weights import derived, tensor_bytes

KEPT_IN_MEMORY = 2 << 30  # bytes of spectra a model keeps at hand; those of GPT-J together take 33 GB


@dataclass(frozen=True, eq=False)
class Spectrum(Drawable):
    """`weight = U @ diag(S) @ Vh`, singular values descending; those of a divided matrix descend in each block.

    Attributes:
        U: `[d_in, r]`, orthonormal columns; input side. fp32, or fp64 for an fp64 weight.
        S: `[r]`, fp64.
        Vh: `[r, d_out]`, orthonormal rows; output side. As U.
        weight_sha256: hash of the weight this is the spectrum of.
        blocks: how the matrix was divided before each part was factorised; None for the whole matrix. Directions of
            different blocks overlap on the side that was not divided.
        place: `[r]`, the number of each direction in its block, if the matrix was divided; directions are sorted by it.
        block: `[r]`, the number of each direction's block, if the matrix was divided.
    """

    U: Float[Tensor, "d_in r"]
    S: Float[Tensor, " r"]
    Vh: Float[Tensor, "r d_out"]
    weight_sha256: str
    blocks: Blocks | None = None
    place: Int[Tensor, " r"] | None = None
    block: Int[Tensor, " r"] | None = None

    figure_name = "spectrum"

    @property
    def figure_tables(self) -> dict[str, pd.DataFrame]:
        edge = self.noise_edge if self.is_orthonormal else math.nan
        table = pd.DataFrame({"direction": range(self.max_rank), "singular_value": self.S.numpy()})
        return {"spectrum": table.assign(site="", noise_edge=edge)}

    @property
    def max_rank(self) -> int:
        """How many directions there are, in all blocks."""
        return self.S.shape[0]

    @property
    def block_rank(self) -> int:
        """The largest rank of a block; the matrix's own where it is not divided."""
        return self.max_rank if self.place is None else int(self.place[-1]) + 1

    @property
    def is_orthonormal(self) -> bool:
        """Whether S are the singular values of the whole weight."""
        return self.blocks is None

    def has_directions_of(self, other: Spectrum) -> bool:
        """Whether gains on this spectrum mean the same on the other."""
        return (self.blocks, self.weight_sha256) == (other.blocks, other.weight_sha256)

    @property
    def place_in_block(self) -> Int[Tensor, " r"]:
        """The number of each direction in its block; its own number if the matrix is not divided."""
        return torch.arange(self.max_rank) if self.place is None else self.place

    def first(self, k: int) -> Float[Tensor, " r"]:
        """Gains of 1 on the first k directions of each block and of 0 on the others, fp64."""
        return (self.place_in_block < k).double()

    def reversed(self, gains: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
        """Gains in the opposite order within each block: those of the largest singular values on the smallest."""
        if self.block is None:
            return gains.flip(0)
        out = gains.clone()
        for number in self.block.unique():
            of_block = self.block == number
            out[of_block] = gains[of_block].flip(0)
        return out

    @property
    def n_bytes(self) -> int:
        return self.U.nbytes + self.S.nbytes + self.Vh.nbytes

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
        """‖W‖_F² / ‖W‖₂²: as many directions of the largest size would have the same squared norm."""
        return float(self.S.square().sum() / self.S.max().square().clamp_min(torch.finfo(torch.float64).tiny))

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the normalised singular values (Roy & Vetterli 2007)."""
        share = self.S / self.S.sum().clamp_min(torch.finfo(torch.float64).tiny)
        return float(torch.exp(-(share * share.clamp_min(1e-300).log()).sum()))

    @property
    def noise_edge(self) -> float:
        """Largest singular value that a matrix of noise alone would have, the Marchenko–Pastur edge σ(√d_in + √d_out).

        σ is the standard deviation of one entry. It is estimated as the median singular value divided by that of the
        Marchenko–Pastur law (Gavish & Donoho 2014), so that a few large directions do not change it. A matrix without
        noise has an edge too: the edge does not prove that there is noise.
        """
        if not self.is_orthonormal:
            raise ValueError("only the spectrum of a whole weight has a Marchenko–Pastur edge")
        d_in, d_out = self.U.shape[0], self.Vh.shape[1]
        sigma = float(self.S.median()) / _median_of_noise(d_in, d_out)
        return sigma * (d_in**0.5 + d_out**0.5)

    @property
    def rank_above_noise(self) -> int:
        """Directions above `noise_edge`, the rank that random-matrix theory would keep."""
        return int((self.noise_edge < self.S).sum())

    def __repr__(self) -> str:
        divided = "" if self.blocks is None else f", blocks {self.blocks}"
        shape = f"{self.U.shape[0]}x{self.Vh.shape[1]}"
        return f"Spectrum({shape}{divided}, rank {self.max_rank}, top {float(self.S.max()):.4g})"

    def _repr_html_(self) -> str:
        cumulative = self.energy.sort(descending=True).values.cumsum(0)
        half = int((cumulative < 0.5).sum()) + 1
        return f"<p>{self!r}; half of its energy is in {half} of {self.max_rank} directions</p>"


def _median_of_noise(d_in: int, d_out: int) -> float:
    """Median singular value of a `[d_in, d_out]` matrix of independent entries of variance 1, for large sizes."""
    n, beta = max(d_in, d_out), min(d_in, d_out) / max(d_in, d_out)
    lo, hi = (1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2
    # x = lo + (hi − lo) sin²: the density's ends are square roots, which this makes smooth
    angle = np.linspace(0, np.pi / 2, 20001)
    x = lo + (hi - lo) * np.sin(angle) ** 2
    density = np.sqrt(np.maximum((hi - x) * (x - lo), 0)) / np.maximum(x, 1e-300)
    mass = np.cumsum(density * np.sin(2 * angle))
    return float(np.sqrt(n * np.interp(0.5, mass / mass[-1], x)))


@torch.inference_mode(False)  # what is kept may be wanted where gradients are taken
def spectrum(model: Model, site: Site | str, *, blocks: AnyBlocks = None) -> Spectrum:
    """The spectrum of a site, from memory, from disk, or computed.

    Args:
        site: `Site(3, "in")` or "3.in".
        blocks: divide the matrix, as in 4 or "4-inputs-kmeans", and factorise each part; see `li.Blocks`.

    Example:
        >>> li.spectrum(model, "3.in").S[:3]
    """
    site, divided = resolve_site(model, site), Blocks.parse(blocks)
    kept: dict[tuple[Site, Blocks | None], Spectrum] = derived(model, "spectra", dict)
    known = kept.pop((site, divided), None)
    if known is None or known.weight_sha256 != site_sha256(model, site):
        known = _of_weight(weight(model, site), divided)
    of_site = kept[site, divided] = known  # the last used is the last to go
    while sum(other.n_bytes for other in kept.values()) > KEPT_IN_MEMORY and len(kept) > 1:
        del kept[next(iter(kept))]
    return of_site


def site_sha256(model: Model, site: Site) -> str:
    """Hash of a site's weight, computed once, and again where the weight changed."""
    resolve(model, site)
    tensors = list(model.linear(site.layer, site.matrix).parameters())
    return derived(model, ("weight_sha256", site), lambda: weight_sha256(weight(model, site)), of=tensors)


def weight_sha256(matrix: Tensor) -> str:
    """Hash of a weight's dtype, shape and values."""
    digest = hashlib.sha256(f"{matrix.dtype} {tuple(matrix.shape)}\n".encode())
    digest.update(tensor_bytes(matrix))
    return digest.hexdigest()


def _of_weight(matrix: Tensor, blocks: Blocks | None = None) -> Spectrum:
    digest = weight_sha256(matrix)
    name = digest if blocks is None else f"{digest}-{blocks}"
    factors = spectrum_files.read(name)
    if factors is None or (blocks is not None and "block" not in factors):
        if blocks is None:
            U, S, Vh = factorise(matrix)
            factors = {}
        else:
            U, S, Vh, place, block = factorise_blocks(matrix, blocks)
            factors = {"place": place, "block": block}
        keep = score_dtype(matrix.dtype)
        factors |= {"U": U.to("cpu", keep).contiguous(), "S": S.cpu(), "Vh": Vh.to("cpu", keep).contiguous()}
        spectrum_files.write(name, factors)
        if spectrum_files.stays_on_disk(factors):
            factors = spectrum_files.read(name) or factors
    of_blocks = {name: factors.get(name) for name in ("place", "block")}
    return Spectrum(factors["U"], factors["S"], factors["Vh"], digest, blocks=blocks, **of_blocks)


def block_rank(model: Model, site: Site, blocks: Blocks | None) -> int:
    """The largest rank of a block. The matrix is factorised only if its blocks are clusters."""
    d_in, d_out = weight(model, site).shape
    if blocks is None:
        return min(d_in, d_out)
    if blocks.grouped == "kmeans":
        return spectrum(model, site, blocks=blocks).block_rank
    divided, other = (d_out, d_in) if blocks.of == "outputs" else (d_in, d_out)
    return min(-(-divided // blocks.number), other)
