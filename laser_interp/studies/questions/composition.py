"""Do several edits together help more than one?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import pandas as pd

from laser_interp.plots.names import plain_name
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable
from laser_interp.studies.questions.controls import change_numbers


@dataclass(frozen=True)
class SeveralEdits(Answer):
    """The edits that validation kept, step by step, and their test scores beside those of the single edit."""

    schemas: ClassVar[Mapping[str, str]] = {"composition": "steps", "composed_test": "scores"}
    key: ClassVar[str] = "composed"
    title: ClassVar[str] = "Several edits together"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        wanted = context.settings.compose
        if not (context.task.rule == "next_token" if wanted is None else wanted):
            return None
        found = context.composition
        tables = {"composition": found.steps, "composition_scores": found.scores}
        if found.spec is None:
            return cls(tables, {"composed": {"edit": None}})
        single = context.scores[context.scores["edit"] == "laser"]
        both = pd.concat([context.scores, found.test])
        numbers = {
            "edit": str(found),
            "accuracy": float(found.test["correct"].mean()),
            "top1": float(found.test["top1"].mean()),
            "loss": -float(found.test["logprob"].mean()),
            "single_accuracy": float(single["correct"].mean()),
            "over_one": change_numbers(both, context.settings.study_seed, "laser", "composed"),
        }
        return cls(tables | {"composed_test": found.test}, {"composed": numbers})

    def lines(self) -> Sequence[str]:
        composed = self.numbers["composed"]
        if composed["edit"] is None:
            return ["Composition keeps no edit, because none improves validation."]
        return [
            f"Composition, chosen on validation, keeps `{composed['edit']}` and reaches {composed['accuracy']:.3f} on "
            f"test, where the single edit reaches {composed['single_accuracy']:.3f}. Compared with the single edit, "
            f"{composed['over_one']['in_words']}."
        ]

    def page_tables(self) -> Sequence[PageTable]:
        rows = self.tables["composition_scores"].to_dict("records")
        return [
            PageTable(
                "composition",
                "Several edits together",
                "Mean score and loss of the model as trained, and of the model with all edits that validation kept.",
                ("edits", "split", "score", "loss", "prompts"),
                [(plain_name(row["edit"]), row["split"], row["score"], row["loss"], row["n"]) for row in rows],
            )
        ]
