"""Counts from elsewhere: anyone's csv or parquet, joined to our facts, with a report of what matched."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.choices import some_of
from laser_interp.facts.files import check_once
from laser_interp.facts.records import read_records
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.frequency.normaliser import normalise
from laser_interp.storage.schemas import check

COUNTS = ("n_both", "n_subject", "n_object", "n_docs")
_AT_MOST = (("n_both", "n_subject"), ("n_both", "n_object"), ("n_subject", "n_docs"), ("n_object", "n_docs"))


@dataclass(frozen=True)
class ImportedCounts:
    """Counts joined to facts.

    Attributes:
        counts: one row per fact that matched, with the counts of `laser_interp.count`; NA where the source lacks one.
        missing: ids of facts without a row.
        unused: rows of the source that matched no fact.
        n_facts: facts asked for.
        by: the columns that were matched.
    """

    counts: pd.DataFrame
    missing: tuple[str, ...]
    unused: pd.DataFrame
    n_facts: int
    by: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{len(self.counts)} of {self.n_facts} facts have counts, matched by {' and '.join(self.by)}"
        if self.missing:
            text += f"; {len(self.missing)} have none ({some_of(self.missing)})"
        if len(self.unused):
            text += f"; {len(self.unused)} rows of the source belong to no fact"
        return text


def join_counts(
    facts: AnyFacts,
    source: str | Path | pd.DataFrame,
    *,
    by: str | None = None,
    columns: Mapping[str, str] | None = None,
    unit: str = "as given",
) -> ImportedCounts:
    """Join counts that somebody else made.

    Args:
        source: a .csv, .tsv, .json, .jsonl or .parquet file, or a frame; one row a fact.
        by: "fact_id", or "names" for subject and object (compared after `normalise`; an alias will do for
            the object); None takes the id if the source has it, and names otherwise.
        columns: what the source calls our columns, as {"n_both": "cooccurrences", "subject": "head"}.
        unit: what was counted, for the table.

    Raises:
        FileNotFoundError, ValueError: no such file, no such columns, counts that are no whole numbers ≥ 0, the
            same fact twice, or not one match.

    Example:
        >>> print(li.counts.join_counts(facts, counts[["fact_id", "n_both"]]))
    """
    facts = facts_of(facts)
    name = "the frame" if isinstance(source, pd.DataFrame) else Path(str(source)).name
    there = _renamed(_read(source), columns or {}, name)
    wanted = [c for c in COUNTS if c in there.columns]
    has = f"{name} has the columns {', '.join(map(str, there.columns))}"
    if by not in (None, "fact_id", "names"):
        raise ValueError(f"by is {by!r}: expected 'fact_id' or 'names'")
    by_id = by == "fact_id" or (by is None and "fact_id" in there.columns)
    keys = ("fact_id",) if by_id else ("subject", "object")
    if lacking := [c for c in (*keys, "n_both") if c not in there.columns]:
        raise ValueError(f"no column {', '.join(lacking)}: {has}; name them, as columns={{'n_both': 'THEIR NAME'}}")
    for column in wanted:
        there[column] = [_count(value, column, row, name) for row, value in enumerate(there[column].tolist(), start=1)]
    for smaller, larger in _AT_MOST:
        if smaller in wanted and larger in wanted and (above := there[smaller] > there[larger]).any():
            row = int(above.to_numpy().argmax())
            raise ValueError(
                f"row {row + 1} of {name}: {smaller} is {there[smaller].iloc[row]}, above {larger}, which is "
                f"{there[larger].iloc[row]}: expected counts of one kind; name the columns, as columns={{...}}"
            )

    def key(*values: Any) -> tuple[str, ...]:
        return tuple(str(value) if by_id else normalise(str(value)) for value in values)

    at: dict[tuple[str, ...], int] = {}
    for i, values in enumerate(there[list(keys)].itertuples(index=False, name=None)):
        if at.setdefault(key(*values), i) != i:
            raise ValueError(f"{name} holds {' / '.join(map(str, values))} more than once: expected one row a fact")
    rows: dict[str, int] = {}
    for fact in facts:
        answers = (fact.object, *fact.aliases)
        tried = [key(fact.fact_id)] if by_id else [key(fact.subject, answer) for answer in answers]
        if (row := next((at[k] for k in tried if k in at), None)) is not None:
            rows[fact.fact_id] = row
    if not rows:
        example = " / ".join(map(str, there[list(keys)].iloc[0])) if len(there) else "nothing"
        ours = " / ".join(getattr(facts.facts[0], column) for column in keys)
        raise ValueError(
            f"no fact of {facts.name!r} matches {name} by {' and '.join(keys)}: {example} there, {ours} here"
        )
    counts = there.iloc[list(rows.values())][wanted].reset_index(drop=True)
    counts.insert(0, "fact_id", list(rows))
    for column in ("n_docs", "n_subject", "n_object"):
        if column not in counts.columns:
            counts[column] = pd.array([pd.NA] * len(counts), dtype="Int64")  # not known
    counts = counts.assign(corpus=name, unit=unit, normaliser="as given", approximate=False)
    return ImportedCounts(
        counts=check(counts, "counts"),
        missing=tuple(fact.fact_id for fact in facts if fact.fact_id not in rows),
        unused=there.drop(index=there.index[sorted(set(rows.values()))]).reset_index(drop=True),
        n_facts=len(facts),
        by=keys,
    )


def _renamed(frame: pd.DataFrame, columns: Mapping[str, str], name: str) -> pd.DataFrame:
    """The frame with our names of columns; a column that was ours by name alone gives way to the one that is named."""
    theirs = [str(column) for column in frame.columns]
    check_once(theirs, name)
    known = (*COUNTS, "fact_id", "subject", "object")
    for ours, column in columns.items():
        if ours not in known:
            raise ValueError(f"columns has {ours!r}: expected some of {', '.join(known)}")
        if column not in theirs:
            raise ValueError(f"{name} has no column {column!r}: it has {', '.join(theirs)}")
    if len(set(columns.values())) < len(columns):
        raise ValueError(f"columns is {dict(columns)}: expected another column for each")
    given = {ours: frame[column] for ours, column in columns.items()}
    kept = {column: frame[column] for column in frame.columns if column not in columns.values() and column not in given}
    return pd.DataFrame(kept | given)


def _count(value: Any, column: str, row: int, name: str) -> int:
    """A count, as a whole number that fits into 63 bits."""
    try:
        exact = Fraction(str(value).strip()) if not isinstance(value, bool) else None
    except (ValueError, ZeroDivisionError):
        exact = None
    if exact is None or exact.denominator != 1 or not 0 <= exact < 1 << 63:
        raise ValueError(f"row {row} of {name}: {column} is {value!r}, expected a whole number from 0 to 2^63 - 1")
    return int(exact)


def _read(source: str | Path | pd.DataFrame) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source.reset_index(drop=True)
    if not isinstance(source, str | Path):
        raise ValueError(f"the counts are a {type(source).__name__}: expected a file or a frame")
    return pd.DataFrame(read_records(source))
