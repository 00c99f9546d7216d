"""Measures to report beside accuracy: majority baseline, balanced accuracy, calibration, and a test of the change."""

from typing import Any

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import Clusters, with_interval
from laser_interp.statistics.accuracy_change import accuracy_change
from laser_interp.statistics.paired_scores import pair

DEGENERATE = 0.99  # if one label has this share of the predictions, the model does not classify


def metrics(rows: pd.DataFrame, rule: str, *, baseline: str = "base", seed: int = 0) -> pd.DataFrame:
    """Accuracy, with the measures that should be reported beside it.

    Returns:
        One row an edit: `n`, `accuracy` and `score` with 95 % intervals over subjects, `loss`,
        `majority_baseline` (of always giving the commonest right answer), `balanced_accuracy` (mean over the right
        answers), `commonest_prediction` and `share_commonest`, `degenerate` (99 % or more of the predictions
        are one label), `p_candidates` (mean), `calibration_error` (10 bins of confidence); against the baseline:
        `n_fixed`, `n_broken` and `p_change` (the signs of the subjects' net changes are flipped; with one prompt a
        subject this is McNemar's exact test); for generation also `exact` and `f1`.

    Raises:
        ValueError: no baseline among the edits, or an edit that was scored on other prompts.

    Example:
        >>> task = li.tasks.own_task("organism", "candidates")
        >>> li.metrics(li.score(model, task, {"base": None, "laser": laser}), task.rule)
    """
    out = []
    for label, some in rows.groupby("edit", sort=False):
        clusters = Clusters(some["subject"])
        row: dict[str, Any] = {"edit": label, "n": len(some)}
        for column, name in (("correct", "accuracy"), ("score", "score")):
            row |= with_interval(name, clusters.mean(some[column].to_numpy(float)))
        row["loss"] = -float(some["logprob"].mean())
        row["majority_baseline"] = float(some["object"].value_counts(normalize=True).iloc[0])
        row["balanced_accuracy"] = float(some.groupby("object")["correct"].mean().mean())
        said = some["prediction"].value_counts(normalize=True)
        row["commonest_prediction"], row["share_commonest"] = str(said.index[0]), float(said.iloc[0])
        row["degenerate"] = rule == "candidates" and some["object"].nunique() > 1 and float(said.iloc[0]) >= DEGENERATE
        row["p_candidates"] = float(some["p_candidates"].mean()) if "p_candidates" in some else float("nan")
        confidence = some["confidence" if "confidence" in some else "top_prob"].to_numpy(float)
        row["calibration_error"] = _calibration(confidence, some["correct"].to_numpy(float))
        paired = pair(rows.assign(frequency=0.0), None, baseline=baseline, edit=str(label))
        found = accuracy_change(paired, seed=seed)
        row |= {"n_fixed": found.n_fixed, "n_broken": found.n_broken, "p_change": found.p}
        for name in ("exact", "f1"):
            if name in some.columns:
                row[name] = float(some[name].astype(float).mean())
        out.append(row)
    return pd.DataFrame(out)


def _calibration(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over ten equal bins of confidence, weighted by their size."""
    known = np.isfinite(confidence)
    if not known.any():
        return float("nan")
    confidence, correct = confidence[known], correct[known]
    number = np.minimum((confidence * 10).astype(int), 9)
    return float(np.abs(np.bincount(number, confidence - correct)).sum() / len(number))
