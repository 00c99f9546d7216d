"""Scores before and after an edit, side by side, with each fact's counts."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

KEYS = ["fact_id", "prompt_id"]  # of a prompt
COUNTS = ("n_both", "n_subject", "n_object")
UNCERTAIN = "uncertain_zero"  # a zero that was estimated from a sample
HALF = float(np.log(0.5))


def reported(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows that may be reported: the test half, where there is one, because the edit was chosen on the rest."""
    test = scores[scores["split"] == "test"]
    return scores if test.empty else test


_VALUES = (
    "top1",
    "top5",
    "top10",
    "logprob",
    "generic_masked_logprob",
    "first_logprob",
    "kind_logprob",
    "margin",
    "first_is_generic",
)

Counts = pd.DataFrame | pd.Series | Mapping[str, float]  # a table, or n_both by fact_id


def as_table(counts: Counts) -> pd.DataFrame:
    """Counts as a table with `fact_id` and `n_both`.

    Raises:
        ValueError: a column is missing, a fact appears more than once, or a count is a zero from a sample.
    """
    if not isinstance(counts, pd.DataFrame | pd.Series | Mapping):
        raise ValueError(f"the counts are a {type(counts).__name__}: expected a table, or n_both by fact_id")
    if not isinstance(counts, pd.DataFrame):
        by_id = counts if isinstance(counts, pd.Series) else pd.Series(dict(counts))
        counts = pd.DataFrame({"fact_id": by_id.index, "n_both": by_id.to_numpy()})
    if missing := [column for column in ("fact_id", "n_both") if column not in counts.columns]:
        has = ", ".join(map(str, counts.columns))
        raise ValueError(f"the counts have no column {missing[0]!r}: they have {has}")
    counts = counts.assign(fact_id=counts["fact_id"].astype(str))
    if counts["fact_id"].duplicated().any():
        raise ValueError("the counts hold a fact more than once: expected one row a fact_id")
    if UNCERTAIN in counts.columns and (n := int(counts[UNCERTAIN].sum())):
        raise ValueError(
            f"{n} counts are zero in a sample alone, so the whole corpus may still hold both names together: "
            f"drop them, as in counts[~counts[{UNCERTAIN!r}]], or count with a larger max_clause_freq"
        )
    return counts


def known_counts(counts: Counts) -> pd.DataFrame:
    """Counts as a table, without the facts that have none.

    Raises:
        ValueError: see `as_table`; or a count that is no number of 0 or more, or none that is known.
    """
    table = as_table(counts)
    known = table[table["n_both"].notna()].reset_index(drop=True)
    numbers = pd.to_numeric(known["n_both"], errors="coerce").astype(float)
    if bad := known.loc[~numbers.between(0, np.inf, inclusive="left"), "n_both"].tolist():
        raise ValueError(f"the counts hold {bad[0]!r} for n_both: expected numbers of 0 or more")
    if known.empty:
        raise ValueError("the counts hold no number for any fact: expected n_both, one row a fact")
    return known


def pair(scores: pd.DataFrame, counts: Counts | None, *, baseline: str, edit: str) -> pd.DataFrame:
    """One row per (fact, prompt): scores before and after, joined with the counts.

    Without counts, the `frequency` that the fact set carries stands for `n_both`.

    Raises:
        ValueError: an unknown label, facts without a count, or two labels scored on different prompts.
    """
    have = sorted(scores["edit"].unique())
    missing = [f"{name}={label!r}" for name, label in (("baseline", baseline), ("edit", edit)) if label not in have]
    if missing:
        raise ValueError(f"there are no scores of {' and '.join(missing)}: the table's edits are {have}")
    # Right by the task's rule; without another rule that is top-1.
    if "correct" in scores.columns:
        scores = scores.assign(top1=scores["correct"])
    values = [column for column in _VALUES if column in scores.columns]
    before = scores.loc[scores["edit"] == baseline, [*KEYS, "subject", "relation", "frequency", *values]]
    after = scores.loc[scores["edit"] == edit, [*KEYS, *values]]
    for name, frame in ((baseline, before), (edit, after)):
        if frame.duplicated(KEYS).any():
            raise ValueError(f"the scores of {name!r} hold a prompt more than once: score each edit once")
    rows = before.merge(after, on=KEYS, how="outer", suffixes=("_before", "_after"), indicator=True)
    if (unmatched := int((rows["_merge"] != "both").sum())) > 0:
        raise ValueError(
            f"{unmatched} prompts were scored under one of {baseline!r} and {edit!r} only: score both alike"
        )
    rows = rows.drop(columns="_merge")
    if counts is None:
        rows["n_both"] = rows["frequency"]
    else:
        counts = as_table(counts)
        rows = rows.merge(counts[["fact_id", *count_columns(counts)]], on="fact_id", how="left")
    return with_frequencies(rows.drop(columns="frequency"))


def count_columns(table: pd.DataFrame) -> list[str]:
    """The counts in a table; a source may not know how often the names occur alone."""
    return [c for c in COUNTS if c in table.columns and (c == "n_both" or table[c].notna().any())]


def with_frequencies(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, if every fact has its counts.

    Raises:
        ValueError: a count is missing, no number, negative, or differs between the rows of a fact.
    """
    for column in [c for c in COUNTS if c in rows.columns]:
        rows[column] = pd.to_numeric(rows[column], errors="coerce").astype(float)
        if (missing := rows.loc[rows[column].isna(), "fact_id"].unique()).size:
            what = "frequency" if column == "n_both" else column
            raise ValueError(f"no {what} for {missing.size} facts, {missing[0]!r} among them: count them, or drop them")
        if (rows[column] < 0).any() or not np.isfinite(rows[column]).all():
            raise ValueError(f"a frequency is negative or infinite ({column}): expected counts")
        if (rows.groupby("fact_id")[column].nunique() > 1).any():
            raise ValueError(f"the rows of a fact differ in {column}: expected one count a fact")
    return rows
