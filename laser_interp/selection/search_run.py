"""The search: cells are scored in units on validation, then on test. Validation selects, test reports.

Each unit's scores are written when they are done, so that a run that was killed goes on from there. The tables are
made from the units in the end.
"""

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.choices import Executor
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import AnyFacts
from laser_interp.models.model import Model
from laser_interp.progress import progress_bar
from laser_interp.selection.cell_table import cell_means, is_hopeless
from laser_interp.selection.cells import Cell
from laser_interp.selection.execution import Execution, PartStore, score_units
from laser_interp.selection.methods import METHODS, LookedAt, Way
from laser_interp.selection.plan import BASE_GROUP, Plan
from laser_interp.selection.race import advancing, race_table, read_units
from laser_interp.selection.search_result import Search, Spent
from laser_interp.selection.settings import SearchSettings
from laser_interp.selection.units import Unit, placed
from laser_interp.storage.atomic import replacing
from laser_interp.storage.run_folder import EDIT, FACTS, RunFolder, open_run
from laser_interp.storage.schemas import check


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
    plan = Plan(model, task, settings, text=text)
    if plan.lifted:
        warnings.warn(
            f"{len(plan.lifted)} cells of the grid were lifted to rank 1 or dropped, as Search.notes says; "
            f"the first: {plan.lifted[0]}",
            stacklevel=2,
        )
    with ExitStack() as stack:
        folder = None
        if out is not None:
            folder = stack.enter_context(open_run(out, plan.identity))
            save_facts(folder, plan.facts)
        run = _run if plan.method == "grid" else _run_method
        with execution:
            found = run(plan, folder, execution, progress)
        if folder is not None:
            try:
                chosen = found.select()
            except ValueError:  # no cell can be chosen; Search.select says why
                return found
            edit = placed(model, chosen.edit(model), plan.facts, path=settings.path, at=settings.at)
            edit.save(folder.path / EDIT, model=model)
        return found


def save_facts(folder: RunFolder, facts: FactSet) -> None:
    """Keep a run's facts in its folder, so that it can be read without their source."""
    with replacing(folder.path / FACTS) as temporary:
        facts.save(temporary, suffix=".jsonl")


def _run(plan: Plan, folder: RunFolder | None, execution: Execution, progress: bool) -> Search:
    store = PartStore(folder)
    notes = list(plan.notes)
    n_prompts = sum(plan.prompts)
    test_shards = [i for i in range(len(plan.shards)) if not plan.validates(i)]
    n_tested = {"all": plan.n_cells + 1, "chosen": 2, "none": 0}[plan.settings.test]
    total = (plan.n_cells + 1) * (n_prompts - plan.count_prompts(test_shards))
    total += n_tested * plan.count_prompts(test_shards)
    with progress_bar(total=total, desc="search", unit=" prompts", unit_scale=True, disable=not progress) as bar:
        advance = advancing(bar, plan)
        validation = plan.units(plan.by_group, validation=True)
        score_units(validation, plan.worker, store, execution, advance)
        tested = plan.by_group
        if plan.settings.stop_hopeless:
            stopped = _hopeless(plan, validation, store)
            notes += [f"{cell}: worse than the model as trained on validation: not run on test" for cell in stopped]
            tested = {group: tuple(c for c in cells if c not in stopped) for group, cells in tested.items()}
            bar.total -= len(stopped) * plan.count_prompts(test_shards)
        if plan.settings.test == "chosen":
            chosen = Search(_table(plan, validation, store)).select().cell
            tested = {"chosen": (chosen,)}
        test = [] if plan.settings.test == "none" else plan.units(tested, validation=False)
        score_units(test, plan.worker, store, execution, advance)
    cells = check(_table(plan, validation + test, store), "cells")
    if folder is not None:
        folder.write_table("cells", cells, "cells")
    n_validation = n_prompts - plan.count_prompts(test_shards)
    spent = Spent("grid", plan.n_cells, plan.n_cells, (plan.n_cells + 1) * n_validation, 0, 1.0)
    return Search(cells, tuple(notes), None, spent)


def _run_method(plan: Plan, folder: RunFolder | None, execution: Execution, progress: bool) -> Search:
    store = PartStore(folder)
    validation = [i for i in range(len(plan.shards)) if plan.validates(i)]
    with progress_bar(desc=plan.method, unit=" prompts", unit_scale=True, disable=not progress) as bar:
        advance = advancing(bar, plan)
        looked_at = METHODS[plan.method](Way(plan, folder, store, execution, advance, progress))
        units = looked_at.units
        chosen: tuple[Cell, ...] = ()
        if looked_at.finalists:
            chosen = (Search(race_table(plan, looked_at.finalists, units, store)).select().cell,)
        tested = plan.units({"chosen": chosen}, validation=False)
        score_units(tested, plan.worker, store, execution if not looked_at.gains else Execution(), advance)
    cells = check(race_table(plan, looked_at.finalists, units + tested, store), "cells")
    if folder is not None:
        folder.write_table("cells", cells, "cells")
        folder.write_table("rounds", looked_at.rounds)
    spent = Spent(
        plan.method,
        looked_at.n_cells,
        plan.n_cells,
        looked_at.cell_prompts,
        looked_at.n_attributed,
        _share_of_grid(plan, plan.count_prompts(validation), looked_at),
        looked_at.n_texts,
    )
    return Search(cells, tuple(plan.notes), looked_at.rounds, spent, looked_at.gains)


def _share_of_grid(plan: Plan, n_prompts: int, looked_at: LookedAt) -> float:
    """What was run, gradients and texts included, as a share of the grid's cells on all validation prompts."""
    prompts = looked_at.cell_prompts + 3 * looked_at.n_attributed
    if plan.text is not None and looked_at.n_texts:
        some = [prompt for fact in plan.facts.split("validation").facts[:100] for prompt in fact.prompts]
        mean = sum(len(plan.model.encode(prompt)) for prompt in some) / len(some)
        prompts += round(looked_at.n_texts * len(plan.model.tokenizer(plan.text)["input_ids"]) / mean)
    return prompts / max((plan.n_cells + 1) * n_prompts, 1)


def _hopeless(plan: Plan, units: list[Unit], store: PartStore) -> set[Cell]:
    base = _scores(units, store, BASE_GROUP)
    stopped: set[Cell] = set()
    for group, cells in plan.by_group.items():
        part = _scores(units, store, group)
        stopped |= {cell for cell in cells if is_hopeless(part[part["cell"] == str(cell)], base)}
    return stopped


def _scores(units: list[Unit], store: PartStore, group: str) -> pd.DataFrame:
    return read_units([unit for unit in units if unit.group == group], store)


def _table(plan: Plan, units: list[Unit], store: PartStore) -> pd.DataFrame:
    """One row per (cell, split), by matrix, then layer, as the sites were asked for."""
    base = _scores(units, store, BASE_GROUP)
    tables = [cell_means(base, [], base)]
    for group in dict.fromkeys(unit.group for unit in units if unit.group != BASE_GROUP):
        order = [str(cell) for cell in plan.by_group.get(group, ())]
        tables.append(cell_means(_scores(units, store, group), order, base))
    place = {str(cell): i for i, cell in enumerate(c for cells in plan.by_site.values() for c in cells)} | {"": -1}
    table = pd.concat(tables, ignore_index=True)
    return table.iloc[np.argsort(table["cell"].map(place).to_numpy(), kind="stable")].reset_index(drop=True)
