"""Which expert of a mixture holds the tail? LASER at each expert alone, beside what its router sends there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.cli.analyse import write_all
from laser_interp.edits.constructors import laser, zeroed
from laser_interp.edits.controls import random_kept
from laser_interp.edits.edit import Edit
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.edits.sites import Site
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.files import load_facts
from laser_interp.models.experts import expert_of
from laser_interp.models.loading import load_model
from laser_interp.models.model import Model
from laser_interp.plots.figure_functions import figure_function
from laser_interp.plots.style import legend, new_figure, palette
from laser_interp.scoring.router import expert_shares
from laser_interp.scoring.scores import score
from laser_interp.selection.search_run import search
from laser_interp.statistics.accuracy_change import change
from laser_interp.statistics.decomposition import decompose
from laser_interp.statistics.formatting import in_nats, points
from laser_interp.statistics.rank_correlation import spearman
from laser_interp.storage.provenance import provenance

DRAWS = 5  # random directions, at each site
Layers = Sequence[int] | None


def by_expert(model: Model, facts: FactSet, layers: Layers = None, *, progress: bool = False) -> pd.DataFrame:
    """LASER at each matrix of each expert, at the rank with the lowest loss on the validation facts.

    Args:
        layers: those whose experts are looked at; None: all.

    Returns:
        One row a site, the lowest validation loss first: `site, layer, expert, rank`; on the test facts `answers`, the
        share of prompts whose last token the expert gets; the change of log p(answer) in nats, `nats, lo, hi`, of it
        `generic` words; the change of accuracy, `accuracy, p`; the changes in nats where the matrix is deleted
        (`deleted`), and where as many random directions are kept (`random`, the mean of the draws, and `random_best`).
    """
    asked: dict[str, Any] = {"matrices": "experts", "layers": layers}
    found = search(model, facts, method="grid", test="chosen", progress=progress, **asked)
    assert found.facts is not None
    test = found.facts.split("test")
    cells = found.cells[(found.cells["split"] == "validation") & found.cells["site"].astype(bool)]
    best = cells.sort_values("loss", kind="stable").drop_duplicates("site")
    sites = [Site.parse(site) for site in best["site"]]
    edits: dict[str, Edit | None] = {"base": None}
    for site, cell in zip(sites, best["cell"], strict=True):
        edits[f"{site} laser"] = edit = laser(model, site, rank=EditSpec.parse(cell).rank)
        edits[f"{site} deleted"] = zeroed(model, site)
        edits |= {f"{site} random {seed}": random_kept(model, edit, seed=seed) for seed in range(DRAWS)}
    scores = score(model, test, edits, progress=progress)
    shares = expert_shares(model, test).query("last")
    n_prompts = int((scores["edit"] == "base").sum())
    answers = shares.groupby(["layer", "expert"]).size() / n_prompts
    nats = scores.groupby("edit")["logprob"].mean() - scores.loc[scores["edit"] == "base", "logprob"].mean()
    rows: list[dict[str, Any]] = []
    for site, rank in zip(sites, best["rank_kept"], strict=True):
        parts = decompose(scores, edit=f"{site} laser").table.set_index("part")
        accuracy = change(scores, edit=f"{site} laser")
        random = [float(nats[f"{site} random {seed}"]) for seed in range(DRAWS)]
        row = {"site": str(site), "layer": site.layer, "expert": expert_of(site.matrix), "rank": int(rank)}
        row |= {"answers": float(answers.get((site.layer, expert_of(site.matrix)), 0.0)), "n": n_prompts}
        row |= {"nats": parts.loc["whole", "change"], "lo": parts.loc["whole", "lo"], "hi": parts.loc["whole", "hi"]}
        row |= {"generic": parts.loc["generic", "change"], "accuracy": accuracy.change, "p": accuracy.p}
        row |= {"deleted": float(nats[f"{site} deleted"]), "random": np.mean(random), "random_best": max(random)}
        rows.append(row)
    return pd.DataFrame(rows)


CAPTION = (
    "LASER at each matrix of each expert of a mixture, alone, at the rank that validation chose: change of log "
    "p(answer) on test, against the share of prompts whose last token the router sends to the expert. Squares: the "
    "matrix is deleted. Bars: 95 % intervals over subjects. The site that validation prefers is named."
)


@figure_function("experts", caption=CAPTION)
def experts(table: pd.DataFrame) -> Figure:
    """Change of log p(answer) by LASER at each expert, against the share of answers that the expert takes part in."""
    figure, [[ax]] = new_figure(1, 1, 2.4)
    ax.axhline(0.0, color="0.7", linewidth=0.6)
    for i, (layer, rows) in enumerate(table.groupby("layer")):
        colour = palette()[i % len(palette())]
        ax.vlines(rows["answers"], rows["lo"], rows["hi"], color=colour, linewidth=0.7)
        ax.plot(rows["answers"], rows["nats"], "o", color=colour, markersize=3, label=f"layer {layer}")
        ax.plot(
            rows["answers"], rows["deleted"], "s", color=colour, markersize=3, fillstyle="none", markeredgewidth=0.6
        )
    best = table.iloc[0]
    ax.annotate(
        best["site"], (best["answers"], best["nats"]), (-4, 2), textcoords="offset points", ha="right", fontsize=6
    )
    ax.set_xlabel("share of prompts whose last token the expert gets")
    ax.set_ylabel("change of log p(answer), nats")
    legend(ax, ncols=4)
    return figure


def in_words(table: pd.DataFrame) -> Sequence[str]:
    """What was found."""
    best = table.iloc[0]
    return (
        f"Validation prefers {best['site']} at rank {best['rank']}. On {best['n']} test prompts, log p(answer) changes "
        f"by {in_nats(best['nats'], best['lo'], best['hi'])}, of it generic words {best['generic']:+.3f}, and accuracy "
        f"by {points(best['accuracy'])}.",
        f"The router sends the last token of {100 * best['answers']:.0f} % of the prompts to this expert. Deleting the "
        f"matrix gives {best['deleted']:+.3f} nats; of {DRAWS} draws of as many random directions, the best gives "
        f"{best['random_best']:+.3f}.",
        f"Over {len(table)} sites, the change by LASER and this share have a rank correlation of "
        f"{spearman(table['answers'].to_numpy(), table['nats'].to_numpy()):+.2f}.",
    )


def main(
    *, model: str = "organism-experts", facts: str | None = None, out: Path = Path("runs/organism-experts")
) -> None:
    """Truncate each expert of a mixture alone, and compare what is gained with what the router sends there.

    For example: laser-interp analyse experts

    Args:
        model: A mixture of experts.
        facts: A fact file; if left out, the facts of the shipped example.
        out: Folder for the table and the figure.
    """
    loaded, asked = load_model(model), load_facts(facts or model)
    table = by_expert(loaded, asked, progress=True)
    about = provenance(loaded, asked) | {"command": f"laser-interp analyse experts --model {model}"}
    shown = table[["site", "rank", "answers", "nats", "generic", "accuracy", "deleted", "random", "random_best"]]
    text = "\n".join([shown.head(12).round(3).to_string(index=False), *in_words(table)])
    write_all(out, {"experts": table}, text, about, experts)
