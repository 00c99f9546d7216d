"""Exact singular value decompositions of weights, kept on disk.

A spectrum is computed in float64 from the stored weight, once for all ranks, bands and tails, and
kept under the hash of that weight, so that no other model or revision can be served a wrong one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.model import Model, tensor_bytes
from laser_interp.sites import Site, weight

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
    """

    U: Float[Tensor, "d_in r"]
    S: Float[Tensor, " r"]
    Vh: Float[Tensor, "r d_out"]
    weight_sha256: str

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

    def __repr__(self) -> str:
        return f"Spectrum({self.U.shape[0]}x{self.Vh.shape[1]}, rank {self.max_rank}, top {float(self.S[0]):.4g})"

    def _repr_html_(self) -> str:
        cumulative = self.energy.cumsum(0)
        half = int((cumulative < 0.5).sum()) + 1
        return f"<p>{self!r}; half of its energy is in the top {half} of {self.max_rank} directions</p>"


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
