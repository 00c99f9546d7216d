"""Edits that remove only the directions which harm most on average."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from laser_interp.discarded.attribution import Attribution
from laser_interp.edits.constructors import gains, laser
from laser_interp.edits.controls import share_of_each
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site, resolve_site
from laser_interp.edits.spectra import spectrum
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.models.model import Model
from laser_interp.scoring.scorer import Scorer


def selective(
    model: Model, attribution: Attribution, site: Site | str, *, n: int | None = None, energy: float | None = None
) -> Edit:
    """Remove only the directions that harm most on average.

    Args:
        n: how many directions to remove, at most; or
        energy: the share of the matrix's squared norm to remove. The last direction is removed in part, so that the
            share is exact. Less is removed if too few directions harm.

    Raises:
        ValueError: neither or both of n and energy, or a site without attribution.

    Example:
        >>> attribution = li.attribute(model, facts.split("validation"), "3.in")
        >>> li.selective(model, attribution, "3.in", n=4)
    """
    if (n is None) == (energy is None):
        raise ValueError(f"n is {n} and energy is {energy}: give exactly one of them")
    at = resolve_site(model, site)
    mean = torch.from_numpy(attribution.of(at).mean(0, dtype=np.float64))
    order = mean.argsort(stable=True)
    harmful = order[mean[order] < 0]
    vector = torch.ones_like(mean)
    if n is not None:
        if not 0 < n <= len(mean):
            raise ValueError(f"n is {n}: {at} has {len(mean)} directions")
        vector[harmful[:n]] = 0
    else:
        assert energy is not None
        of_each = spectrum(model, at, blocks=attribution.blocks).energy[harmful]
        vector[harmful] = 1 - share_of_each(of_each, energy)
    return replace(gains(model, {at: vector}, blocks=attribution.blocks), kind="selective")


def choose_selective(
    model: Model,
    facts: AnyFacts,
    attribution: Attribution,
    site: Site | str,
    rank: int,
    *,
    counts: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    progress: bool = True,
) -> tuple[dict[str, Edit], pd.DataFrame]:
    """Choose a selective edit on validation, and compare it with LASER on test.

    Args:
        facts: with the splits "validation" and "test".
        attribution: made from validation facts; others are left out.
        rank: the rank that LASER keeps at this site.

    Returns:
        The edits compared: "laser", "selective" (as many harmful directions as validation likes best, by accuracy,
        then loss) and "selective, equal energy" (harmful directions with the energy LASER discards). And one row
        per (edit, split): `edit, split, n_removed, energy, top1, loss`, the model as trained ("base") included.

    Example:
        >>> attribution = li.attribute(model, facts.split("validation"), "3.in")
        >>> edits, table = li.choose_selective(model, facts, attribution, "3.in", rank=3)
    """
    facts = facts_of(facts)
    validation = attribution.keep((attribution.prompts["split"] == "validation").to_numpy())
    if validation.prompts.empty:
        raise ValueError("the attribution has no validation facts: make it from facts.split('validation')")
    at = resolve_site(model, site)
    prefix = laser(model, at, rank=rank, blocks=attribution.blocks)
    r = prefix.parts[at].spectrum.max_rank
    tried = {f"{n}": selective(model, validation, at, n=n) for n in counts if n <= r}
    tried = {name: edit for name, edit in tried.items() if bool((edit.parts[at].gains < 1).any())}
    scored = [
        (float(frame["top1"].mean()), float(frame["logprob"].mean()), name)
        for name, frame in Scorer(model, facts.split("validation"), candidates=False).run(tried, progress=progress)
    ]
    edits: dict[str, Edit] = {"laser": prefix}
    if scored:
        edits["selective"] = tried[max(scored)[2]]
    edits["selective, equal energy"] = selective(model, validation, at, energy=prefix.parts[at].removed_energy)
    out: list[dict[str, Any]] = []
    for split in ("validation", "test"):
        for name, frame in Scorer(model, facts.split(split), candidates=False).run({"base": None, **edits}):
            part = edits[name].parts[at] if name in edits else None
            out.append(
                {
                    "edit": name,
                    "split": split,
                    "n_removed": 0 if part is None else int((part.gains < 1).sum()),
                    "energy": 0.0 if part is None else part.removed_energy,
                    "top1": float(frame["top1"].mean()),
                    "loss": -float(frame["logprob"].mean()),
                }
            )
    return edits, pd.DataFrame(out)
