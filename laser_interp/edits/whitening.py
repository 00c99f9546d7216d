"""Spectra in the metric of a matrix's inputs."""

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.sites import Site, weight
from laser_interp.edits.spectra import Spectrum, site_sha256
from laser_interp.models.model import Model


def whitened(model: Model, site: Site, inputs: Float[Tensor, "n d_in"], *, ridge: float = 1e-3) -> Spectrum:
    """The spectrum of a site in the metric of its inputs: truncating it changes the *outputs* least.

    With C = E[x xᵀ] = L Lᵀ, Lᵀ W is factorised, so that truncating loses the least of E‖x W‖² (ASVD,
    SVD-LLM). Gains act on it as on any spectrum: W = U diag(S) Vh still holds, but U is not
    orthonormal, and `energy` is the share of the outputs' squared norm.

    Args:
        inputs: the inputs of the site on texts of your choice; see `laser_interp.models.forward.activations`.
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
