"""Other ways to ask the same facts: solved examples before the prompt, a chat template, or any text before it.

A better prompt is the strongest control of an edit: what it reaches without an edit needs no edit (docs/mechanism.md).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from laser_interp.choices import check_seed, whole_number

_SHORT = 3  # characters; "1" is in many texts

if TYPE_CHECKING:
    from laser_interp.facts.fact_set import Fact, FactSet


def with_prefix(facts: FactSet, text: str) -> FactSet:
    """A text before every prompt, as it stands.

    Args:
        text: for example an instruction, or the tokenizer's first token, written out.

    Example:
        >>> facts.with_prefix("Answer in one word. ")[0].prompt
        'Answer in one word. Mira Tolen was taught by'
    """
    return _asked(facts, lambda fact, prompt: text + prompt)


def with_examples(
    facts: FactSet, n: int = 3, *, from_split: str = "validation", seed: int = 0, source: FactSet | None = None
) -> FactSet:
    """n solved facts of the same relation before every prompt, each on a line of its own.

    An example has another subject and another answer, and neither the asked subject nor any right answer stands in it.
    Where a relation has only a few answers, as "true" and "false", this tells what the answer is: ask such facts in
    another way.
    All facts of a relation take their examples from one random order, so that most of them begin alike. The same set is
    asked of the model as trained and of every edit.

    Args:
        from_split: the split that examples are taken from; a set without splits is its own source.
        seed: of the order.
        source: facts that examples are taken from, instead of a split of these.

    Raises:
        ValueError: a relation has too few facts for n examples.

    Example:
        >>> print(facts.with_examples(1).split("test")[0].prompt)
    """
    whole_number("n", n, at_least=1, more="more examples")
    check_seed("seed", seed)
    if source is None:
        source = facts.split(from_split) if facts.splits else facts
    before = examples_of(facts, n, seed=seed, source=source)
    for fact in facts:
        if (found := len(before[fact.fact_id])) < n:
            raise ValueError(
                f"fact {fact.fact_id!r} has {found} examples of its relation {fact.relation!r} with another subject "
                f"and answer: {n} are asked for"
            )
    return _asked(facts, lambda fact, prompt: "".join(f"{text}\n" for text in before[fact.fact_id]) + prompt)


def examples_of(facts: FactSet, n: int, *, seed: int, source: FactSet) -> dict[str, list[str]]:
    """The examples that stand before each fact, by its id: n of them, or as many as there are."""
    of_relation: dict[str, list[tuple[str, str, str]]] = {}
    for fact in source:
        text = fact.prompt + facts.written(fact, fact.prompt, fact.object)
        of_relation.setdefault(fact.relation, []).append((fact.subject, text, text.casefold()))
    for relation, solved in of_relation.items():
        random.Random(f"{seed} {relation}").shuffle(solved)
    out = {}
    for fact in facts:
        names = [text.casefold() for text in (fact.subject, *fact.subject_aliases, fact.object, *fact.aliases)]
        fitting = (
            text
            for subject, text, folded in of_relation.get(fact.relation, ())
            if subject != fact.subject and not any(_stands_in(name, folded) for name in names)
        )
        out[fact.fact_id] = list(islice(fitting, n))
    return out


def as_chat(facts: FactSet, tokenizer: Any) -> FactSet:
    """Every prompt as a user's message in the tokenizer's chat template; the answer is the assistant's.

    Raises:
        ValueError: the tokenizer has no chat template, or it fails.

    Example:
        >>> facts.as_chat(model.tokenizer)  # doctest: +SKIP
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError("the tokenizer has no chat template: the model was not trained to chat")

    def chat(fact: Fact, prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        try:
            text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates are programs, and raise many kinds
            raise ValueError(f"the tokenizer's chat template fails on one message: {error}") from error
        first = tokenizer.bos_token
        adds_it = bool(first) and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        return text.removeprefix(first) if adds_it else text  # it is not written twice

    return _asked(facts, chat)


def _stands_in(name: str, text: str) -> bool:
    """Whether a name is in a text; one of a few letters only as a word of its own."""
    if len(name) > _SHORT:
        return name in text
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _asked(facts: FactSet, rule: Callable[[Fact, str], str]) -> FactSet:
    return facts.keep(
        replace(fact, prompt=rule(fact, fact.prompt), paraphrases=tuple(rule(fact, p) for p in fact.paraphrases))
        for fact in facts
    )
