"""Words that fit any sentence, and their tokens when they are answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.facts.separators import WITHOUT_SPACES
from laser_interp.models.model import Model
from laser_interp.models.tokens import encode_answers


def generic_words(model: Model) -> tuple[str, ...]:
    """Words that fit any sentence: those shipped with the model, else scikit-learn's English stop words."""
    if model.generic_words is not None:
        return model.generic_words
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return tuple(sorted(ENGLISH_STOP_WORDS))


@dataclass(frozen=True)
class GenericTokens:
    """Tokens of the generic words, as they are written after each prompt.

    After most prompts they have a space before them, and after an opening quote they have none.

    Attributes:
        ids: `[n]`, sorted, all of them.
        form_of_item: `[items]`, which of the forms is written after each item's prompt.
        in_form: `[forms, n]`, which of the tokens belong to a form.
    """

    ids: Int[Tensor, " n"]
    form_of_item: Int[np.ndarray, " items"]
    in_form: Bool[np.ndarray, "forms n"]

    def includes(self, items: Int[np.ndarray, " k"], tokens: Int[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
        """Whether each token is generic after its item's prompt."""
        ids = self.ids.numpy()
        if not len(ids):
            return np.zeros(len(tokens), dtype=bool)
        at = np.minimum(np.searchsorted(ids, tokens), len(ids) - 1)
        return (ids[at] == tokens) & self.in_form[self.form_of_item[items], at]


def generic_tokens(
    model: Model, facts: FactSet, items: Sequence[tuple[Fact, int]], words: Sequence[str] | None
) -> GenericTokens:
    """The generic words that are one token where an answer begins.

    Args:
        items: (fact, number of its prompt). Words are tokenised once after each kind of ending of these prompts.
        words: None takes `generic_words(model)`, of which those that the tokenizer does not know are left out.

    Raises:
        ValueError: given words that the tokenizer does not know, or of which none is one token.
    """
    asked = generic_words(model) if words is None else words
    of_ending: dict[tuple[str, str], tuple[int, ...]] = {}
    endings = []
    for fact, p in items:
        prompt = fact.prompts[p]
        last = prompt[-1] if not prompt[-1].isalnum() or WITHOUT_SPACES.match(prompt[-1]) else "a"
        space = facts.written(fact, prompt, "")
        endings.append((space, last))
        if endings[-1] not in of_ending:
            of_ending[endings[-1]] = _one_token(model, [(prompt, space + word) for word in asked], words is None)
    forms = list(dict.fromkeys(of_ending.values()))
    ids = sorted(set().union(*forms))
    if words is not None and not ids:
        raise ValueError(f"none of the generic words {list(words)!r} is one token of {model.name!r}")
    return GenericTokens(
        torch.tensor(ids, dtype=torch.long),
        np.array([forms.index(of_ending[ending]) for ending in endings]),
        np.array([np.isin(ids, form) for form in forms]).reshape(len(forms), len(ids)),
    )


def _one_token(model: Model, asked: Sequence[tuple[str, str]], leave_out: bool) -> tuple[int, ...]:
    """The tokens of the (prompt, word) pairs whose word is one token; unknown words may be left out."""
    try:
        answers = encode_answers(model, asked)  # much faster for all at once
    except ValueError:
        if not leave_out:
            raise
        answers = [tokens for pair in asked for tokens in _if_known(model, pair)]
    return tuple(sorted({tokens[0] for tokens in answers if len(tokens) == 1}))


def _if_known(model: Model, pair: tuple[str, str]) -> list[list[int]]:
    """The tokens of one (prompt, answer), in a list that is empty if the tokenizer does not know the answer."""
    try:
        return encode_answers(model, [pair])
    except ValueError:
        return []


def answer_words(model: Model, words: Sequence[str]) -> tuple[str, ...]:
    """The words that are one token of the model in the middle of a text, in lower case or else capitalised.

    Example:
        >>> li.counts.answer_words(model, ["the", "of", "a"])
    """
    kept = []
    for word in words:
        for written in (word, word.capitalize()):
            if any(len(tokens) == 1 for tokens in _if_known(model, ("a", f" {written}"))):
                kept.append(written)
                break
    return tuple(kept)
