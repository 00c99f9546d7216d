"""Text to token ids: prompts, answers as they stand after them, and the tokens of a part of a prompt."""

from collections.abc import Sequence

import regex

from laser_interp.models.loaded_model import LoadedModel

_KEPT_ANSWERS = 200_000  # tokenised (prompt, answer) pairs, about 300 bytes each


def encode(model: LoadedModel, prompt: str) -> list[int]:
    """See `Model.encode`."""
    return _encode_all(model, [prompt])[0]


def _encode_all(model: LoadedModel, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of several prompts. A tokenizer takes a fifth of the time for each if it is called once for all."""
    rows = [list(ids) for ids in model.tokenizer(list(prompts))["input_ids"]] if prompts else []
    for prompt, ids in zip(prompts, rows, strict=True):
        if not ids:
            raise ValueError(f"the prompt {prompt!r} has no tokens: it must not be empty")
        _check_length(model, ids, prompt)
        _check_ids(model, ids, prompt)
    return rows


def questions(model: LoadedModel, prompts: Sequence[str]) -> list[tuple[list[int], int]]:
    """Where each prompt's next token is read: its token ids, and a position in them.

    A causal model is read at the prompt's last token. A masked one is read at its mask: a prompt may hold the
    tokenizer's mask token where the answer belongs. Otherwise `<mask>.` is appended, as the paper did for RoBERTa.

    Raises:
        ValueError: an empty or too long prompt, or one with several masks.
    """
    if not model.masked:
        return [(row, len(row) - 1) for row in _encode_all(model, prompts)]
    rows = _encode_all(model, [_with_mask(model, prompt) for prompt in prompts])
    return [(row, row.index(model.tokenizer.mask_token_id)) for row in rows]


def _with_mask(model: LoadedModel, prompt: str) -> str:
    """A masked model's prompt, with one mask where the answer belongs."""
    mask = model.tokenizer.mask_token
    if prompt.count(mask) > 1:
        raise ValueError(f"the prompt {prompt!r} has several {mask}: one stands for the whole answer")
    if not prompt.strip():
        raise ValueError(f"the prompt {prompt!r} has no tokens: it must not be empty")
    return prompt if mask in prompt else f"{prompt} {mask}."


def lookups(model: LoadedModel, pairs: Sequence[tuple[str, str]]) -> list[list[tuple[list[int], int, int]]]:
    """What to read for the probability of each (prompt, answer): (token ids, position, token) triples.

    The log-probability of the answer is the sum over its triples of the token's log-probability at the position,
    that is, teacher-forced from left to right. A masked model gets as many masks as the answer has tokens. To read one
    token of the answer, the masks before it are filled in.

    Raises:
        ValueError: see `encode_answers`.
    """
    answers = encode_answers(model, pairs)
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    asked = dict(zip(prompts, questions(model, prompts), strict=True))
    triples = []
    for (prompt, _), tokens in zip(pairs, answers, strict=True):
        row, at = asked[prompt]
        if model.masked:
            masks = [model.tokenizer.mask_token_id] * len(tokens)
            filled = [row[:at] + tokens[:j] + masks[j:] + row[at + 1 :] for j in range(len(tokens))]
            triples.append([(filled[j], at + j, token) for j, token in enumerate(tokens)])
        else:
            whole = row + tokens[:-1]
            triples.append([(whole, at + j, token) for j, token in enumerate(tokens)])
    return triples


def encode_answers(model: LoadedModel, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Token ids of each (prompt, answer)'s answer, as it stands in or after its prompt.

    The space between them is not guessed. Prompt and answer are tokenised together, and the tokens that the answer
    adds to the prompt's own are the answer's. Equal pairs are tokenised once, also when they come in a later call.

    Raises:
        ValueError: the tokenizer cannot represent an answer, or prompt and answer are too long.
    """
    known = _known_answers(model)
    unknown = [pair for pair in dict.fromkeys(pairs) if pair not in known]
    encoded = _encode_answers(model, unknown) if unknown else {}
    if len(known) + len(encoded) <= _KEPT_ANSWERS:
        known |= encoded
    return [known[pair] if pair in known else encoded[pair] for pair in pairs]


def _known_answers(model: LoadedModel) -> dict[tuple[str, str], list[int]]:
    """The tokens of the pairs that were encoded before, by the same tokenizer with as many tokens."""
    tokenizer = model.tokenizer
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else 0
    kept_by, kept_size, known = model._state.answer_tokens
    if kept_by is not tokenizer or kept_size != size:
        known = {}
        model._state.answer_tokens = tokenizer, size, known
    return known


def _encode_answers(model: LoadedModel, unique: list[tuple[str, str]]) -> dict[tuple[str, str], list[int]]:
    """The tokens of different (prompt, answer) pairs; see `encode_answers`."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in unique))
    if model.masked:
        texts = {prompt: _with_mask(model, prompt) for prompt in prompts}
        joined = [texts[prompt].replace(model.tokenizer.mask_token, answer) for prompt, answer in unique]
    else:
        texts = {prompt: prompt for prompt in prompts}
        joined = [
            prompt + ("" if prompt[-1:].isspace() or answer[:1].isspace() else " ") + answer
            for prompt, answer in unique
        ]
    alone = dict(zip(prompts, model.tokenizer([texts[prompt] for prompt in prompts])["input_ids"], strict=True))
    both = model.tokenizer(joined)["input_ids"]
    unknown = model.tokenizer.unk_token_id
    encoded = {}
    for (prompt, answer), text, whole in zip(unique, joined, both, strict=True):
        ids = _added(model, alone[prompt], whole, answer)
        # Some tokenizers name a real token as their unknown one (GPT-2's end of text).
        if not ids or (unknown is not None and unknown in ids and model.tokenizer.unk_token not in answer):
            raise ValueError(
                f"the answer {answer!r} cannot be written with the tokenizer of {model.name!r} "
                f"(it becomes {model.tokenizer.convert_ids_to_tokens(ids)}): expected words of its vocabulary"
            )
        _check_length(model, whole, text)
        _check_ids(model, whole, text)
        encoded[prompt, answer] = ids
    return encoded


def _added(model: LoadedModel, alone: list[int], whole: list[int], answer: str) -> list[int]:
    """The tokens of `whole` that `alone` (the prompt, for a masked model with its mask) has not."""
    at = alone.index(model.tokenizer.mask_token_id) if model.masked else len(alone)
    rest = alone[at + 1 :]
    if whole[:at] == alone[:at] and whole[len(whole) - len(rest) :] == rest:
        return list(whole[at : len(whole) - len(rest)])
    # Prompt and answer merged into one token, or special tokens follow the prompt: the answer is tokenised alone.
    return list(model.tokenizer(" " + answer, add_special_tokens=False)["input_ids"])


def _check_length(model: LoadedModel, ids: Sequence[int], text: str) -> None:
    if model.max_positions is not None and len(ids) > model.max_positions:
        raise ValueError(
            f"{text[:60]!r} has {len(ids)} tokens, and {model.name!r} has {model.max_positions} positions: shorten it"
        )


# Scripts that set no spaces between words, where a name may stand beside any letter.
_WITHOUT_SPACES = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]")
_IN_WORD = regex.compile(r"[\p{L}\p{N}\p{M}_]")


def _cuts_a_word(text: str, start: int, stop: int) -> bool:
    """Whether a part of a text begins or ends inside a word."""

    def joined(at: int) -> bool:
        pair = text[at - 1 : at + 1]
        return 0 < at < len(text) and all(_IN_WORD.match(c) and not _WITHOUT_SPACES.match(c) for c in pair)

    return joined(start) or joined(stop)


def _check_ids(model: LoadedModel, ids: Sequence[int], text: str) -> None:
    if ids and max(ids) >= model.d_vocab:
        raise ValueError(
            f"{text[:60]!r} has the token {max(ids)}, and {model.name!r} knows tokens 0 to {model.d_vocab - 1}: the "
            "tokenizer belongs to another model"
        )


def tokens_of_part(model: LoadedModel, prompt: str, part: str) -> list[int]:
    """Positions, in the prompt's token ids, of the tokens that hold a part of its text (its last occurrence).

    A part of a word is no occurrence: "Al" is not in "Alma". Scripts without spaces between words are excepted.

    Raises:
        ValueError: the prompt does not hold it, or the tokenizer cannot tell.
    """
    start = prompt.rfind(part) if part else -1
    while start >= 0 and _cuts_a_word(prompt, start, start + len(part)):
        start = prompt.rfind(part, 0, start + len(part) - 1)
    if start < 0:
        raise ValueError(f"the prompt {prompt!r} does not hold the subject {part!r} as whole words")
    if not model.tokenizer.is_fast:
        raise ValueError(f"the tokenizer of {model.name!r} cannot tell which token holds which letters: use 'last'")
    text = _with_mask(model, prompt) if model.masked else prompt
    spans = model.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    inside = [i for i, (a, b) in enumerate(spans) if a < b and a < start + len(part) and b > start]
    # A token may hold the space before the word and nothing of it.
    return [i for i in inside if text[spans[i][0] : spans[i][1]].strip()] or inside
