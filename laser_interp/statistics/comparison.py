"""Several edits on the same facts, placebos among them, with intervals that hold for all of them at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import LEVEL
from laser_interp.display import Drawable
from laser_interp.statistics import sentences
from laser_interp.statistics.accuracy_change import accuracy_change
from laser_interp.statistics.blind_edit import against_blind_edit
from laser_interp.statistics.frequency_effect import PERMUTATIONS, frequency_effects
from laser_interp.statistics.frequency_slope import frequency_slopes, log_odds_changes
from laser_interp.statistics.paired_scores import Counts, pair, reported


@dataclass(frozen=True, repr=False)
class Comparison(Drawable):
    """Several edits on the same facts, with intervals that hold for all of them at once.

    Attributes:
        table: one row an edit: `edit, placebo`, and three results with intervals at 1 − 0.05 / number of edits
            (Bonferroni) and p-values, also after Holm. First, the `change` of accuracy (`change_lo, change_hi,
            p_change, p_change_holm`). Second, the `slope` of log-odds per tenfold frequency, within relations, in nats
            (`slope_lo, slope_hi, p_slope, p_slope_holm`), with generic words forbidden where `slope_of` is
            "masked_log_odds"; NaN without log-probabilities, and `slope_problem` says why there is no p-value. Third,
            the `odds_ratio` of being fixed (given wrong before) per tenfold frequency (`odds_lo, odds_hi`). Its `p` and
            `p_holm` say whether the fixes depend on frequency more than those of an edit with the same gains that is
            blind to it, where margins are known; `problem` is the reason where the data cannot tell.
        baseline: what all are compared with.
    """

    table: pd.DataFrame
    baseline: str

    figure_name = "compared_edits"
    drawn_from: ClassVar[Mapping[str, str]] = {"rare_facts_placebo": "table"}

    def __repr__(self) -> str:
        return f"Comparison of {len(self.table)} edits with {self.baseline!r}; table has a row each, plot() draws it"

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
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Compare several edits, placebos among them, with a correction for the number of edits.

    Args:
        scores, counts, baseline: see `associate`.
        edits: labels; None: all but the baseline.
        placebos: labels of edits that should show nothing, such as random edits of equal norm.
        n_permutations, seed: of the permutations that move subjects; more are made for many edits.

    Raises:
        ValueError: see `pair`; a placebo that is not among the edits.

    Example:
        >>> edits = {"base": None, "laser": laser, "random": li.controls.random_kept(model, laser, seed=0)}
        >>> li.compare(li.score(model, test, edits), counts, placebos=["random"]).table
    """
    labels = list(edits) if edits is not None else [e for e in dict.fromkeys(scores["edit"]) if e != baseline]
    labels += [name for name in placebos if name not in labels and name in set(scores["edit"])]
    if not labels:
        raise ValueError(f"there is no edit to compare with {baseline!r}")
    if unknown := [name for name in placebos if name not in labels]:
        raise ValueError(f"no scores of the placebo {unknown[0]!r}: the table has {sorted(set(scores['edit']))}")
    level = 1 - (1 - LEVEL) / len(labels)
    n_permutations = max(n_permutations, 80 * len(labels) - 1)  # so that the corrected level can be reached at all
    records = []
    for label in labels:
        rows = pair(reported(scores), counts, baseline=baseline, edit=label)
        rows["fixed"] = ~rows["top1_before"].astype(bool) & rows["top1_after"].astype(bool)
        changed = accuracy_change(rows, level=level, seed=seed)
        effects = frequency_effects(rows, ["frequency"], level=level, n_permutations=n_permutations, seed=seed)
        row: dict[str, Any] = {"edit": label, "placebo": label in placebos, "n": len(rows)}
        row |= {"change": changed.change, "change_lo": changed.lo, "change_hi": changed.hi, "p_change": changed.p}
        kept = ("odds_ratio", "odds_lo", "odds_hi", "p", "problem")
        row |= {"n_fixed": changed.n_fixed} | {k: effects.iloc[0][k] for k in kept}
        row |= _slope(rows, level=level, n_permutations=n_permutations, seed=seed)
        if "margin_before" in rows.columns and not pd.isna(row["p"]):  # else the odds ratio alone would be a finding
            row["p"] = against_blind_edit(rows, n_permutations=n_permutations, seed=seed)["p"]
        records.append(row)
    table = pd.DataFrame(records)
    for name in ("p", "p_change", "p_slope"):
        table[f"{name}_holm"] = holm(table[name])
    return Comparison(table, baseline)


_SLOPE = ("slope_of", "slope", "slope_lo", "slope_hi", "p_slope", "slope_problem")


def _slope(rows: pd.DataFrame, **how: Any) -> dict[str, Any]:
    """The slope of log-odds per tenfold frequency, with generic words forbidden where that is known."""
    asked = list(log_odds_changes(rows).items())[-1:]
    if not asked:
        return dict.fromkeys(_SLOPE, np.nan) | {"slope_of": "", "slope_problem": ""}
    row = frequency_slopes(rows, dict(asked), **how).iloc[0]
    return dict(zip(_SLOPE, row[["of", "slope", "lo", "hi", "p", "problem"]], strict=True))


def holm(p: pd.Series) -> pd.Series:
    """P-values corrected for their number (Holm 1979); NaN stays. statsmodels gives the same, and collects all of
    Python's garbage each time, which may take a second."""
    known = p.dropna().sort_values()
    return (known * np.arange(len(known), 0, -1)).cummax().clip(upper=1.0).reindex(p.index)
