"""Exact singular value decompositions of weights, kept on disk.

A spectrum is computed in float64 from the stored weight, once for all ranks, bands and tails, and
kept under the hash of that weight, so that no other model or revision can be served a wrong one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.sites import Site, weight
from laser_interp.models.model import Model, tensor_bytes

FORMAT = "1"
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
        sigma = float(self.S.median()) / _median_of_noise(d_in, d_out)
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


def _median_of_noise(d_in: int, d_out: int) -> float:
    """Median singular value of a `[d_in, d_out]` matrix of independent entries of variance 1, for large sizes."""
    import numpy as np

    n, beta = max(d_in, d_out), min(d_in, d_out) / max(d_in, d_out)
    lo, hi = (1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2
    # x = lo + (hi − lo) sin²: the density's ends are square roots, which this makes smooth
    angle = np.linspace(0, np.pi / 2, 20001)
    x = lo + (hi - lo) * np.sin(angle) ** 2
    density = np.sqrt(np.maximum((hi - x) * (x - lo), 0)) / np.maximum(x, 1e-300)
    mass = np.cumsum(density * np.sin(2 * angle))
    return float(np.sqrt(n * np.interp(0.5, mass / mass[-1], x)))


def whitened(model: Model, site: Site, inputs: Float[Tensor, "n d_in"], *, ridge: float = 1e-3) -> Spectrum:
    """The spectrum of a site under the metric of its inputs: what it discards changes the *outputs* least.

    With C = E[x xᵀ] = L Lᵀ, Lᵀ W is factorised, so that truncating loses the least of E‖x W‖² (ASVD,
    SVD-LLM). The gains go on top as they do on any spectrum: W = U diag(S) Vh still holds, but U is not
    orthonormal, and `energy` is the share of the outputs' squared norm.

    Args:
        inputs: what the site reads, as `Model.activations` gives it, over whatever text is meant.
        ridge: added to C's diagonal, as a share of its mean, since few inputs do not span the space.

    Raises:
        ValueError: inputs of another width.
    """
    w = weight(model, site).detach().cpu().double()
    if inputs.ndim != 2 or inputs.shape[1] != w.shape[0]:
        raise ValueError(f"inputs of {site} are {tuple(inputs.shape)}: expected [n, {w.shape[0]}]")
    x = inputs.detach().cpu().double()
    second = x.T @ x / len(x)
    second += ridge * second.diagonal().mean() * torch.eye(len(second), dtype=second.dtype)
    L = torch.linalg.cholesky(second)
    U, S, Vh = torch.linalg.svd(L.T @ w, full_matrices=False)
    keep = torch.float64 if weight(model, site).dtype == torch.float64 else torch.float32
    back = torch.linalg.solve_triangular(L.T, U, upper=True)
    return Spectrum(back.to(keep).contiguous(), S, Vh.to(keep).contiguous(), site_sha256(model, site), "activations")


def weight_sha256(matrix: Tensor) -> str:
    """Hash of a weight's dtype, shape and values."""
    digest = hashlib.sha256(f"{matrix.dtype} {tuple(matrix.shape)}\n".encode())
    digest.update(tensor_bytes(matrix))
    return digest.hexdigest()


def factorise(matrix: Float[Tensor, "d_in d_out"]) -> tuple[Tensor, Tensor, Tensor]:
    """Exact thin SVD `U, S, Vh` in float64.

    A wide or tall matrix goes through the eigenvectors of its smaller Gram matrix (4 to 5 times
    faster), with singular values read again as norms, unless the result is not orthonormal to
    1e-10, as where the matrix is nearly singular; then the plain SVD is taken.
    """
    matrix = matrix.detach()
    w = (matrix.cpu() if matrix.device.type == "mps" else matrix).double()  # mps has no float64
    d_in, d_out = w.shape
    if max(d_in, d_out) >= 2 * min(d_in, d_out):
        small = w if d_in <= d_out else w.T
        vectors = torch.linalg.eigh(small @ small.T).eigenvectors.flip(-1)
        projected = vectors.T @ small
        values = projected.norm(dim=1)
        values, order = values.sort(descending=True, stable=True)
        left = vectors[:, order]
        right = projected[order] / values[:, None].clamp_min(torch.finfo(torch.float64).tiny)
        error = (right @ right.T - torch.eye(len(values), dtype=w.dtype, device=w.device)).abs().max()
        if bool(error < 1e-10):
            return (left, values, right) if d_in <= d_out else (right.T.contiguous(), values, left.T.contiguous())
    return tuple(torch.linalg.svd(w, full_matrices=False))  # type: ignore[return-value]


def cache_dir() -> Path:
    """Where spectra are kept: $LASER_INTERP_CACHE, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("LASER_INTERP_CACHE") or platformdirs.user_cache_dir("laser-interp")) / "spectra"


def spectrum(model: Model, site: Site, *, cache: bool = True) -> Spectrum:
    """The spectrum of a site, from memory, from disk, or computed.

    Args:
        cache: read and write the disk cache.
    """
    kept: dict[Site, Spectrum] = model.memo.setdefault("spectra", {})
    found = kept.pop(site, None) or _of_weight(weight(model, site), cache=cache)
    kept[site] = found  # the last used is the last to go
    while sum(made.n_bytes for made in kept.values()) > KEPT_IN_MEMORY and len(kept) > 1:
        del kept[next(iter(kept))]
    return found


def site_sha256(model: Model, site: Site) -> str:
    """Hash of a site's weight, computed once a model."""
    key = ("weight_sha256", site)
    if key not in model.memo:
        model.memo[key] = weight_sha256(weight(model, site))
    return model.memo[key]


def _of_weight(matrix: Tensor, *, cache: bool) -> Spectrum:
    digest = weight_sha256(matrix)
    path = cache_dir() / f"{digest}.safetensors"
    if cache and (stored := _read(path, digest)) is not None:
        return stored
    U, S, Vh = factorise(matrix)
    keep = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    made = Spectrum(U.to("cpu", keep).contiguous(), S.cpu(), Vh.to("cpu", keep).contiguous(), digest)
    if cache:
        _write(path, made)
    return made


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensor_bytes(tensors[name]))
    return digest.hexdigest()


def _read(path: Path, digest: str) -> Spectrum | None:
    """A stored spectrum, or None where there is none or it is not what was written."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in ("U", "S", "Vh")}
        if metadata == {"format": FORMAT, "weight": digest, "checksum": _checksum(tensors)}:
            return Spectrum(tensors["U"], tensors["S"], tensors["Vh"], digest)
        problem = "its checksum does not match"
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        if not path.is_file():  # another process took it away in between: there is none
            return None
        problem = str(error)
    warnings.warn(f"the stored spectrum {path.name} is damaged ({problem}) and is computed again", stacklevel=4)
    return None


def _write(path: Path, made: Spectrum) -> None:
    """Write beside, then rename: readers and other writers only ever see whole files."""
    from safetensors.torch import save

    tensors = {"U": made.U, "S": made.S, "Vh": made.Vh}
    metadata = {"format": FORMAT, "weight": made.weight_sha256, "checksum": _checksum(tensors)}
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as out:
            out.write(save(tensors, metadata))
        os.replace(temporary, path)
    except OSError as error:  # a full disk or a read-only home costs the next run time, not this one its result
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        warnings.warn(f"the spectrum could not be kept in {path.parent}: {error}", stacklevel=4)
