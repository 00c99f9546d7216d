"""laserRMT's rule, as its practitioners use it: what rises above noise is kept, and a text's perplexity decides.

Of each weight σ is the interquartile range of its singular values over 1.349, and the directions whose singular values
exceed σ (1 + √β) are kept, where β is the smaller over the larger side of the matrix (Marchenko & Pastur 1967). From
the last layer down, and in each layer matrix by matrix, an edit is accepted if the perplexity of a text falls, until
`MOST` edits were accepted. No facts are looked at. Source: github.com/cognitivecomputations/laserRMT, as of 2024.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import spectrum
from laser_interp.scoring.text_loss import perplexity
from laser_interp.selection.cells import Cell
from laser_interp.selection.composition_steps import combined
from laser_interp.selection.plan import Plan
from laser_interp.storage.run_folder import RunFolder

MOST = 5  # edits that are accepted, as in laserRMT
WINDOW = 512  # tokens of the text at a time
_NORMAL = 1.349  # the interquartile range of a normal distribution of variance 1


def kept_rank(S: Float[Tensor, " r"], d_in: int, d_out: int) -> int:
    """How many singular values rise above the noise, by laserRMT's estimate of it."""
    low, high = np.quantile(S.double().numpy(), [0.25, 0.75])
    beta = min(d_in, d_out) / max(d_in, d_out)
    edge = (high - low) / _NORMAL * (1 + beta**0.5)
    return int(S.gt(edge).sum())


def accept_by_perplexity(plan: Plan, text: str, folder: RunFolder | None) -> tuple[list[Cell], pd.DataFrame]:
    """The accepted edits as one cell, or none, and every try.

    Returns:
        The cell in a list, and one row a try: `step, site, rank, loss` (of the text, nats a token, under the edits so
        far and this one) and `kept`. The first row is the model as trained.
    """
    rows: list[dict[str, object]] = []
    ranks: dict[Site, int] = {}
    sites = sorted(plan.by_site, key=lambda site: -site.layer)

    def tried(name: str, ranks: dict[Site, int]) -> float:
        part = None if folder is None else folder.read_part(f"perplexity/{name}", "text_loss")
        if part is None:
            edit = combined(plan.model, ranks) if ranks else None
            part = pd.DataFrame([perplexity(plan.model, text, edit, window=WINDOW, stride=WINDOW // 2)])
            if folder is not None:
                folder.write_part(f"perplexity/{name}", part, "text_loss")
        return float(part["loss"].iloc[0])

    best = tried("base", {})
    rows.append({"step": 0, "site": "", "rank": 0, "loss": best, "kept": True})
    for site in sites:
        if len(ranks) == MOST:
            break
        known = spectrum(plan.model, site)
        rank = max(kept_rank(known.S, *plan.model.weight(site.layer, site.matrix).shape), 1)
        if rank == known.max_rank:
            continue
        now = tried(str(site), {**ranks, site: rank})
        kept = now < best
        rows.append({"step": len(rows), "site": str(site), "rank": rank, "loss": now, "kept": kept})
        if kept:
            best, ranks = now, {**ranks, site: rank}
    cells = [Cell(tuple(ranks), "laser", ranks=tuple(ranks.values()))] if ranks else []
    return cells, pd.DataFrame(rows)
