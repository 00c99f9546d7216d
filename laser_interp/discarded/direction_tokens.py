"""What singular directions read and write: their tokens, the facts that use them, and how far to trust them.

If two neighbouring singular values are almost equal, their directions are not determined: any rotation of the two is as
good (Millidge & Black, and its discussion). So directions are grouped into bands, cut where the spectrum has gaps. A
band is read as a subspace, which does not depend on the basis, and its stability under resampling is reported too.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.choices import seed_of_63_bits
from laser_interp.edits.factorisation import factorise
from laser_interp.edits.sites import Site, resolve_site, weight
from laser_interp.edits.spectra import Spectrum, spectrum
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.models.forward import activations
from laser_interp.models.model import Model
from laser_interp.models.tokens import ask_facts

WRITES = ("o", "out")  # into the residual stream; the other matrices read it


def bands(known: Spectrum, *, gap: float = 0.05) -> list[tuple[int, int]]:
    """Bands of directions, as (start, stop), cut where neighbouring singular values differ by more than `gap`.

    Args:
        gap: the relative difference (S[i] − S[i+1]) / S[i] above which a new band begins.
    """
    if not 0 < gap < 1:
        raise ValueError(f"gap is {gap}: expected a relative difference in (0, 1)")
    values = known.S.numpy()
    cuts = [0, *(i + 1 for i in range(len(values) - 1) if values[i] - values[i + 1] > gap * values[i]), len(values)]
    return list(itertools.pairwise(cuts))


def _side(site: Site) -> str:
    """Which side of a site lies in the residual stream."""
    return "output" if site.matrix.partition(".")[0] in WRITES else "input"


def _vocabulary(model: Model, site: Site) -> Float[Tensor, "d_vocab d_model"]:
    """The tokens' directions where a site reads the residual stream or writes into it, centred, of unit norm."""
    side = _side(site)
    tokens = (model.unembedding() if side == "output" else model.embedding()).detach().cpu().double()
    if tokens.shape[1] != weight(model, site).shape[1 if side == "output" else 0]:
        raise ValueError(f"{model.name!r} has embeddings of another width than the {side} of {site}: it has no tokens")
    return torch.nn.functional.normalize(tokens - tokens.mean(0))


def _basis(known: Spectrum, side: str, start: int, stop: int) -> Float[Tensor, "d_model n"]:
    return known.Vh[start:stop].double().T if side == "output" else known.U[:, start:stop].double()


def read_band(model: Model, site: Site | str, start: int, stop: int, *, k: int = 10) -> pd.DataFrame:
    """The tokens that lie most in the subspace of a band of directions, whatever basis it has.

    Returns:
        One row per token: `site, start, stop, side, token, token_id, share` (of the token's squared length that lies
        in the subspace; (stop − start) / d_model is expected by chance: `by_chance`).

    Raises:
        ValueError: an empty band, or one outside the rank.
    """
    at = resolve_site(model, site)
    known = spectrum(model, at)
    if not 0 <= start < stop <= known.max_rank:
        raise ValueError(f"band {start}:{stop} at {at}: expected 0 <= start < stop <= {known.max_rank}")
    side, tokens = _side(at), _vocabulary(model, at)
    share = (tokens @ _basis(known, side, start, stop)).square().sum(1)
    nearest = share.topk(min(k, len(share)))
    return pd.DataFrame(
        {
            "site": str(at),
            "start": start,
            "stop": stop,
            "side": side,
            "token": [model.decode(int(i)) for i in nearest.indices],
            "token_id": nearest.indices.tolist(),
            "share": nearest.values.tolist(),
            "by_chance": (stop - start) / tokens.shape[1],
        }
    )


def stability(
    model: Model, site: Site | str, within: Sequence[tuple[int, int]], *, n_draws: int = 10, seed: int = 0
) -> pd.DataFrame:
    """How much of each band's subspace is found again when the matrix's other side is resampled.

    The units on the side that is not read (an MLP's neurons, a head's dimensions) are drawn with replacement, the
    matrix is factorised again, and each band of n directions is compared with the new directions of the same numbers.
    Their overlap is ‖QᵀQ'‖² / n: 1 for the same subspace, n / d by chance.

    Returns:
        One row a band: `site, start, stop, overlap` (mean over draws), `overlap_lo` (lowest), `by_chance`.
    """
    at = resolve_site(model, site)
    side = _side(at)
    matrix = weight(model, at).detach().cpu().double()
    known = spectrum(model, at)
    generator = torch.Generator().manual_seed(seed_of_63_bits(seed))
    n = matrix.shape[0 if side == "output" else 1]
    overlaps: list[list[float]] = [[] for _ in within]
    for _ in range(n_draws):
        drawn = torch.randint(n, (n,), generator=generator)
        U, _, Vh = factorise(matrix[drawn] if side == "output" else matrix[:, drawn])
        again = Vh.T if side == "output" else U
        for i, (start, stop) in enumerate(within):
            overlap = (_basis(known, side, start, stop).T @ again[:, start:stop]).square().sum() / (stop - start)
            overlaps[i].append(float(overlap))
    return pd.DataFrame(
        {
            "site": str(at),
            "start": [start for start, _ in within],
            "stop": [stop for _, stop in within],
            "overlap": [float(np.mean(draws)) for draws in overlaps],
            "overlap_lo": [min(draws) for draws in overlaps],
            "by_chance": [(stop - start) / model.d_model for start, stop in within],
        }
    )


def importance(model: Model, facts: AnyFacts, site: Site | str) -> pd.DataFrame:
    """How important each direction is: by its share of the matrix (`S²`), and by how much the prompts use it.

    Returns:
        One row a direction: `direction, S, energy` (share of the matrix's squared norm), `used` (share of the mean
        squared output at the prompts' reads).
    """
    at = resolve_site(model, site)
    known = spectrum(model, at)
    asked = [of_item.read for of_item in ask_facts(model, facts_of(facts))]
    squared = torch.zeros_like(known.S)
    for indices, _, of in activations(model, [row for row, _ in asked], None, [(at.layer, at.matrix)]):
        x, _ = of((at.layer, at.matrix))
        read = torch.tensor([asked[i][1] for i in indices])
        here = x[torch.arange(len(indices)), read.to(x.device)].cpu().double()
        squared += ((here @ known.U.double()) * known.S).square().sum(0)
    return pd.DataFrame(
        {
            "direction": np.arange(known.max_rank),
            "S": known.S.numpy(),
            "energy": known.energy.numpy(),
            "used": (squared / squared.sum().clamp_min(1e-300)).numpy(),
        }
    )
