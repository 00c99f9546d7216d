"""How well a model predicts running text: perplexity, with and without an edit."""

from contextlib import nullcontext

import numpy as np

from laser_interp.choices import whole_number
from laser_interp.edits.edit import Edit
from laser_interp.models.forward import logits_at
from laser_interp.models.model import Model
from laser_interp.models.tokens import tokenise


def check_text(model: Model, text: str) -> list[int]:
    """A running text's token ids.

    Raises:
        ValueError: a masked model, or a text of fewer than two tokens.
    """
    if model.masked:
        raise ValueError(f"{model.name!r} is a masked language model: it has no perplexity, so leave the text out")
    (ids,) = tokenise(model, [text]) if text.strip() else ([],)
    if len(ids) < 2:
        raise ValueError(f"the text has {len(ids)} tokens: at least two are needed")
    return ids


def perplexity(
    model: Model, text: str, edit: Edit | None = None, *, window: int | None = None, stride: int = 512
) -> dict[str, float]:
    """exp of the mean negative log p of a text's tokens, in windows that overlap by all but `stride` tokens.

    Each token but the first is predicted once, from at least `window − stride` tokens before it where there are so
    many. If the tokenizer adds a token before a text, as Llama's does, the first token is that one.

    Args:
        window: tokens; None takes the model's positions, at most 2048.
        stride: tokens; more than `window − 1` count as `window − 1`.

    Returns:
        `perplexity`, `loss` (nats a token) and `n_tokens`.

    Raises:
        ValueError: a masked model, a text or a window of fewer than two tokens, or a stride below 1.

    Example:
        >>> li.perplexity(model, "Mira Tolen was taught by the river", laser)
    """
    ids = check_text(model, text)
    if window is not None:
        whole_number("window", window, at_least=2, more="more tokens")
    longest = min(window or 2048, model.max_positions or 2048)
    stride = min(whole_number("stride", stride, at_least=1, more="more tokens"), longest - 1)
    total, n = 0.0, 0
    with edit.on(model) if edit is not None else nullcontext():
        predicted = 1
        while predicted < len(ids):
            stop = min(max(predicted + stride, min(longest, len(ids))), len(ids))
            start = max(stop - longest, 0)
            row = ids[start:stop]
            positions = [i - 1 - start for i in range(predicted, stop)]
            for indices, logits in logits_at(model, [row], [(0, position) for position in positions]):
                logprobs = logits.log_softmax(-1)
                wanted = [row[positions[i] + 1] for i in indices]
                total -= float(logprobs[range(len(wanted)), wanted].cpu().double().sum())
            n += stop - predicted
            predicted = stop
    return {"perplexity": float(np.exp(total / n)), "loss": total / n, "n_tokens": float(n)}
