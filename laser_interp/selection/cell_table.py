"""Turns the scores of prompts into a table with one row for each cell and split."""

import math

import pandas as pd

from laser_interp.edits.sites import Site
from laser_interp.scoring.scores import summarise
from laser_interp.storage.schemas import SCHEMAS


def cell_means(part: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """Means over facts and prompts, per cell and split.

    Args:
        part: scores, with the columns of a part of a search.
        base: scores of the model as trained on the same prompts.
    """
    frame = part.assign(
        top1=part["rank"] <= 1,
        top5=part["rank"] <= 5,
        top10=part["rank"] <= 10,
        candidate_top1=(part["candidate_rank"] == 1).where(part["candidate_rank"].notna()).astype(float),
    )
    cells = summarise(frame, ("cell", "site", "kind", "rho", "rank_kept", "alpha", "split"))
    sites = [Site.parse(site) if site and " " not in site else None for site in cells["site"]]
    cells["layer"] = [math.nan if site is None else float(site.layer) for site in sites]
    cells["matrix"] = ["" if site is None else site.matrix for site in sites]
    cells = cells.merge(_change_errors(part, base), on=["cell", "split"], how="left", validate="one_to_one")
    return cells[[*SCHEMAS["cells"], "score_change_se"]]


def _change_errors(part: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """The standard errors of each cell's change of loss and of score against the model as trained.

    Subjects are independent. With n prompts of G subjects the error of a mean of changes d is
    √(G / (G − 1) · Σ_g (Σ_i (d_i − d̄))²) / n, which is robust to clusters. NaN for a single subject.
    """
    keys = pd.MultiIndex.from_frame(part[["fact_id", "prompt_id"]])
    known = base.set_index(["fact_id", "prompt_id"])
    errors = []
    for metric, name in (("logprob", "loss_change_se"), ("score", "score_change_se")):
        change = known[metric].astype(float).reindex(keys).to_numpy() - part[metric]
        frame = part[["cell", "split", "subject"]].assign(change=change)
        by = frame.groupby(["cell", "split"], sort=False)["change"]
        frame["change"] -= by.transform("mean")
        sums = frame.groupby(["cell", "split", "subject"], sort=False)["change"].sum()
        groups = (sums**2).groupby(level=["cell", "split"], sort=False)
        n_groups = groups.size().astype(float)
        correction = n_groups / (n_groups - 1).where(n_groups > 1)
        errors.append(((correction * groups.sum()) ** 0.5 / by.size()).rename(name))
    return pd.concat(errors, axis=1).reset_index()
