"""Which singular directions cause the effect? Attribution and ablation, selective edits, tokens, edge of noise."""

from collections.abc import Sequence

import pandas as pd

from laser_interp.cli.analyse import Question, finish
from laser_interp.discarded.attribution import attribute
from laser_interp.discarded.direction_tokens import bands, importance, read_band, stability
from laser_interp.discarded.selective_edits import choose_selective
from laser_interp.edits.sites import Site, resolve
from laser_interp.edits.spectra import spectrum
from laser_interp.models.model import Model
from laser_interp.studies.questions.directions import spectrum_table

N_ABLATED = 64  # directions that are ablated one at a time, spread over the rank
N_BANDS = 8


def boundaries(model: Model, sites: Sequence[Site]) -> pd.DataFrame:
    """Where each spectrum might be cut, according to random-matrix theory and to the spectrum itself.

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


def main(*, question: Question = Question()) -> None:
    """Examine the directions of the edited matrix: their effects, their tokens, and how many lie above noise.

    For example: laser-interp analyse directions
    """
    context = question.context()
    model, edit = context.model, context.edit
    if len(edit.sites) != 1:
        raise ValueError(
            f"this analysis looks at one matrix, and {edit!r} changes {len(edit.sites)}: give --edit of one"
        )
    (site,) = edit.sites
    rank = edit.rank or 1
    validation = context.facts.split("validation")
    attribution = attribute(model, validation)
    ablation = attribution.against_ablation(model, validation, site, n_blocks=N_ABLATED)
    _, selective = choose_selective(model, context.facts, attribution, site, rank)
    proposals = attribution.propose()
    limits = boundaries(model, resolve(model, "*.all")).assign(selected=lambda t: t["site"] == str(site))
    limits["rank_selected"] = float("nan")
    limits.loc[limits["selected"], "rank_selected"] = rank
    text = [
        f"Attribution proposes {proposals['site'].iloc[0]} at rank {proposals['rank'].iloc[0]}; the edit is {edit!r}.",
        ablation.round(3).to_string(index=False),
        selective.round(4).to_string(index=False),
    ]
    groups = bands(spectrum(model, site))[:N_BANDS]
    tokens = [read_band(model, site, start, stop) for start, stop in groups]
    tables = {
        "spectrum": spectrum_table(edit),
        "directions_gradients": attribution.summary("relation"),
        "directions_ablation": ablation,
        "directions_proposals": proposals,
        "directions_selective": selective,
        "directions_boundaries": limits,
        "directions_importance": importance(model, validation, site),
        "directions_tokens": pd.concat(tokens, ignore_index=True),
        "directions_stability": stability(model, site, groups),
    }
    finish(context, tables, "\n".join(text))
