"""Several edits on the same facts, placebos among them, with intervals that hold for all of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.display import Drawable
from laser_interp.statistics import sentences
from laser_interp.statistics.accuracy_change import accuracy_change
from laser_interp.statistics.bootstrap import LEVEL, SubjectBootstrap
from laser_interp.statistics.paired_scores import Counts, pair, reported
from laser_interp.statistics.regression import regression


@dataclass(frozen=True)
class Comparison(Drawable):
    """Several edits on the same facts, with intervals that hold for all of them at once.

    Attributes:
        table: one row an edit: `edit, placebo`, the change of accuracy and the odds ratio of being fixed (given
            wrong before) per tenfold frequency, with intervals at 1 − 0.05 / number of edits (Bonferroni), `p`
            and `p_holm`, and `problem` where there is no odds ratio.
        baseline: what all are compared with.
    """

    table: pd.DataFrame
    baseline: str

    @property
    def paragraph(self) -> str:
        """What was found, in plain English."""
        return sentences.comparison(self)

    def _repr_html_(self) -> str:
        return f"<p>{self.paragraph}</p>{self.table.round(3).to_html(index=False)}"


def compare(
    scores: pd.DataFrame,
    counts: Counts | None = None,
    *,
    baseline: str = "base",
    edits: Sequence[str] | None = None,
    placebos: Sequence[str] = (),
    n_boot: int = 4000,
    seed: int = 0,
) -> Comparison:
    """Compare several edits, placebos among them, without letting the number of edits make findings.

    Args:
        scores, counts, baseline: see `associate`.
        edits: labels; None: all but the baseline.
        placebos: those of them that should show nothing, as random edits of equal norm.
        n_boot, seed: of the bootstrap over subjects.

    Raises:
        ValueError: see `pair`; a placebo that is not among the edits.
    """
    from statsmodels.stats.multitest import multipletests

    labels = list(edits) if edits is not None else [e for e in dict.fromkeys(scores["edit"]) if e != baseline]
    labels += [name for name in placebos if name not in labels and name in set(scores["edit"])]
    if not labels:
        raise ValueError(f"there is no edit to compare with {baseline!r}")
    if unknown := [name for name in placebos if name not in labels]:
        raise ValueError(f"no scores of the placebo {unknown[0]!r}: the table has {sorted(set(scores['edit']))}")
    level = 1 - (1 - LEVEL) / len(labels)
    records = []
    for label in labels:
        rows = pair(reported(scores), counts, baseline=baseline, edit=label)
        rows["fixed"] = ~rows["top1_before"].astype(bool) & rows["top1_after"].astype(bool)
        boot = SubjectBootstrap(rows["subject"], n_boot, seed)
        change, lo, hi = accuracy_change(rows, boot, level)
        fit = regression(rows, ["frequency"], level)
        row: dict[str, Any] = {"edit": label, "placebo": label in placebos, "n": len(rows)}
        row |= {"change": change, "change_lo": lo, "change_hi": hi, "n_fixed": int(rows["fixed"].sum())}
        slope = fit[fit["term"] == "log10_n_both"].to_dict("records")
        kept = ("odds_ratio", "odds_lo", "odds_hi", "p")
        row |= {k: slope[0][k] for k in kept} if slope else dict.fromkeys(kept, np.nan)
        records.append(row | {"problem": fit.attrs["problems"].get("frequency", "")})
    table = pd.DataFrame(records)
    table["p_holm"] = np.nan
    estimated = table["p"].notna()
    if estimated.any():
        table.loc[estimated, "p_holm"] = multipletests(table.loc[estimated, "p"], method="holm")[1]
    return Comparison(table, baseline)
