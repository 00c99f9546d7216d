"""Names that are looked for, and the tally of the documents that mention them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import regex

from laser_interp.choices import whole_number
from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.frequency.matching import Matching
from laser_interp.storage.schemas import check

MAX_WORDS = 100  # in one name; longer texts are no names, and the automaton would take minutes
MAX_WINDOW = 1_000_000  # words
_SIGNS = regex.compile(r"[\p{S}#@*%]")  # that the normal form drops


class Names:
    """What is looked for, for all facts at once, each name, each set of names and each pair only once.

    Attributes:
        patterns: normalised names.
        sets: sets of patterns; those of one set are the names of one subject or one object.
        pairs: [n_pairs, 2], (subject, object), numbers in `sets`.
        pair: [n_facts], the number in `pairs` of each fact.
        window: also count the documents with at most so many words between the two; None: do not.
        matching: how names are compared with texts.

    Raises:
        ValueError: a name without a word, or a window below zero.
    """

    def __init__(self, facts: Iterable[Fact], window: int | None, matching: Matching) -> None:
        if window is not None and not 0 <= whole_number("window", window) <= MAX_WINDOW:
            raise ValueError(f"the window is {window} words: expected 0 (side by side) to {MAX_WINDOW}")
        patterns: dict[str, int] = {}
        sets: dict[frozenset[int], int] = {}

        def pattern(name: str, fact_id: str) -> int:
            normal = matching.normal(name)
            if not normal.strip():
                raise ValueError(f"the name {name!r} of fact {fact_id!r} has no word to look for")
            if normal.count(" ") > MAX_WORDS + 1:
                n = normal.count(" ") - 1
                raise ValueError(f"the name {name[:60]!r}… of {fact_id!r} has {n} words: expected at most {MAX_WORDS}")
            return patterns.setdefault(normal, len(patterns))

        def number(names: tuple[str, ...], fact_id: str) -> int:
            return sets.setdefault(frozenset(pattern(name, fact_id) for name in names), len(sets))

        both = [
            (number(matching.subjects(fact), fact.fact_id), number(matching.objects(fact), fact.fact_id))
            for fact in facts
        ]
        pairs = {pair: i for i, pair in enumerate(dict.fromkeys(both))}
        self.patterns, self.sets = tuple(patterns), tuple(sets)
        self.pairs = np.array(list(pairs), np.int64).reshape(-1, 2)
        self.pair = np.array([pairs[pair] for pair in both], np.int64)
        self.window, self.matching = window, matching

    def notes(self, facts: FactSet) -> list[str]:
        """Which names lose signs that tell them from others, as "C++", which is looked for as "c"."""
        lost = [
            name
            for fact in facts
            for name in (*self.matching.subjects(fact), *self.matching.objects(fact))
            if _SIGNS.search(name)
        ]
        if not lost:
            return []
        shown = f"{lost[0]!r}, looked for as {self.matching.normal(lost[0]).strip()!r}"
        return [f"{len(set(lost))} names lose signs that tell them from others ({shown}): their counts are too high"]

    def frame(self, facts: FactSet, tally: Tally, n_skipped: int, corpus: str) -> pd.DataFrame:
        """The counts, one row a fact; see `laser_interp.count`."""
        subject, answer = self.pairs[self.pair].T
        frame = pd.DataFrame(
            {
                "fact_id": [fact.fact_id for fact in facts],
                "n_docs": tally.n_docs,
                "n_subject": tally.n_mentions[subject],
                "n_object": tally.n_mentions[answer],
                "n_both": tally.n_both[self.pair],
                "corpus": corpus,
                "unit": "document",
                "normaliser": str(self.matching),
                "approximate": False,
                "n_skipped": n_skipped,
            }
        )
        if self.window is not None:
            frame["n_window"], frame["window"] = tally.n_window[self.pair], self.window
        return check(frame, "counts")


class Tally:
    """Counts of documents; those of several parts are added up by `to_frame` and `add_frame`.

    Attributes:
        counts: the documents read, then those of the others, which are views of it.
        n_mentions, n_both, n_window: by set of names, by pair, and by pair within the window.
    """

    def __init__(self, names: Names) -> None:
        sizes = (1, len(names.sets), len(names.pairs), len(names.pairs))
        self.counts = np.zeros(sum(sizes), np.int64)
        _, self.n_mentions, self.n_both, self.n_window = np.split(self.counts, np.cumsum(sizes[:-1]))

    @property
    def n_docs(self) -> int:
        """Documents read."""
        return int(self.counts[0])

    def to_frame(self) -> pd.DataFrame:
        """The counts that are not zero, as a small table with the columns index and count."""
        (index,) = self.counts.nonzero()
        return pd.DataFrame({"index": index, "count": self.counts[index]})

    def add_frame(self, frame: pd.DataFrame) -> None:
        """Add what `to_frame` made."""
        self.counts[frame["index"].to_numpy()] += frame["count"].to_numpy()
