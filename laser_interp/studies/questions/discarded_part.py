"""What do the discarded components say? Categories of their answers, for growing shares (section 5.2)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from laser_interp.discarded.answers import answers_under, category_shares, favoured_answers
from laser_interp.edits.controls import CONTROLS, fits_layer, same_rank_in_layer
from laser_interp.edits.edit import Edit
from laser_interp.facts.fact_set import FactSet
from laser_interp.models.model import Model
from laser_interp.plots.names import CATEGORIES
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable


class DiscardedPart(Answer):
    """Which answers the discarded part gives, on all prompts and on those that the edit fixed."""

    schemas: ClassVar[Mapping[str, str]] = {"discarded_answers": "answers"}
    key = "discarded"
    title = "What do the discarded components say?"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        if context.task.rule != "next_token" or not context.discards_something:
            return None
        answers = favoured_answers(
            context.model,
            context.test,
            context.edit,
            shares=context.settings.shares,
            generic=context.settings.generic,
            progress=context.progress,
        )
        answers, categories = outcomes(answers)
        tables = {"discarded_answers": answers, "discarded_categories": categories}
        numbers = {"discarded": _on_fixed(categories, "discarded", 1.0)}
        return cls(tables, numbers | {"as_trained_on_fixed": _on_fixed(categories, "base", 0.0)})

    def lines(self) -> Sequence[str]:
        part, base = self.numbers["discarded"], self.numbers["as_trained_on_fixed"]
        if not part["n"]:
            return ["LASER fixed no prompt, so nothing can be compared."]
        lines = ["| answer to fixed prompts | as trained | discarded part alone |", "|---|---|---|"]
        return lines + [f"| {label} | {base[name]:.0%} | {part[name]:.0%} |" for name, label in CATEGORIES.items()]

    def finding(self) -> str:
        part, base = self.numbers["discarded"], self.numbers["as_trained_on_fixed"]
        if not part["n"]:
            return ""
        return (
            f"The discarded part alone, on the {part['n']} prompts that the edit fixed: a generic word in "
            f"{part['generic']:.0%} (the model as trained {base['generic']:.0%}), a wrong answer of the right type in "
            f"{part['same_type']:.0%} ({base['same_type']:.0%})."
        )

    def page_table(self) -> PageTable:
        table = self.tables["discarded_categories"]
        names = {"base": "as trained", "edit": "LASER", "discarded": "discarded part"}
        rows = table[table["outcome"].isin(["all", "fixed", "broken"])].replace({"edit": names})
        return PageTable(
            "categories",
            "What the discarded part answers",
            "Shares of answers by category, for all prompts and for those that the edit fixed or broke. The column "
            "“share” says how much of the discarded part acts.",
            ("prompts", "answered by", "share", *CATEGORIES.values(), "n"),
            rows[["outcome", "edit", "share", *CATEGORIES, "n"]],
        )


def outcomes(answers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers with the `outcome` of their prompt under the edit ("fixed", "broken", "right", "wrong"), and the share of
    each category per (outcome, edit, share), "all" outcomes included."""
    keys = ["fact_id", "prompt_id"]
    before, after = (
        answers[answers["edit"] == label].set_index(keys)["category"] == "correct" for label in ("base", "edit")
    )
    cases = [before & after, ~before & after, before & ~after]
    outcome = pd.Series(np.select(cases, ["right", "fixed", "broken"], "wrong"), before.index)
    answers = answers.assign(outcome=outcome.loc[pd.MultiIndex.from_frame(answers[keys])].to_numpy(object))
    tables = [category_shares(answers).assign(outcome="all")]
    tables += [category_shares(part).assign(outcome=name) for name, part in answers.groupby("outcome", sort=True)]
    return answers, pd.concat(tables, ignore_index=True)


def discarded_controls(
    model: Model, facts: FactSet, edit: Edit, *, n_draws: int = 3, seed: int = 0, progress: bool = True
) -> pd.DataFrame:
    """What the discarded part answers, and what comparable parts of the model answer.

    The controls are as many random directions of the same matrix, random directions with the same energy, and the same
    part of the matrix with this name in every other layer.

    Returns:
        One row per control: `control`, the shares `correct, generic, same_type, other`, the number of answers `n`, and
        the mean `similarity` of the answers to the truth. Random controls are averaged over their draws.

    Example:
        >>> li.controls.discarded_controls(model, test, laser, n_draws=1, progress=False)
    """
    part = edit.discarded()
    runs: dict[str, Edit | None] = {"base": None, "laser": edit, "discarded": part}
    for draw in range(seed, seed + n_draws):
        for name in ("random_kept", "random_equal_energy"):
            runs[f"{name}/{draw}"] = CONTROLS[name].make(model, part, draw)
    if len(edit.sites) == 1:
        blocks = edit.parts[edit.sites[0]].spectrum.blocks
        others = [layer for layer in range(model.n_layers) if fits_layer(model, edit.sites, layer, blocks)]
        runs |= {f"layer_{layer}": same_rank_in_layer(model, part, layer) for layer in others}
    answers = answers_under(model, facts, runs, top_k=0, progress=progress)
    shares = category_shares(answers.assign(edit=answers["edit"].str.partition("/")[0])).rename(
        columns={"edit": "control"}
    )
    return shares[["control", *CATEGORIES, "n", "similarity"]]


def _on_fixed(categories: pd.DataFrame, edit: str, share: float) -> dict[str, float]:
    """Categories of one part's answers on the prompts that the edit fixed; with share 0 of a whole model."""
    rows = categories[(categories["outcome"] == "fixed") & (categories["edit"] == edit)]
    rows = rows[rows["share"] == share] if share else rows
    if rows.empty:
        return dict.fromkeys(CATEGORIES, np.nan) | {"n": 0}
    return {name: float(rows.iloc[0][name]) for name in CATEGORIES} | {"n": int(rows.iloc[0]["n"])}
