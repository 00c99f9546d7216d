"""The category of an answer: correct, a generic word, a wrong answer of the same type, or anything else."""

import numpy as np

from laser_interp.scoring.generic_words import GenericTokens

CATEGORIES = ("correct", "generic", "same_type", "other")


class Categories:
    """The category of an answer's first token; see `laser_interp.favoured_answers`.

    Args:
        right, same_type: `[n, 2]`, pairs (item, token): of an item's right answers, and of all answers of its relation.
        generic: tokens of generic words after each item's prompt.
        d_vocab: size of the vocabulary.
    """

    def __init__(self, right: np.ndarray, same_type: np.ndarray, generic: GenericTokens, d_vocab: int) -> None:
        self._d_vocab = d_vocab
        self._right, self._same_type = (np.unique(self._keys(*pairs.T)) for pairs in (right, same_type))
        self._generic = generic

    def _keys(self, items: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return items.astype(np.int64) * self._d_vocab + tokens

    def of(self, items: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The category of each item's token that was answered."""
        keys = self._keys(items, tokens)
        conditions = [_among(keys, self._right), self._generic.includes(items, tokens), _among(keys, self._same_type)]
        return np.select(conditions, CATEGORIES[:3], CATEGORIES[3])


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are in a sorted array; unlike `np.isin`, without sorting that array again for each edit."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
