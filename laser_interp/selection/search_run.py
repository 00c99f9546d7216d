"""The search: a method looks at cells on validation, the best of them is chosen, and test reports it.

Each unit's scores are written when they are done, so that a run that was killed goes on from there. The tables are
made from the units in the end.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.choices import Executor
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.facts.tasks import AnyFacts
from laser_interp.models.model import Model
from laser_interp.progress import progress_bar
from laser_interp.selection.cell_table import cell_means
from laser_interp.selection.execution import Execution, Unit
from laser_interp.selection.methods import METHODS
from laser_interp.selection.plan import BASE_GROUP, Plan, divided_task
from laser_interp.selection.race import Trials, Work, read_units
from laser_interp.selection.score_store import ScoreStore, text_of
from laser_interp.selection.search_result import Search, Spent
from laser_interp.selection.settings import SearchSettings
from laser_interp.signatures import with_settings
from laser_interp.storage.run_folder import EDIT, RunFolder, open_run
from laser_interp.storage.schemas import check


@with_settings(SearchSettings)
def search(
    model: Model,
    task: AnyFacts,
    settings: SearchSettings | None = None,
    *,
    text: str | None = None,
    out: str | Path | None = None,
    executor: Executor = "local",
    workers: int | None = None,
    progress: bool = True,
    **changes: Any,
) -> Search:
    """Look for the edit that helps most.

    Args:
        task: facts, what `li.load_facts` makes facts of, or a task with a rule of its own. Their "validation" split
            selects; a set without splits gets one by subject.
        settings: which edits are tried; see `SearchSettings`.
        text: a running text for the method rmt, which accepts an edit if the text's perplexity falls.
        out: folder for the results. Each unit's scores are written when they are done, and a later run with the same
            settings continues from there.
        executor: "local", or "ray" to spread the work over a Ray cluster (`pip install 'laser-interp[ray]'`).
        workers: number of Ray actors. None: one per GPU of the cluster, or, without GPUs, one per two CPUs.
        changes: settings by name, as in `matrices="mlp", rhos=[0.2, 0.05]`.

    Raises:
        ValueError: bad settings, a folder that holds a run with other settings, or one that another process is
            writing to.
        OSError: a result that could not be written; what was computed before is kept.

    Example:
        >>> search = li.search(model, facts, matrices="mlp", layers=[2, 3], rhos=[0.2, 0.05])
        >>> laser = search.select().edit(model)
    """
    settings = SearchSettings.of(settings, changes)
    execution = Execution(executor, workers)
    execution.check(model)
    asked, notes = divided_task(model, task, settings.split, settings.seed)
    plan = Plan(model, asked, settings, text=text)
    if plan.lifted:
        warnings.warn(
            f"cells of the grid were lifted to rank 1 or dropped, as Search.notes says; {plan.lifted[0]}", stacklevel=2
        )
    return run_plan(plan, out, execution, notes=notes, progress=progress)


def run_plan(
    plan: Plan,
    out: str | Path | None = None,
    execution: Execution | None = None,
    *,
    store: ScoreStore | None = None,
    notes: Sequence[str] = (),
    progress: bool = True,
) -> Search:
    """The search of a plan, whatever its method: score, choose, test, and save.

    Args:
        store: where a study keeps scores; what is known there is not scored again.
    """
    with (
        open_run(out, plan.identity, plan.facts) as folder,
        execution or Execution() as where,
        progress_bar(desc=plan.method, unit=" prompts", unit_scale=True, disable=not progress) as bar,
    ):
        plan.choose_screening(folder)
        work = Work(plan, folder, where, bar, progress, store)
        trials = METHODS[plan.method](work)
        work.remember(trials.units, [None, *trials.finalists])
        names = [str(cell) for cell in trials.finalists]
        specs = {str(cell): cell for cell in trials.finalists if cell.gains}
        before = Search(_cells(trials.units, names, work.folder), specs=specs)
        tests: dict[str, tuple[EditSpec, ...]] = {"chosen": _chosen(before)}
        if plan.settings.test == "all":
            tests = plan.by_group
        elif plan.settings.test == "chosen" and store is not None:
            asked = {text_of(cell): cell for cell in (*tests["chosen"], None)}
            store.scores(plan.facts.split("test"), asked, candidates=plan.settings.candidates)
        tested = [] if plan.settings.test == "none" else plan.units(tests, validation=False)
        work.run(tested)
        cells = check(_cells(trials.units + tested, names, work.folder), "cells")
        folder.write_table("cells", cells, "cells")
        if trials.rounds is not None:
            folder.write_table("rounds", trials.rounds)
        found = Search(
            cells, (*notes, *plan.notes, *plan.lifted), trials.rounds, _spent(plan, trials), specs, plan.facts
        )
        if out is not None and _chosen(found):
            found.select().edit(plan.model).save(folder.path / EDIT, model=plan.model)
        return found


def _chosen(found: Search) -> tuple[EditSpec, ...]:
    """What validation chooses; nothing where no cell was accepted or none has a finite loss, as `Search.select` says"""
    try:
        return (found.select().cell,)
    except ValueError:
        return ()


def _cells(units: Sequence[Unit], names: Sequence[str], folder: RunFolder) -> pd.DataFrame:
    """One row per (cell, split): the model as trained, then the named cells in their order."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        groups.setdefault(unit.group, []).append(unit)
    base = read_units(groups.pop(BASE_GROUP), folder)
    tables = [cell_means(base, base)]
    for of_group in groups.values():
        part = read_units(of_group, folder)
        part = part[part["cell"].isin(set(names))]
        if len(part):
            tables.append(cell_means(part, base))
    table = pd.concat(tables, ignore_index=True)
    order = {name: i for i, name in enumerate(["", *names])}
    return table.sort_values("cell", key=lambda cells: cells.map(order), kind="stable", ignore_index=True)


def _spent(plan: Plan, trials: Trials) -> Spent:
    """What was run, gradients and texts included, beside the grid's cells on all validation prompts."""
    prompts = trials.cell_prompts + 3 * trials.n_attributed
    if plan.text is not None and trials.n_texts:
        some = [prompt for fact in plan.facts.split("validation").facts[:100] for prompt in fact.prompts]
        mean = sum(len(plan.model.encode(prompt)) for prompt in some) / len(some)
        prompts += round(trials.n_texts * len(plan.model.tokenizer(plan.text)["input_ids"]) / mean)
    share = prompts / max((plan.n_cells + 1) * plan.n_prompts(validation=True), 1)
    counted = (trials.n_cells, plan.n_cells, trials.cell_prompts, trials.n_attributed)
    return Spent(plan.method, *counted, share, trials.n_texts)
