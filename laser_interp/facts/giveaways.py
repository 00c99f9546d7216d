"""Facts whose subject gives its answer away: "Bank of Canada" and "Canada"."""

import re
from collections.abc import Iterable

from laser_interp.facts.fact_set import FactSet

_STEM = 4  # letters that a word and an answer have to share at their beginning


def gives_away(subject: str, answers: Iterable[str]) -> bool:
    """Whether a subject names one of its answers, or a word of the same stem ("Canadian" and "Canada").

    The stem of an answer's word is the word without its last two letters, but at least its first four letters.

    Example:
        >>> gives_away("Canadian Football League", ["Canada"]), gives_away("Grey Cup", ["Canada"])
        (True, False)
    """
    there = re.findall(r"\w+", subject.casefold())
    return any(word.startswith(stem) for answer in answers for stem in _stems(answer) for word in there)


def giveaways(facts: FactSet) -> frozenset[str]:
    """Ids of the facts whose subject gives the answer away."""
    return frozenset(fact.fact_id for fact in facts if gives_away(fact.subject, (fact.object, *fact.aliases)))


def _stems(answer: str) -> list[str]:
    words = re.findall(r"\w+", answer.casefold())
    # Of several words, short ones such as "of" and "the" give nothing away.
    telling = [word for word in words if len(word) >= _STEM] or words
    return [word[: max(_STEM, len(word) - 2)] for word in telling]
