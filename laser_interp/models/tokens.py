"""Text to token ids: prompts, answers as they stand after them, and the tokens of a part of a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import regex

from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.separators import WITHOUT_SPACES, separator_of
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.weights import derived

_KEPT_ANSWERS = 200_000  # tokenised (prompt, answer) pairs, about 300 bytes each

Read = tuple[list[int], int]  # token ids, and a position in them
Lookup = tuple[list[int], int, int]  # token ids, a position in them, and the token that is looked up there


def encode_all(model: LoadedModel, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of several prompts. A tokenizer takes a fifth of the time for each if it is called once for all."""
    rows = tokenise(model, prompts)
    for prompt, ids in zip(prompts, rows, strict=True):
        if not ids:
            raise ValueError(f"the prompt {prompt!r} has no tokens: it must not be empty")
        _check_ids(model, ids, prompt)
    return rows


def tokenise(model: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    """Token ids as the tokenizer's own call gives them, but never a token after the text of a causal model, which would
    read on from it, and never two BOS tokens, where the text begins with one and the tokenizer adds another."""
    if not texts:
        return []
    rows = [list(ids) for ids in model.tokenizer(list(texts))["input_ids"]]
    return [ids[_doubled_bos(model, ids) : len(ids) - _n_appended(model)] for ids in rows]


def _doubled_bos(model: LoadedModel, ids: Sequence[int]) -> int:
    """How many BOS tokens at the beginning are too many."""
    bos = getattr(model.tokenizer, "bos_token_id", None)
    if bos is None or ids[:2] != [bos, bos] or list(model.tokenizer("")["input_ids"][:1]) != [bos]:
        return 0
    return next((i for i, token in enumerate(ids) if token != bos), len(ids)) - 1


def _n_appended(model: LoadedModel) -> int:
    """How many tokens the tokenizer puts after every text; a masked model is read inside its text, and keeps them."""
    if model.masked:
        return 0
    known = _of_tokenizer(model)
    if "appended" not in known:
        whole, alone = (list(model.tokenizer("1", **more)["input_ids"]) for more in ({}, {"add_special_tokens": False}))
        at = next((i for i in range(len(whole)) if whole[i : i + len(alone)] == alone), 0)
        known["appended"] = max(len(whole) - at - len(alone), 0) if alone else 0
    return known["appended"]


def questions(model: LoadedModel, prompts: Sequence[str]) -> list[Read]:
    """Where each prompt's next token is read: its token ids, and a position in them.

    A causal model is read at the prompt's last token. A masked one is read at its mask: a prompt may hold the
    tokenizer's mask token where the answer belongs. Otherwise `<mask>.` is appended, as the paper did for RoBERTa.

    Raises:
        ValueError: an empty or too long prompt, or one with several masks.
    """
    if not model.masked:
        return [(row, len(row) - 1) for row in encode_all(model, prompts)]
    rows = encode_all(model, [_with_mask(model, prompt, separator_of(prompt)) for prompt in prompts])
    return [(row, row.index(model.tokenizer.mask_token_id)) for row in rows]


def _with_mask(model: LoadedModel, prompt: str, separator: str) -> str:
    """A masked model's prompt, with one mask where the answer belongs."""
    mask = model.tokenizer.mask_token
    if prompt.count(mask) > 1:
        raise ValueError(f"the prompt {prompt!r} has several {mask}: one stands for the whole answer")
    if not prompt.strip():
        raise ValueError(f"the prompt {prompt!r} has no tokens: it must not be empty")
    return prompt if mask in prompt else f"{prompt}{separator}{mask}."


@dataclass(frozen=True)
class Asked:
    """What to read for one prompt.

    Attributes:
        read: where its answer begins.
        lookups: of each continuation, (token ids, position, token) triples. The continuation's log-probability is the
            sum over its triples of the token's log-probability at the position, teacher-forced from left to right.
    """

    read: Read
    lookups: list[list[Lookup]]


def ask(model: LoadedModel, items: Sequence[tuple[str, Sequence[str], int]]) -> list[Asked]:
    """What to read for the probability of each continuation of each prompt.

    Prompt and continuation are tokenised together. In a causal model, the tokens that they share with the prompt alone
    are the prompt, and the others are the continuation. Where a prompt ends in a blank that becomes a part of the next
    word's token, the answer therefore begins before this blank. All continuations of a prompt begin where its right
    answers do, so that they can be compared. A masked model gets as many masks as the answer has tokens; to read one
    token of the answer, the masks before it are filled in.

    Args:
        items: (prompt, continuations, how many of the first continuations are right). A continuation is the exact text
            that follows, with the space before it where there is one.

    Raises:
        ValueError: the tokenizer cannot represent a continuation, or prompt and answer are too long.
    """
    pairs = [(prompt, text) for prompt, texts, _ in items for text in texts]
    tokens = iter(_continued(model, pairs))
    framed = [(prompt, _separator(model, texts[0])) for prompt, texts, _ in items]
    alone = _alone(model, framed)
    asked = []
    for (_, texts, n_right), key in zip(items, framed, strict=True):
        row = alone[key]
        own = [next(tokens) for _ in texts]
        if model.masked:
            asked.append(_at_mask(model, row, [ids for _, ids in own]))
            continue
        begin = min(start for start, _ in own[:n_right])
        lookups = []
        for text, (start, ids) in zip(texts, own, strict=True):
            # What does not begin with the tokens before the right answer is tokenised without the prompt
            added = row[begin:start] + ids if start >= begin else _without_prompt(model, text)
            whole = row[:begin] + added[:-1]
            lookups.append([(whole, begin - 1 + j, token) for j, token in enumerate(added)])
        asked.append(Asked((row[:begin], begin - 1), lookups))
    return asked


def _at_mask(model: LoadedModel, row: list[int], continuations: Sequence[list[int]]) -> Asked:
    mask = model.tokenizer.mask_token_id
    at = row.index(mask)
    lookups = []
    for tokens in continuations:
        filled = [row[:at] + tokens[:j] + [mask] * (len(tokens) - j) + row[at + 1 :] for j in range(len(tokens))]
        lookups.append([(filled[j], at + j, token) for j, token in enumerate(tokens)])
    return Asked((row, at), lookups)


def ask_facts(model: LoadedModel, facts: FactSet) -> list[Asked]:
    """What to read for the right answer after each prompt of each fact, in order."""
    items = [(prompt, [facts.written(fact, prompt, fact.object)], 1) for fact in facts for prompt in fact.prompts]
    return ask(model, items)


def encode_answers(model: LoadedModel, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Token ids of each (prompt, continuation)'s continuation, as it stands in or after its prompt; see `ask`.

    Equal pairs are tokenised once, also when they come in a later call.

    Raises:
        ValueError: the tokenizer cannot represent a continuation, or prompt and continuation are too long.
    """
    return [ids for _, ids in _continued(model, pairs)]


def _continued(model: LoadedModel, pairs: Sequence[tuple[str, str]]) -> list[tuple[int, list[int]]]:
    """Of each (prompt, continuation): how many of the prompt's own tokens stand before it, and its tokens."""
    known = _of_tokenizer(model)
    unknown = [pair for pair in dict.fromkeys(pairs) if pair not in known]
    encoded = _encode_answers(model, unknown) if unknown else {}
    if len(known) + len(encoded) <= _KEPT_ANSWERS:
        known |= encoded
    return [known[pair] if pair in known else encoded[pair] for pair in pairs]


def _of_tokenizer(model: LoadedModel) -> dict[Any, Any]:
    """What it has encoded, as long as it is the same with as many tokens: (prompt, continuation) -> how many of the
    prompt's tokens stand before, and the others."""
    size = len(model.tokenizer) if hasattr(model.tokenizer, "__len__") else 0
    return derived(model, ("encoded", model.tokenizer, size), dict)


def _separator(model: LoadedModel, text: str) -> str:
    """The space before a continuation, which stands before a masked model's mask too."""
    return " " if model.masked and text[:1] == " " else ""


def _alone(model: LoadedModel, framed: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[int]]:
    """The tokens of prompts without an answer; a masked model's with its mask, by (prompt, space before the mask)."""
    unique = list(dict.fromkeys(framed))
    texts = [_with_mask(model, prompt, space) if model.masked else prompt for prompt, space in unique]
    return dict(zip(unique, encode_all(model, texts), strict=True))


def _encode_answers(model: LoadedModel, unique: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, list[int]]]:
    """The tokens of different (prompt, continuation) pairs; see `_continued`."""
    framed = [(prompt, _separator(model, text)) for prompt, text in unique]
    alone = _alone(model, framed)
    if model.masked:
        mask = model.tokenizer.mask_token
        joined = [
            _with_mask(model, prompt, space).replace(mask, text.removeprefix(space))
            for (prompt, space), (_, text) in zip(framed, unique, strict=True)
        ]
    else:
        joined = [prompt + text for prompt, text in unique]
    unknown = model.tokenizer.unk_token_id
    encoded = {}
    for pair, key, text, whole in zip(unique, framed, joined, tokenise(model, joined), strict=True):
        start, ids = _added(model, alone[key], whole, pair[1])
        # Some tokenizers name a real token as their unknown one (GPT-2's end of text).
        if not ids or (unknown is not None and unknown in ids and model.tokenizer.unk_token not in pair[1]):
            raise ValueError(
                f"the answer {pair[1].strip()!r} cannot be written with the tokenizer of {model.name!r} "
                f"(it becomes {model.tokenizer.convert_ids_to_tokens(ids)}): expected words of its vocabulary"
            )
        _check_ids(model, whole, text)
        encoded[pair] = start, ids
    return encoded


def _added(model: LoadedModel, alone: list[int], whole: list[int], text: str) -> tuple[int, list[int]]:
    """How many of the prompt's tokens `whole` begins with, and its others; of a masked model, those at the mask."""
    if model.masked:
        at = alone.index(model.tokenizer.mask_token_id)
        rest = alone[at + 1 :]
        if whole[:at] == alone[:at] and whole[len(whole) - len(rest) :] == rest:
            return at, whole[at : len(whole) - len(rest)]
        return at, _without_prompt(model, text)  # the mask's neighbours became a part of the answer's tokens
    start = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), min(len(alone), len(whole)))
    if start == 0 or alone[:start] == [getattr(model.tokenizer, "bos_token_id", None)]:
        return len(alone), _without_prompt(model, text)  # nothing of the prompt would be left to read
    return start, whole[start:]


def _without_prompt(model: LoadedModel, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def _check_ids(model: LoadedModel, ids: Sequence[int], text: str) -> None:
    if model.max_positions is not None and len(ids) > model.max_positions:
        raise ValueError(
            f"{text[:60]!r} has {len(ids)} tokens, and {model.name!r} has {model.max_positions} positions: shorten it"
        )
    if ids and max(ids) >= model.d_vocab:
        raise ValueError(
            f"{text[:60]!r} has the token {max(ids)}, and {model.name!r} knows tokens 0 to {model.d_vocab - 1}: the "
            "tokenizer belongs to another model"
        )


_IN_WORD = regex.compile(r"[\p{L}\p{N}\p{M}_]")


def _cuts_a_word(text: str, start: int, stop: int) -> bool:
    """Whether a part of a text begins or ends inside a word."""

    def joined(at: int) -> bool:
        pair = text[at - 1 : at + 1]
        return 0 < at < len(text) and all(_IN_WORD.match(c) and not WITHOUT_SPACES.match(c) for c in pair)

    return joined(start) or joined(stop)


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
    text = _with_mask(model, prompt, separator_of(prompt)) if model.masked else prompt
    encoded = model.tokenizer(text, return_offsets_mapping=True)
    spans = encoded["offset_mapping"][_doubled_bos(model, list(encoded["input_ids"])) :]
    inside = [i for i, (a, b) in enumerate(spans) if a < b and a < start + len(part) and b > start]
    # A token may hold the space before the word and nothing of it.
    return [i for i in inside if text[spans[i][0] : spans[i][1]].strip()] or inside
