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
    ids: set[int] = set()
    for word in generic_words(model) if words is None else words:
        try:
            (tokens,) = encode_answers(model, [(prompt, word)])
        except ValueError:
            if words is not None:
                raise
            continue
        if len(tokens) == 1:
            ids.add(tokens[0])
    if words is not None and not ids:
        raise ValueError(f"none of the generic words {list(words)!r} is one token of {model.name!r}")
    return torch.tensor(sorted(ids), dtype=torch.long)


def answer_words(model: Model, words: Sequence[str]) -> tuple[str, ...]:
    """The words that are one token of the model in the middle of a text, in lower case or else capitalised.

    Example:
        >>> li.answer_words(model, ["the", "of", "a"])
    """
    kept = []
    for word in words:
        for written in (word, word.capitalize()):
            try:
                (tokens,) = encode_answers(model, [("a", written)])
            except ValueError:  # not in its vocabulary
                continue
            if len(tokens) == 1:
                kept.append(written)
                break
    return tuple(kept)
