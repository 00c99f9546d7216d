"""Is the best edit the same for all relations? It compares each relation's own choice with the others' choice for it.

The candidates are no edit, and the few best edits that the search scored on all validation facts. Choosing among them
on one relation's facts shows whether this relation prefers the same edit. Choosing on the facts of all *other*
relations, and testing on this one, shows whether the gain also appears on relations that had no part in the choice.
"""

import pandas as pd

from laser_interp.selection.cells import Cell
from laser_interp.studies.context import StudyContext

CANDIDATES = 4  # edits that relations choose among


def by_relation(context: StudyContext) -> pd.DataFrame:
    """One row per relation; no rows where there is only one relation.

    Returns:
        `relation, n_validation, n_test`; `own_choice` and `others_choice` (cells; "" is no edit); on the test facts of
        the relation the accuracy `as_trained`, `chosen` (under the edit of the study), and `held_out` (under the
        choice of the others); `n_fixed` and `n_broken` under the edit of the study.
    """
    columns = ["relation", "n_validation", "n_test", "own_choice", "others_choice"]
    columns += ["as_trained", "chosen", "held_out", "n_fixed", "n_broken"]
    cells = _candidates(context)
    if len({fact.relation for fact in context.facts}) < 2 or not cells:
        return pd.DataFrame(columns=columns)
    known = context.score_validation({"": None} | {str(cell): cell for cell in cells}, "validation-relations")
    totals = known.groupby(["relation", "edit"])[["score", "logprob"]].sum()
    whole = known.groupby("edit")[["score", "logprob"]].sum()
    sizes = known[known["edit"] == ""]["relation"].value_counts()
    choices = {
        relation: (_best(totals.loc[relation]), _best(whole - totals.loc[relation])) for relation in sorted(sizes.index)
    }
    wanted = {cell for _, cell in choices.values()} - {"", str(context.cell)}
    tested = context.scores[context.scores["edit"].isin(["base", "laser"])]
    tested = tested.assign(edit=tested["edit"].map({"base": "", "laser": str(context.cell)}))
    if wanted:
        more = context.score({cell: Cell.parse(cell) for cell in sorted(wanted)}, "test-relations")
        tested = pd.concat([tested, more], ignore_index=True)
    right = tested.pivot_table("correct", ["relation", "fact_id", "prompt_id"], "edit", aggfunc="first").astype(float)
    rows = []
    for relation, (own, others) in choices.items():
        if relation not in right.index:
            continue
        here = right.loc[[relation]]
        base, edit = here[""], here[str(context.cell)]
        numbers = [base.mean(), edit.mean(), here[others].mean(), int((edit > base).sum()), int((edit < base).sum())]
        rows.append([relation, int(sizes[relation]), len(here), own, others, *numbers])
    return pd.DataFrame(rows, columns=columns)


def _candidates(context: StudyContext) -> list[Cell]:
    """The best edits of the search by validation, the edit of the study among them."""
    table = context.search.cells
    table = table[(table["split"] == "validation") & (table["kind"] == "laser")]
    best = table.sort_values(["score", "loss"], ascending=[False, True], kind="stable")["cell"].head(CANDIDATES)
    cells = [Cell.parse(cell) for cell in best]
    return cells if context.cell in cells else [context.cell, *cells[: CANDIDATES - 1]]


def _best(sums: pd.DataFrame) -> str:
    """The best edit by score, then by log-probability; "" is no edit."""
    return str(sums.sort_values(["score", "logprob"], ascending=False, kind="stable").index[0])
