"""Where a change comes from: the log-probability of an answer is an exact sum of parts, and so is its change.

    log p(answer) = log P(no generic word) + log P(an answer of the right kind | that)
                  + log P(the right one | that) + log P(its further tokens | its first)

"The right kind" are the first tokens of the answers of the fact's relation. No threshold is involved: each part is a
number of nats for each prompt, and the parts add up to the whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import Clusters
from laser_interp.display import Drawable, named_row
from laser_interp.plots.names import PARTS
from laser_interp.statistics.formatting import row_in_nats
from laser_interp.statistics.paired_scores import KEYS, pair, reported

WHOLE = "whole"
MOST = 0.5  # this share of a change, or more, counts as most of it


def parts_of(scores: pd.DataFrame) -> pd.DataFrame:
    """The parts of each answer's log-probability, in nats; they add up to `logprob`.

    Raises:
        ValueError: a column of `li.score` is missing.
    """
    needed = ["logprob", "generic_masked_logprob", "first_logprob", "kind_logprob"]
    if missing := [column for column in needed if column not in scores.columns]:
        raise ValueError(f"the scores have no column {missing[0]!r}: score the edits with li.score of this version")
    whole, first, kind = (scores[column] for column in ("logprob", "first_logprob", "kind_logprob"))
    generic = (whole - scores["generic_masked_logprob"]).fillna(0.0) if whole.notna().any() else whole
    out = pd.DataFrame({"generic": generic})
    if kind.isna().all():
        out["others"] = first - generic
    else:
        out["kind"], out["rivals"] = kind - generic, first - kind
    out["rest"] = whole - first
    return out


@dataclass(frozen=True, repr=False)
class Decomposition(Drawable):
    """The parts of a change of log p(answer).

    Attributes:
        rows: one row per (fact, prompt): `fact_id, prompt_id, subject, relation`, and the change of each part and of
            the `whole`, in nats.
        table: one row a part, the whole last: `part, name, before, after, change, lo, hi, p, share` (of the whole) and
            `n`. Intervals are at 95 %, over subjects.
        edit, baseline: the labels compared.
        n_generic: prompts whose answer begins with a generic word itself, which is then not counted as one.
        n_left_out: prompts without a finite log-probability.
    """

    rows: pd.DataFrame
    table: pd.DataFrame
    edit: str
    baseline: str
    n_generic: int
    n_left_out: int

    figure_name = "decomposition"
    drawn_from: ClassVar[Mapping[str, str]] = {"decomposition": "table"}

    def __repr__(self) -> str:
        return f"Decomposition of {self.edit!r} against {self.baseline!r}: {self.paragraph}"

    def _repr_html_(self) -> str:
        return f"<p>{self.paragraph}</p>{self.table.round(3).to_html(index=False)}"

    def part(self, name: str) -> pd.Series:
        """One row of the table; a KeyError if there is no such part."""
        return named_row(self.table, "part", name)

    def without(self, name: str) -> pd.Series:
        """The change of the whole without a part: `change, lo, hi, p`."""
        found = Clusters(self.rows["subject"]).difference((self.rows[WHOLE] - self.rows[name]).to_numpy())
        return pd.Series(found, ["change", "lo", "hi", "p"])

    @property
    def names(self) -> list[str]:
        """The parts that there are."""
        return [name for name in self.table["part"] if name != WHOLE]

    def _moves(self, name: str) -> bool:
        return bool((self.rows[name].abs() > 1e-9).any())

    def gains(self, name: str) -> bool:
        """Whether a part gains: its interval is above 0."""
        return bool(self.part(name)["lo"] > 0)

    def is_most(self, name: str) -> bool:
        """Whether a part gains and is at least half of a whole that gains."""
        whole = self.part(WHOLE)
        return self.gains(name) and self.gains(WHOLE) and self.part(name)["change"] >= MOST * whole["change"]

    @property
    def most(self) -> str:
        """The parts that are most of the gain, with their shares, in words; "" where none is."""
        names = [name for name in self.names if self.is_most(name)]
        return " and ".join(f"{PARTS[name]} ({self.part(name)['share']:.0%})" for name in names)

    @cached_property
    def paragraph(self) -> str:
        """What was found, in words."""
        whole = self.part(WHOLE)
        told = [f"The log-probability of the answer changes by {row_in_nats(whole)} over {int(whole['n'])} prompts."]
        each = [f"{row_in_nats(self.part(name))} is {PARTS[name]}" for name in self.names if self._moves(name)]
        if each:
            told.append(f"Of this, {', '.join(each)}.")
        shown = [name for name in self.names if self.gains(name) or self.part(name)["hi"] < 0]
        if not shown:
            told.append("In this sample, no part's change differs from 0.")
        elif self.most:
            told.append(f"Most of the gain is {self.most}.")
        if self.n_generic:
            told.append(f"{self.n_generic} answers begin with a generic word themselves, which does not count as one.")
        if self.n_left_out:
            told.append(f"{self.n_left_out} prompts are left out: a part of theirs is not known, or not finite.")
        return " ".join(told)


def decompose(scores: pd.DataFrame, *, edit: str = "laser", baseline: str = "base") -> Decomposition:
    """Take a change of log p(answer) apart: generic words, the kind of answer, its rivals, and its further tokens.

    Args:
        scores: from `li.score`, with answers ranked among those of their relation, or else kind and rivals are one
            part. Where it holds a split named "test", only that is used.
        edit, baseline: labels in `scores`.

    Raises:
        ValueError: an unknown label, or scores without the columns of `li.score`.

    Example:
        >>> found = li.decompose(scores)
        >>> print(found.paragraph)
    """
    rows = pair(reported(scores).assign(frequency=0.0), None, baseline=baseline, edit=edit)
    then, now = (parts_of(side).assign(whole=side["logprob"]) for side in (_one_side(rows, when) for when in _WHEN))
    names = [name for name in (*PARTS, WHOLE) if name in then and name in now]
    with np.errstate(invalid="ignore"):
        changes = now[names] - then[names]
    finite: np.ndarray = np.asarray(np.isfinite(changes.to_numpy(float)).all(axis=1))
    if not finite.any():
        raise ValueError("no prompt has a finite log-probability before and after: there is nothing to take apart")
    changes, then, now, rows = changes[finite], then[finite], now[finite], rows[finite]
    clusters = Clusters(rows["subject"])
    whole = float(changes[WHOLE].mean())
    found = [clusters.difference(changes[name].to_numpy(float)) for name in names]
    table = pd.DataFrame({"part": names, "name": [PARTS.get(name, "the whole") for name in names]})
    table["before"], table["after"] = then[names].mean().to_numpy(), now[names].mean().to_numpy()
    table[["change", "lo", "hi", "p"]] = found
    table["share"] = table["change"] / whole if abs(whole) > 1e-12 else np.nan
    table["n"] = len(rows)
    return Decomposition(
        rows=pd.concat([rows[[*KEYS, "subject", "relation"]], changes], axis=1),
        table=table,
        edit=edit,
        baseline=baseline,
        n_generic=int(rows["first_is_generic_after"].sum()),
        n_left_out=int((~finite).sum()),
    )


def changes_by_part(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """From paired rows (`pair`), the change of each part and of the whole, in nats; {} where they cannot be told."""
    needed = [f"{c}_{when}" for c in ("generic_masked_logprob", "first_logprob", "kind_logprob") for when in _WHEN]
    if any(column not in rows.columns for column in needed):
        return {}
    then, now = (parts_of(_one_side(rows, when)) for when in _WHEN)
    names = [name for name in PARTS if name in then and name in now]
    return {name: (now[name] - then[name]).to_numpy(float) for name in names}


_WHEN = ("before", "after")


def _one_side(rows: pd.DataFrame, when: str) -> pd.DataFrame:
    columns = [c for c in rows.columns if c.endswith(f"_{when}")]
    return rows[columns].rename(columns={c: c.removesuffix(f"_{when}") for c in columns})
