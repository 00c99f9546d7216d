"""Counting the mentions of names in joined documents, with one automaton for all names.

A name is mentioned where it occurs as whole words of the normal form. Names may overlap: "York" and "New York" are
both in "New York".
"""

from itertools import chain

import numpy as np
from scipy.sparse import csr_array

from laser_interp.frequency.names import Names, Tally
from laser_interp.frequency.normaliser import normalise_joined


def _expand(table: csr_array, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `keys`, once for each number that belongs to the key, and the numbers."""
    rows = table[keys]
    return np.repeat(np.arange(len(keys)), np.diff(rows.indptr)), rows.indices


def _table(keys: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> csr_array:
    return csr_array((np.ones(len(keys), bool), (keys, values)), shape)


class Mentions:
    """Counts the mentions of names in joined documents.

    Attributes:
        names: what is looked for.
        tally: what was found so far.
    """

    def __init__(self, names: Names) -> None:
        from ahocorasick_rs import BytesAhoCorasick

        self.names, self.tally = names, Tally(names)
        self._automaton = BytesAhoCorasick([pattern.encode() for pattern in names.patterns])
        members = [(pattern, i) for i, patterns in enumerate(names.sets) for pattern in sorted(patterns)]
        patterns, sets = np.array(members, np.int64).reshape(-1, 2).T
        self._sets_of = _table(patterns, sets, (len(names.patterns), len(names.sets)))
        n_pairs = len(names.pairs)
        self._pairs_of = _table(names.pairs[:, 0], np.arange(n_pairs), (len(names.sets), n_pairs))
        self._words = np.array([pattern.count(" ") - 1 for pattern in names.patterns], np.int64)

    def add(self, n_docs: int, documents: bytes) -> None:
        """Count documents joined by `SEPARATOR`."""
        self.tally.counts[0] += n_docs
        text = normalise_joined(documents, fold_accents=self.names.matching.fold_accents)
        found = self._automaton.find_matches_as_indexes(text, overlapping=True)
        if not found:
            return
        matches = np.fromiter(chain.from_iterable(found), np.int64, 3 * len(found)).reshape(-1, 3)
        pattern, place = matches[:, 0], matches[:, 1]
        letters = np.frombuffer(text, np.uint8)
        document = np.searchsorted(np.flatnonzero(letters == 0), place)
        n_patterns, n_sets = len(self.names.patterns), len(self.names.sets)

        doc, name = np.divmod(np.unique(document * n_patterns + pattern), n_patterns)
        owner, of_names = _expand(self._sets_of, name)
        mentioned = np.unique(doc[owner] * n_sets + of_names)
        doc, of_names = np.divmod(mentioned, n_sets)
        self.tally.n_mentions += np.bincount(of_names, minlength=n_sets)
        owner, pair = _expand(self._pairs_of, of_names)
        wanted = doc[owner] * n_sets + self.names.pairs[pair, 1]
        both = np.isin(wanted, mentioned)
        doc, pair = doc[owner][both], pair[both]
        self.tally.n_both += np.bincount(pair, minlength=len(self.names.pairs))
        if self.names.window is not None and len(pair):
            word = np.searchsorted(np.flatnonzero(letters == 32), place)
            near = self._near(document, pattern, word, doc, pair)
            self.tally.n_window += np.bincount(pair[near], minlength=len(self.names.pairs))

    def _near(
        self, document: np.ndarray, pattern: np.ndarray, word: np.ndarray, doc: np.ndarray, pair: np.ndarray
    ) -> np.ndarray:
        """Which of the pairs found in a document lie within the window there.

        Args:
            document, pattern, word: [n_matches], where each match is, `word` the number of its first word.
            doc, pair: [n], what was found.
        """
        window = self.names.window
        assert window is not None
        key = document * len(self.names.patterns) + pattern
        order = np.argsort(key, kind="stable")
        key, word = key[order], word[order]

        def places(d: int, p: int) -> np.ndarray:
            at = d * len(self.names.patterns) + p
            return word[np.searchsorted(key, at) : np.searchsorted(key, at, side="right")]

        near = np.zeros(len(pair), bool)
        for i, (d, one) in enumerate(zip(doc.tolist(), pair.tolist(), strict=True)):
            subjects, objects = (self.names.sets[number] for number in self.names.pairs[one].tolist())
            found = [[(places(d, name), int(self._words[name])) for name in names] for names in (subjects, objects)]
            near[i] = any(
                len(a) > 0 and len(b) > 0 and gap(a, n, b, m) <= window for a, n in found[0] for b, m in found[1]
            )
        return near


def gap(a: np.ndarray, a_words: int, b: np.ndarray, b_words: int) -> int:
    """Fewest words between a mention of one name and one of another; 0 where they touch or overlap.

    Args:
        a, b: first words of the mentions, ascending.
        a_words, b_words: how long the names are.
    """
    after = np.searchsorted(b, a)
    right = b[np.minimum(after, len(b) - 1)] - (a + a_words)
    left = a - (b[np.maximum(after - 1, 0)] + b_words)
    distance = np.minimum(
        np.where(after < len(b), np.maximum(right, 0), np.iinfo(np.int64).max),
        np.where(after > 0, np.maximum(left, 0), np.iinfo(np.int64).max),
    )
    return int(distance.min())
