"""What an edit that was chosen for one task does to others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from laser_interp.cluster_intervals import Clusters, with_interval
from laser_interp.edits.edit import Edit
from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.facts.tasks import AnyFacts, own_task, task_of
from laser_interp.models.model import Model
from laser_interp.scoring.scores import score
from laser_interp.selection.plan import Plan
from laser_interp.selection.search_run import run_plan
from laser_interp.selection.settings import SearchSettings


def transfer(
    model: Model, tasks: Sequence[AnyFacts] | AnyFacts, edits: Mapping[str, Edit], *, progress: bool = True
) -> pd.DataFrame:
    """What each edit, chosen for one task, does to the others.

    Returns:
        One row per (edit, task): `edit, task, n, before, after, change` (of the mean score, on the test split if there
        is one), and `change_lo, change_hi`, a 95 % interval over subjects.

    Raises:
        ValueError: no tasks, or an edit that is called "base".

    Example:
        >>> task = li.tasks.own_task("organism", "candidates")
        >>> li.tasks.transfer(model, [task], {"chosen for it": laser})
    """
    if isinstance(tasks, list | tuple) and not tasks:
        raise ValueError("no tasks are given: expected one task or more")
    if "base" in edits:
        raise ValueError("an edit is called 'base', as the model as trained is: give it another label")
    one_set = not isinstance(tasks, list | tuple) or isinstance(tasks[0], Mapping | tuple | Fact)
    several: Any = [tasks] if one_set else tasks
    table = []
    for task in map(task_of, several):
        facts = task.facts.split("test") if "test" in task.facts.splits else task.facts
        rows = score(model, task.keep(facts), {"base": None, **edits}, progress=progress)
        base = rows[rows["edit"] == "base"]
        clusters = Clusters(base["subject"])
        before = base["score"].to_numpy(float)
        for name in edits:
            after = rows.loc[rows["edit"] == name, "score"].to_numpy(float)  # in the order of the base's rows
            table.append(
                {"edit": name, "task": task.name, "n": len(after), "before": before.mean(), "after": after.mean()}
                | with_interval("change", clusters.change(before, after))
            )
    return pd.DataFrame(table)


def transfer_between_relations(model: Model, facts: FactSet, *, progress: bool = True) -> pd.DataFrame:
    """Treat each relation as a task: its validation facts choose an MLP edit, which is tested on all relations.

    Returns:
        The table of `transfer`, with the edit in `cell`. Relations without validation or test facts are left out.

    Example:
        >>> li.tasks.transfer_between_relations(model, facts, progress=False)
    """
    tasks, chosen = [], {}
    settings = SearchSettings(matrices=("mlp",), test="chosen")
    for relation in sorted({fact.relation for fact in facts}):
        own = facts.keep([fact for fact in facts if fact.relation == relation])
        if {"validation", "test"} <= set(own.splits):
            tasks.append(replace(own_task(own), name=relation))
            chosen[relation] = run_plan(Plan(model, tasks[-1], settings), progress=progress).select()
    edits = {name: selected.edit(model) for name, selected in chosen.items()}
    table = transfer(model, tasks, edits, progress=progress)
    return table.assign(cell=table["edit"].map({name: str(selected.cell) for name, selected in chosen.items()}))
