"""Why does the edit change accuracy? Three explanations, each with the numbers for or against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from laser_interp.statistics.mechanism import explain
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer


@dataclass(frozen=True)
class Reasons(Answer):
    """What `li.explain` says of the edit and its controls."""

    key: ClassVar[str] = "mechanism"
    title: ClassVar[str] = "Why it changes"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        if context.task.rule != "next_token":
            return None
        found = explain(context.scores, seed=context.settings.study_seed)
        parts = {"masked_base": found.masked_base, "with_masks": found.with_masks}
        parts |= {"among_answers": found.among_answers, "zeroed": found.zeroed}
        numbers = {
            **{name: {"change": part.change, "lo": part.lo, "hi": part.hi} for name, part in parts.items() if part},
            "p_generic": list(found.p_generic),
            "masked_loss": list(found.masked_loss),
            "chance": found.chance,
            "suppression": found.suppression,
            "rivals": found.rivals,
            "low_rank_matters": found.low_rank_matters,
            "in_words": found.sentences(),
        }
        return cls({}, {"mechanism": numbers})

    def lines(self) -> Sequence[str]:
        *numbers, verdict = self.numbers["mechanism"]["in_words"]
        return [*(f"- {line}" for line in numbers), "", f"**{verdict}**"]

    def page_words(self) -> Sequence[str]:
        return self.numbers["mechanism"]["in_words"][-1:]
