"""A task: facts, and the rule by which an answer counts as right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from laser_interp.choices import AnswerRule, Protocol, check_choice
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.files import Rows, load_facts


@dataclass(frozen=True)
class Task:
    """Facts, and the rule by which an answer counts as right.

    Attributes:
        name: of the set.
        facts: one fact a question; `candidates` are its labels or choices, `aliases` other right answers.
        rule: the name of the rule; see `laser_interp.scoring.answer_rules`.
        protocol: "corrected", or "paper" for the published rule with its faults.
        dropped: why -> how many rows were left out.
        title, licence, citation: of the set.
        max_new_tokens: how many tokens are generated, for the rule "generation".
    """

    name: str
    facts: FactSet
    rule: AnswerRule = "next_token"
    protocol: Protocol = "corrected"
    dropped: Mapping[str, int] = field(default_factory=dict)
    title: str = ""
    licence: str = ""
    citation: str = ""
    max_new_tokens: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", facts_of(self.facts))
        check_choice("rule", self.rule, AnswerRule)
        check_choice("protocol", self.protocol, Protocol)

    def keep(self, facts: FactSet) -> Task:
        """The same task on other facts."""
        return replace(self, facts=facts)

    def __str__(self) -> str:
        parts = [f"{self.name}: {len(self.facts)} facts, scored by {self.rule} ({self.protocol})"]
        if self.dropped:
            parts.append("; dropped: " + ", ".join(f"{n} {why}" for why, n in self.dropped.items()))
        if self.title:
            parts.append(f". {self.title}. Licence: {self.licence}. {self.citation}")
        return "".join(parts)


AnyFacts = FactSet | Task | str | Path | Rows  # facts, and all that `li.load_facts` makes facts of


def facts_of(source: AnyFacts) -> FactSet:
    """The facts of a task, or those that `li.load_facts` makes of a name, a file, a frame or a list."""
    return source.facts if isinstance(source, Task) else load_facts(source)


def task_of(source: AnyFacts) -> Task:
    """A task, or facts as a task of the next token."""
    return source if isinstance(source, Task) else own_task(source)


def own_task(source: Any, rule: AnswerRule = "next_token", *, max_new_tokens: int = 10) -> Task:
    """Your own facts as a task.

    Args:
        source: a `FactSet`, or what `li.load_facts` takes.
        rule: "next_token": the answer is what the model says next. "candidates": the most probable of a fact's
            `candidates`, or of the answers of its relation, is right. "truths": as "candidates", and the `aliases` are
            true choices too. "generation": the answer occurs in the text that the model generates.
        max_new_tokens: how many tokens are generated, for the rule "generation".

    Raises:
        ValueError: another rule, or facts that `li.load_facts` refuses.

    Example:
        >>> task = li.tasks.own_task("organism", "candidates")
    """
    facts = load_facts(source)
    return Task(facts.name, facts, rule, max_new_tokens=max_new_tokens)
