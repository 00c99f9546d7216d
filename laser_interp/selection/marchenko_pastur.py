"""laserRMT's rule, as its practitioners use it: keep the singular values above the noise, if a text's perplexity falls.

For each weight, σ is the interquartile range of its singular values divided by 1.349. Directions whose singular values
exceed σ (1 + √β) are kept, where β is the matrix's smaller side divided by its larger side (Marchenko & Pastur 1967).
Matrices are tried one by one, from the last layer down. An edit is accepted if the perplexity of a text falls, until
`MOST` edits are accepted. The text is read under edits that act everywhere. No facts are used. Source:
github.com/cognitivecomputations/laserRMT, as of 2024.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.edit_spec import EditSpec
from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import spectrum
from laser_interp.scoring.text_loss import perplexity
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


def accept_by_perplexity(plan: Plan, text: str, folder: RunFolder) -> tuple[EditSpec | None, pd.DataFrame]:
    """The accepted edits as one, and the table of all tries.

    Returns:
        The edit, None if nothing was accepted; and one row per try: `step, site, rank, loss` (of the text
        under the edits so far and this one, in nats per token) and `kept`. The first row is the model as trained.
    """
    ranks: dict[Site, int] = {}

    def described(ranks: dict[Site, int]) -> EditSpec:
        return EditSpec(tuple(ranks), ranks=tuple(ranks.values()))

    def tried(name: str, ranks: dict[Site, int]) -> float:
        part = folder.read_part(f"perplexity/{name}", "text_loss")
        if part is None:
            edit = described(ranks).edit(plan.model) if ranks else None
            part = pd.DataFrame([perplexity(plan.model, text, edit, window=WINDOW, stride=WINDOW // 2)])
            folder.write_part(f"perplexity/{name}", part, "text_loss")
        return float(part["loss"].iloc[0])

    best = tried("base", {})
    rows: list[dict[str, object]] = [{"step": 0, "site": "", "rank": 0, "loss": best, "kept": True}]
    for site in sorted(plan.by_site, key=lambda site: -site.layer):
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
    accepted = replace(described(ranks), path=plan.settings.path, at=plan.settings.at) if ranks else None
    return accepted, pd.DataFrame(rows)
