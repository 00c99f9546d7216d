"""Would a better prompt do as well? Solved examples before the prompt, and a chat template, without and with the edit.

A better prompt is the strongest control: what it reaches without an edit needs no edit (docs/mechanism.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import pandas as pd

from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.prompt_formats import as_chat, with_examples
from laser_interp.scoring.scores import summarise
from laser_interp.statistics.cluster_intervals import Clusters, with_interval
from laser_interp.statistics.formatting import interval, points
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable
from laser_interp.studies.questions.controls import change_numbers

MOST_PROMPTS = 400  # drawn from the test facts, because examples make prompts several times as long
COLUMNS = ("accuracy", "loss", "top10", "generic_masked_top1", "p_generic")


@dataclass(frozen=True)
class BetterPrompts(Answer):
    """The same test facts asked in other ways: one row for each way, as trained and under the edit."""

    key: ClassVar[str] = "prompts"
    title: ClassVar[str] = "Beside a better prompt"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        asked = formats(context)
        if len(asked) < 2:
            return None
        edits = {"base": None, "laser": context.cell}
        frames = {name: context.store.scores(facts, edits, candidates=False) for name, facts in asked.items()}
        rows: list[dict[str, Any]] = []
        seed = context.settings.study_seed
        for name, frame in frames.items():
            numbers = {"prompts": name, "edit_change": change_numbers(frame, seed)}
            of = dict(tuple(frame.groupby("edit", sort=False)))
            nats = [of[edit]["logprob"].to_numpy(float) for edit in ("base", "laser")]
            numbers |= with_interval("edit_nats", Clusters(of["base"]["subject"]).change(*nats))
            if name != "as asked":
                as_asked = frames["as asked"]
                plain = as_asked[as_asked["edit"] == "base"]
                both = pd.concat([plain, of["base"].assign(edit="prompt")], ignore_index=True)
                numbers["prompt_change"] = change_numbers(both, seed, "base", "prompt")
            means = summarise(frame).set_index("edit")[list(COLUMNS)].to_dict("index")
            numbers |= {edit: means[edit] for edit in ("base", "laser")}
            rows.append(numbers | {"n": len(plain) if name != "as asked" else len(of["base"])})
        table = pd.DataFrame(
            {"prompts": row["prompts"], "edit": edit} | row[edit] | {"n": row["n"]}
            for row in rows
            for edit in ("base", "laser")
        )
        return cls({"prompts": table}, {"prompts": rows})

    def lines(self) -> Sequence[str]:
        lines = ["| prompts | edit | accuracy | loss | top-10 | generic words masked |", "|---|---|---|---|---|---|"]
        for row in self.numbers["prompts"]:
            for edit, name in (("base", "none"), ("laser", "LASER")):
                values = (row[edit][c] for c in ("accuracy", "loss", "top10", "generic_masked_top1"))
                lines.append(f"| {row['prompts']} | {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
        return [*lines, "", " ".join(map(_told, self.numbers["prompts"]))]

    def page_words(self) -> Sequence[str]:
        return [_told(row) for row in self.numbers["prompts"] if row["prompts"] != "as asked"][:1]

    def page_tables(self) -> Sequence[PageTable]:
        rows = [
            (row["prompts"], name, *(row[edit][column] for column in COLUMNS), row["n"])
            for row in self.numbers["prompts"]
            for edit, name in (("base", "none"), ("laser", "LASER"))
        ]
        return [
            PageTable(
                "prompts",
                "Beside a better prompt",
                "Test facts as they are asked, with solved facts of their relation before the prompt, and in the "
                "model's chat template. What a prompt reaches without an edit needs no edit.",
                ("prompts", "edit", "accuracy", "loss", "top-10", "generic words masked", "p(generic)", "n"),
                rows,
            )
        ]


def formats(context: StudyContext) -> dict[str, FactSet]:
    """The ways to ask some test facts by their first prompts; only the first where there is no better prompt."""
    first = context.test.keep([replace(fact, paraphrases=()) for fact in context.test])
    plain = first.draw(MOST_PROMPTS, seed=context.settings.study_seed)
    out = {"as asked": plain}
    n, solved = context.settings.examples, context.facts.split("validation")
    if not n:
        return out
    try:
        asked = with_examples(plain, n, seed=context.settings.study_seed, source=solved)
        out[f"{n} {'example' if n == 1 else 'examples'} before"] = asked
    except ValueError as error:
        context.notes.append(f"no prompts with examples were asked: {error}")
    tokenizer = context.model.tokenizer
    if getattr(tokenizer, "chat_template", None) is not None:
        out["chat template"] = as_chat(plain, tokenizer)
    return out


def _told(row: dict[str, Any]) -> str:
    name = "As they are asked" if row["prompts"] == "as asked" else f"With {row['prompts'].replace(' before', '')}"
    change, nats = row["edit_change"], (row["edit_nats"], row["edit_nats_lo"], row["edit_nats_hi"])
    text = (
        f"{name}, the model as trained answers {row['base']['accuracy']:.3f} of {row['n']} prompts, and the edited "
        f"model {row['laser']['accuracy']:.3f}: {points(change['change'], change['lo'], change['hi'])}, and "
        f"{interval(*nats, '+.3f')} nats."
    )
    if "prompt_change" in row:
        found = row["prompt_change"]
        text += f" The prompt alone changes accuracy by {points(found['change'], found['lo'], found['hi'])}."
    return text
