"""Do several edits together help more than one? Every step on validation, which chose it, and on test."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import pandas as pd

from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.statistics.formatting import points
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable
from laser_interp.studies.questions.controls import change_numbers

_STEP = ("n_edits", "edit", "validation_score", "test_score", "validation_loss", "test_loss")


class SeveralEdits(Answer):
    """The edits that validation kept, step by step, and their test scores beside those of the single edit."""

    schemas: ClassVar[Mapping[str, str]] = {"composition": "steps", "composed_test": "scores"}
    key = "composed"
    title = "Several edits together"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        if not context.composes:
            return None
        found = context.composition
        tables = {"composition": found.steps, "composition_scores": found.scores, "composition_by_step": found.by_step}
        if found.spec is None:
            return cls(tables, {"composed": {"edit": None}})
        beside = context.scores
        beside = beside[beside["edit"] == ("laser" if context.cell == context.single else "single")]
        both = pd.concat([beside.assign(edit="single"), found.test])
        numbers = {
            "edit": str(found),
            "accuracy": float(found.test["correct"].mean()),
            "top1": float(found.test["top1"].mean()),
            "loss": -float(found.test["logprob"].mean()),
            "single_accuracy": float(beside["correct"].mean()),
            "over_one": change_numbers(both, context.settings.study_seed, "single", "composed"),
            "is_studied": context.cell == found.spec,
            "steps": found.by_step[[name for name in _STEP if name in found.by_step]].to_dict("records"),
            "by_chance": [by_chance(context, seed) for seed in range(context.settings.chance)],
        }
        return cls(tables | {"composed_test": found.test}, {"composed": numbers})

    def lines(self) -> Sequence[str]:
        composed = self.numbers["composed"]
        if composed["edit"] is None:
            return ["Composition keeps no edit, because none improves validation."]
        lines = ["| edits | validation | test | test loss |", "|---|---|---|---|"]
        for row in (*composed["steps"][:2], *composed["steps"][2:][-1:]):  # the figure shows all
            values = (row[c] for c in ("validation_score", "test_score", "test_loss"))
            lines.append(f"| {row['n_edits']} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
        studied = "It is the edit of this report" if composed["is_studied"] else "This report is of the single edit"
        text = (
            f"Validation keeps `{composed['edit']}`. Compared with the single edit, {composed['over_one']['in_words']}."
            f" {studied}."
        )
        if composed["by_chance"]:
            chance = composed["by_chance"]
            gains = ", ".join(f"{points(row['validation'])} and {points(row['test'])}" for row in chance)
            text += (
                " With answers dealt anew within each relation, the same search and composition changes the score on "
                f"validation and on test by {gains}."
            )
        if (hidden := len(composed["steps"]) - 3) > 0:
            text += f" The figure shows {hidden} more {'step' if hidden == 1 else 'steps'}."
        return [*lines, "", text]

    def page_table(self) -> PageTable:
        table = self.tables["composition_by_step"]
        columns = [name for name in _STEP if name in table]
        return PageTable(
            "composition",
            "Several edits together",
            "Mean score and loss after each edit that validation kept, on validation and on test.",
            [name.replace("n_edits", "edits").replace("_", " ") for name in columns],
            table[columns],
        )


def by_chance(context: StudyContext, seed: int) -> dict[str, Any]:
    """What the same search and composition gain where answers are dealt anew among the facts of each relation.

    The kind of answer stays, so that an edit which raises a relation's answers as a kind still gains. What validation
    gains more than test is what choosing gains by chance.
    """
    settings = replace(context.settings, chance=0, split=None)
    task = replace(context.task, facts=dealt(context.facts, seed))
    other = StudyContext(context.model, task, settings, context.counts, text=context.text, progress=context.progress)
    steps = other.composition.by_step
    change = {
        split: float(steps[f"{split}_score"].iloc[-1] - steps[f"{split}_score"].iloc[0])
        for split in ("validation", "test")
    }
    return {"seed": seed, "n_edits": int(steps["n_edits"].iloc[-1])} | change


def dealt(facts: FactSet, seed: int) -> FactSet:
    """The facts with their answers dealt anew within each relation and split."""
    of: dict[tuple[str, str | None], list[Fact]] = {}
    for fact in facts:
        of.setdefault((fact.relation, fact.split), []).append(fact)
    answers: dict[str, Fact] = {}
    for group in of.values():
        mixed = list(group)
        random.Random(seed).shuffle(mixed)
        answers |= {fact.fact_id: other for fact, other in zip(group, mixed, strict=True)}
    moved = ("object", "aliases", "candidates", "target_new")
    return facts.keep(replace(f, **{name: getattr(answers[f.fact_id], name) for name in moved}) for f in facts)
