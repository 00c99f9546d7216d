"""Words that fit any sentence, and their tokens when they are answers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laser_interp.models.model import Model
from laser_interp.models.tokens import encode_answers


def generic_words(model: Model) -> tuple[str, ...]:
    """Words that fit any sentence: those shipped with the model, else scikit-learn's English stop words."""
    if model.generic_words is not None:
        return model.generic_words
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return tuple(sorted(ENGLISH_STOP_WORDS))


def generic_tokens(model: Model, prompt: str, words: Sequence[str] | None) -> Tensor:
    """Sorted token ids of the generic words that are one token when they are an answer.

    Args:
        prompt: the words are tokenised after this prompt.
        words: None takes `generic_words(model)`, of which those that the tokenizer does not know are left out.

    Raises:
        ValueError: given words that the tokenizer does not know, or of which none is one token.
    """
    asked = [(prompt, word) for word in (generic_words(model) if words is None else words)]
    try:
        answers = encode_answers(model, asked)  # much faster for all at once
    except ValueError:
        if words is not None:
            raise
        answers = [tokens for pair in asked for tokens in _if_known(model, pair)]
    ids = {tokens[0] for tokens in answers if len(tokens) == 1}
    if words is not None and not ids:
        raise ValueError(f"none of the generic words {list(words)!r} is one token of {model.name!r}")
    return torch.tensor(sorted(ids), dtype=torch.long)


def _if_known(model: Model, pair: tuple[str, str]) -> list[list[int]]:
    """The tokens of one (prompt, answer), in a list that is empty if the tokenizer does not know the answer."""
    try:
        return encode_answers(model, [pair])
    except ValueError:
        return []


def answer_words(model: Model, words: Sequence[str]) -> tuple[str, ...]:
    """The words that are one token of the model in the middle of a text, in lower case or else capitalised.

    Example:
        >>> li.answer_words(model, ["the", "of", "a"])
    """
    kept = []
    for word in words:
        for written in (word, word.capitalize()):
            if any(len(tokens) == 1 for tokens in _if_known(model, ("a", written))):
                kept.append(written)
                break
    return tuple(kept)
