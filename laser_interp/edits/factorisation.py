"""Exact singular value decompositions in float64."""

import torch
from jaxtyping import Float
from torch import Tensor


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
