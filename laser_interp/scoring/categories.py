"""The category of an answer: correct, a generic word, a wrong answer of the same type, or anything else."""

import numpy as np
import pandas as pd

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
        self._right, self._same_type = (self._keys(*pairs.T).unique() for pairs in (right, same_type))
        self._generic = generic

    def _keys(self, items: np.ndarray, tokens: np.ndarray) -> pd.Index:
        return pd.Index(items.astype(np.int64) * self._d_vocab + tokens)

    def of(self, items: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The category of each item's token that was answered."""
        keys = self._keys(items, tokens)
        right, same_type = (known.get_indexer(keys) >= 0 for known in (self._right, self._same_type))
        return np.select([right, self._generic.includes(items, tokens), same_type], CATEGORIES[:3], CATEGORIES[3])
