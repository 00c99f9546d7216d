"""From scores of prompts to one row for each cell and split."""

import math
from collections.abc import Sequence

import pandas as pd

from laser_interp.edits.sites import Site
from laser_interp.scoring.scores import summarise
from laser_interp.storage.schemas import SCHEMAS


def cell_means(part: pd.DataFrame, order: Sequence[str], base: pd.DataFrame) -> pd.DataFrame:
    """Means over facts and prompts, per cell and split.

    Args:
        part: scores, with the columns of a part of a search.
        order: cells in the order in which they shall stand.
        base: scores of the model as trained on the same prompts.
    """
    frame = part.assign(
        top1=part["rank"] <= 1,
        top5=part["rank"] <= 5,
        top10=part["rank"] <= 10,
        candidate_top1=(part["candidate_rank"] == 1).where(part["candidate_rank"].notna()).astype(float),
    )
    cells = summarise(frame, ("cell", "site", "kind", "rho", "rank_kept", "alpha", "split"))
    place = {name: i for i, name in enumerate(order)}
    cells = cells.sort_values("cell", key=lambda c: c.map(place), kind="stable", ignore_index=True)
    sites = [Site.parse(site) if site and " " not in site else None for site in cells["site"]]
    cells["layer"] = [math.nan if site is None else float(site.layer) for site in sites]
    cells["matrix"] = ["" if site is None else site.matrix for site in sites]
    cells = cells.merge(_loss_change_errors(part, base), on=["cell", "split"], how="left", validate="one_to_one")
    return cells[list(SCHEMAS["cells"])]


def _loss_change_errors(part: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """The standard error of each cell's change of loss against the model as trained; subjects are independent.

    Of a mean of n prompts in G clusters: √(G / (G − 1) · Σ_g (Σ_i (d_i − d̄))²) / n, as in a linear model with
    cluster-robust errors. NaN for a single subject.
    """
    known = base.set_index(["fact_id", "prompt_id"])["logprob"]
    change = known.reindex(pd.MultiIndex.from_frame(part[["fact_id", "prompt_id"]])).to_numpy() - part["logprob"]
    frame = part[["cell", "split", "subject"]].assign(change=change)
    by = frame.groupby(["cell", "split"], sort=False)["change"]
    frame["change"] -= by.transform("mean")
    sums = frame.groupby(["cell", "split", "subject"], sort=False)["change"].sum()
    groups = (sums**2).groupby(level=["cell", "split"], sort=False)
    n_groups = groups.size().astype(float)
    correction = n_groups / (n_groups - 1).where(n_groups > 1)
    error = (correction * groups.sum()) ** 0.5 / by.size()
    return error.rename("loss_change_se").reset_index()


def is_hopeless(part: pd.DataFrame, base: pd.DataFrame) -> bool:
    """Whether the upper end of a one-sided 99 % interval of the change in score, over subjects, is below 0."""
    both = part.merge(base, on=["fact_id", "prompt_id"], suffixes=("", "_base"))
    mean, error, n_subjects = mean_over_subjects(both["score"] - both["score_base"], both["subject"])
    return n_subjects > 1 and mean + 2.326 * error < 0


def mean_over_subjects(values: pd.Series, subjects: pd.Series) -> tuple[float, float, int]:
    """The mean of the subjects' means, its standard error (NaN for one subject), and how many subjects."""
    by_subject = values.groupby(subjects).mean()
    n_subjects = len(by_subject)
    error = float(by_subject.std(ddof=1)) / math.sqrt(n_subjects) if n_subjects > 1 else math.nan
    return float(by_subject.mean()), error, n_subjects
