"""Is it the same edit for all relations, and does it help on those that it was not chosen on?

The candidates are no edit, and the few best edits that the search scored on all validation facts. Choosing among them
on one relation's facts shows whether this relation prefers the same edit. Choosing on the facts of all *other*
relations, and testing on this one, shows whether the gain also appears where the last choice was made without it. The
few candidates themselves were found on the validation facts of all relations: only the choice among them is held out.
"""

from collections.abc import Sequence
from typing import Any, Self

import pandas as pd

from laser_interp.edits.edit_spec import CHOSEN_KINDS, EditSpec
from laser_interp.statistics.formatting import points
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable

CANDIDATES = 4  # edits that relations choose among


class Relations(Answer):
    """One row a relation: its own choice, the others' choice for it, and accuracy under each."""

    key = "relations"
    title = "Is it the same edit for all relations?"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        if context.task.rule != "next_token":
            return None
        table = by_relation(context)
        if table.empty:
            return None
        return cls({"relations": table}, {"relations": _numbers(table, str(context.cell))})

    def lines(self) -> Sequence[str]:
        found = self.numbers["relations"]
        same, none = found["choose_the_same"], found["choose_no_edit"]
        most = f"; {found['largest_gain']} gains most" if found["gain"] else ""
        return [
            f"Of {found['n']} relations, {found['gain']} gain under the edit on test and {found['lose']} lose{most}. "
            f"The validation facts of each prefer this edit in {same}, no edit in {none}, and another edit in "
            f"{found['n'] - same - none}. If each relation's edit is chosen on the other relations' facts, accuracy "
            f"on test changes by {points(found['change_held_out'])}."
        ]

    def page_table(self) -> PageTable:
        table = self.tables["relations"]
        rows = table.assign(gain=table["chosen"] - table["as_trained"]).sort_values(
            "gain", ascending=False, kind="stable"
        )
        return PageTable(
            "relations",
            "Each relation",
            "Accuracy on test prompts, as trained and under the edit, the largest gain first.",
            ("relation", "as trained", "LASER", "change", "prompts"),
            rows[["relation", "as_trained", "chosen", "gain", "n_test"]],
        )


def by_relation(context: StudyContext) -> pd.DataFrame:
    """One row per relation; no rows where there is only one relation.

    Returns:
        `relation, n_validation, n_test`; `own_choice` and `others_choice` (cells; "" is no edit); on the test facts of
        the relation the accuracy `as_trained`, `chosen` (under the edit of the study), and `held_out` (under the
        choice of the others); `n_fixed` and `n_broken` under the edit of the study.
    """
    if len({fact.relation for fact in context.facts}) < 2:
        return pd.DataFrame()
    edits: dict[str, EditSpec | None] = {"": None} | {str(spec): spec for spec in _candidates(context)}
    known = context.store.scores(context.facts.split("validation"), edits, candidates=False)
    totals = known.groupby(["relation", "edit"])[["score", "logprob"]].sum()
    whole = known.groupby("edit")[["score", "logprob"]].sum()
    sizes = known[known["edit"] == ""]["relation"].value_counts()
    choices = {
        relation: (_best(totals.loc[relation]), _best(whole - totals.loc[relation])) for relation in sorted(sizes.index)
    }
    wanted = {"", str(context.cell), *(others for _, others in choices.values())}
    _ = context.scores  # with answers ranked, so that they are not scored again
    tested = context.store.scores(
        context.test, {name: spec for name, spec in edits.items() if name in wanted}, candidates=False
    )
    right = tested.pivot_table("correct", ["relation", "fact_id", "prompt_id"], "edit", aggfunc="first").astype(float)
    rows = []
    for relation, (own, others) in choices.items():
        if relation not in right.index:
            continue
        here = right.loc[[relation]]
        base, edit = here[""], here[str(context.cell)]
        row = {"relation": relation, "n_validation": int(sizes[relation]), "n_test": len(here)}
        row |= {"own_choice": own, "others_choice": others}
        row |= {"as_trained": base.mean(), "chosen": edit.mean(), "held_out": here[others].mean()}
        rows.append(row | {"n_fixed": int((edit > base).sum()), "n_broken": int((edit < base).sum())})
    return pd.DataFrame(rows)


def _candidates(context: StudyContext) -> list[EditSpec]:
    """The best edits of the search by validation, the edit of the study among them."""
    found = context.search
    table = found.cells[(found.cells["split"] == "validation") & found.cells["kind"].isin(CHOSEN_KINDS)]
    best = table.sort_values(["score", "loss"], ascending=[False, True], kind="stable")["cell"].head(CANDIDATES)
    specs = [found.specs.get(name) or EditSpec.parse(name) for name in best]
    return specs if context.cell in specs else [context.cell, *specs[: CANDIDATES - 1]]


def _best(sums: pd.DataFrame) -> str:
    """The best edit by score, then by log-probability; "" is no edit."""
    return str(sums.sort_values(["score", "logprob"], ascending=False, kind="stable").index[0])


def _numbers(table: pd.DataFrame, cell: str) -> dict[str, Any]:
    """How many relations make the same choice, gain or lose, and the change under the choice of the other relations."""
    gain = table["chosen"] - table["as_trained"]
    weight = table["n_test"] / table["n_test"].sum()
    return {
        "n": len(table),
        "choose_the_same": int((table["own_choice"] == cell).sum()),
        "choose_no_edit": int((table["own_choice"] == "").sum()),
        "gain": int((gain > 0).sum()),
        "lose": int((gain < 0).sum()),
        "change_held_out": float((weight * (table["held_out"] - table["as_trained"])).sum()),
        "largest_gain": str(table["relation"].iloc[int(gain.to_numpy().argmax())]),
    }
