"""Which singular directions do it: attribution checked by ablation, selective edits, tokens, and where noise ends."""

from __future__ import annotations

import pandas as pd

from analyses import Question, Tables, run
from laser_interp.discarded.attribution import against_ablation, attribute, choose_selective, propose
from laser_interp.discarded.direction_tokens import bands, importance, read_band, stability
from laser_interp.edits.sites import resolve
from laser_interp.edits.spectra import boundaries, spectrum
from laser_interp.studies import steps as study

N_ABLATED = 64  # directions a site, spread over its rank
N_BANDS = 8


def tables(question: Question) -> Tables:
    """Directions of the edit's site: their effects, their tokens, and the rank that noise would leave."""
    model, edit = question.model, question.edit
    (site,) = edit.sites
    rank = edit.rank or 1
    validation = question.facts.split("validation")
    found = attribute(model, validation)
    ablation = against_ablation(model, validation, found, site, n_blocks=N_ABLATED)
    _, selective = choose_selective(model, question.facts, found, site, rank)
    proposals = propose(found)
    limits = boundaries(model, resolve(model, "*.all")).assign(selected=lambda t: t["site"] == str(site))
    limits["rank_selected"] = float("nan")
    limits.loc[limits["selected"], "rank_selected"] = rank
    print(
        f"Attribution proposes {proposals['site'].iloc[0]} at rank {proposals['rank'].iloc[0]}; the edit is {edit!r}."
    )
    print(ablation.round(3).to_string(index=False))
    print(selective.round(4).to_string(index=False))
    out = {
        "spectrum": study.spectra(model, edit),
        "directions_gradients": found.summary("relation"),
        "directions_ablation": ablation,
        "directions_proposals": proposals,
        "directions_selective": selective,
        "directions_boundaries": limits,
        "directions_importance": importance(model, validation, site),
    }
    groups = bands(spectrum(model, site))[:N_BANDS]
    tokens = [read_band(model, site, start, stop) for start, stop in groups]
    return out | {
        "directions_tokens": pd.concat(tokens, ignore_index=True),
        "directions_stability": stability(model, site, groups),
    }


def main(argv: list[str]) -> Tables:
    return run("directions", tables, argv)
