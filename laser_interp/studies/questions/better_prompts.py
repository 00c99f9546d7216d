"""Would a better prompt do as well? Solved examples before the prompt, and a chat template, without and with the edit.

A better prompt is the strongest control: what it reaches without an edit needs no edit (docs/mechanism.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import pandas as pd

from laser_interp.cluster_intervals import Clusters, with_interval
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.prompt_formats import as_chat, examples_of, with_examples
from laser_interp.scoring.scores import summarise
from laser_interp.statistics.formatting import in_nats, points
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable
from laser_interp.studies.questions.controls import change_numbers

MOST_PROMPTS = 400  # drawn from the test facts, because examples make prompts several times as long
FEWEST_ANSWERS = 5  # of a relation, so that examples with other answers do not tell the right one
COLUMNS = ("accuracy", "loss", "top10", "generic_masked_top1", "p_generic")


class BetterPrompts(Answer):
    """The same test facts asked in other ways: one row for each way, as trained and under the edit."""

    key = "prompts"
    title = "Beside a better prompt"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        if context.task.rule != "next_token" or not context.settings.examples:
            return None
        edits = {"base": None, "laser": context.cell}
        frames: dict[str, pd.DataFrame] = {}
        for name, facts in formats(context).items():
            try:
                frames[name] = context.store.scores(facts, edits, candidates=False)
            except ValueError as error:  # prompts that are too long for the model, before any of them is scored
                context.notes.append(f"prompts with {name} were not asked: {error}")
        if len(frames) < 2:
            return None
        rows: list[dict[Any, Any]] = []
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
            numbers |= summarise(frame).set_index("edit")[list(COLUMNS)].to_dict("index")
            rows.append(numbers | {"n": len(of["base"])})
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
        lines += [
            "",
            "| prompts | accuracy, the prompt alone | accuracy, the edit | log p(answer), the edit |",
            "|---|---|---|---|",
        ]
        for row in self.numbers["prompts"]:
            alone = _accuracy(row["prompt_change"]) if "prompt_change" in row else ""
            lines.append(f"| {row['prompts']} | {alone} | {_accuracy(row['edit_change'])} | {_nats(row)} |")
        return lines

    def finding(self) -> str:
        row = next(row for row in self.numbers["prompts"] if row["prompts"] != "as asked")
        return (
            f"Beside a better prompt: with {row['prompts'].replace(' before', '')}, the edit changes accuracy by "
            f"{_accuracy(row['edit_change'])} and log p(answer) by {_nats(row)}. The prompt alone changes accuracy by "
            f"{_accuracy(row['prompt_change'])}."
        )

    def page_words(self) -> Sequence[str]:
        return [self.finding()]

    def page_table(self) -> PageTable:
        return PageTable(
            "prompts",
            "Beside a better prompt",
            "Test facts as they are asked, with solved facts of their relation before the prompt, and in the "
            "model's chat template. What a prompt reaches without an edit needs no edit.",
            ("prompts", "edit", "accuracy", "loss", "top-10", "generic words masked", "p(generic)", "n"),
            self.tables["prompts"].replace({"edit": {"base": "none", "laser": "LASER"}}),
        )


def formats(context: StudyContext) -> dict[str, FactSet]:
    """The ways to ask some test facts by their first prompts; all ways ask the same facts.

    Facts without enough examples are left out, and so are those of relations with so few answers that examples with
    other answers would tell the right one.
    """
    n, seed = context.settings.examples, context.settings.study_seed
    first = context.test.keep(replace(fact, paraphrases=()) for fact in context.test)
    solved = context.facts.split("validation")
    n_answers = solved.to_frame().groupby("relation")["object"].nunique()
    examples = examples_of(first, n, seed=seed, source=solved)
    kept = [
        fact for fact in first if n_answers.get(fact.relation, 0) >= FEWEST_ANSWERS and len(examples[fact.fact_id]) == n
    ]
    if left_out := len(first) - len(kept):
        context.notes.append(f"{left_out} test facts have no {n} examples that could stand before their prompts")
    if not kept:
        return {}
    plain = first.keep(kept).draw(MOST_PROMPTS, seed=seed)
    examples_before = f"{n} {'example' if n == 1 else 'examples'} before"
    out = {"as asked": plain, examples_before: with_examples(plain, n, seed=seed, source=solved)}
    if getattr(context.model.tokenizer, "chat_template", None) is not None:
        try:
            out["chat template"] = as_chat(plain, context.model.tokenizer)
        except ValueError as error:
            context.notes.append(str(error))
    return out


def _accuracy(change: Mapping[str, float]) -> str:
    return points(change["change"], change["lo"], change["hi"])


def _nats(row: Mapping[str, float]) -> str:
    return in_nats(row["edit_nats"], row["edit_nats_lo"], row["edit_nats_hi"])
