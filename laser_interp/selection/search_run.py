"""The search: cells are scored in units on validation, then on test. Validation selects, test reports.

Each unit's scores are written when they are done, so that a run that was killed goes on from there. The tables are
made from the units in the end.
"""

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.choices import Executor
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import Task
from laser_interp.models.model import Model
from laser_interp.selection.cell_table import cell_means, is_hopeless
from laser_interp.selection.cells import Cell
from laser_interp.selection.execution import Execution, PartStore, score_units
from laser_interp.selection.plan import BASE_GROUP, Plan
from laser_interp.selection.race import run_race, share_of_grid
from laser_interp.selection.search_result import Search, Spent
from laser_interp.selection.settings import SearchSettings
from laser_interp.selection.units import Unit
from laser_interp.storage.atomic import replacing
from laser_interp.storage.run_folder import FACTS, RunFolder, open_run
from laser_interp.storage.schemas import check


def search(
    model: Model,
    task: FactSet | Task,
    settings: SearchSettings | None = None,
    *,
    out: str | Path | None = None,
    executor: Executor = "local",
    workers: int | None = None,
    progress: bool = True,
    **changes: Any,
) -> Search:
    """Look for the edit that helps most.

    Args:
        task: facts, or a task with a rule of its own. Their "validation" split selects; a set without splits gets one
            by subject.
        settings: which edits are tried; see `SearchSettings`.
        out: folder for the results. Each unit's scores are written as they come, and a run with the same settings goes
            on from them.
        executor: "local", or "ray" to spread the work over a Ray cluster (`pip install 'laser-interp[ray]'`).
        workers: Ray actors; None: one a GPU of the cluster, or one for each two CPUs.
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
    plan = Plan(model, task, settings)
    if plan.notes:
        warnings.warn(
            f"{len(plan.notes)} cells of the grid were lifted to rank 1 or dropped, as Search.notes says; "
            f"the first: {plan.notes[0]}",
            stacklevel=2,
        )
    with ExitStack() as stack:
        folder = None
        if out is not None:
            folder = stack.enter_context(open_run(out, plan.identity))
            save_facts(folder, plan.facts)
        run = _run if settings.method == "grid" else _run_race
        return run(plan, folder, execution, progress)


def save_facts(folder: RunFolder, facts: FactSet) -> None:
    """Keep a run's facts in its folder, so that it can be read without their source."""
    with replacing(folder.path / FACTS) as temporary:
        facts.save(temporary, suffix=".jsonl")


def _run(plan: Plan, folder: RunFolder | None, execution: Execution, progress: bool) -> Search:
    from tqdm.auto import tqdm

    store = PartStore(folder)
    notes = list(plan.notes)
    n_prompts = sum(plan.prompts)
    test_shards = [i for i in range(len(plan.shards)) if not plan.validates(i)]
    if plan.settings.test == "all":
        total = (plan.n_cells + 1) * n_prompts
    else:
        total = (plan.n_cells + 1) * (n_prompts - plan.count_prompts(test_shards)) + 2 * plan.count_prompts(test_shards)
    with tqdm(total=total, desc="search", unit=" prompts", unit_scale=True, disable=not progress) as bar:
        advance = _advancing(bar, plan)
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
        test = plan.units(tested, validation=False)
        score_units(test, plan.worker, store, execution, advance)
    cells = check(_table(plan, validation + test, store), "cells")
    if folder is not None:
        folder.write_table("cells", cells, "cells")
    n_validation = n_prompts - plan.count_prompts(test_shards)
    spent = Spent("grid", plan.n_cells, plan.n_cells, (plan.n_cells + 1) * n_validation, 0, 1.0)
    return Search(cells, tuple(notes), None, spent)


def _run_race(plan: Plan, folder: RunFolder | None, execution: Execution, progress: bool) -> Search:
    from tqdm.auto import tqdm

    store = PartStore(folder)
    validation = [i for i in range(len(plan.shards)) if plan.validates(i)]
    with tqdm(desc=plan.settings.method, unit=" prompts", unit_scale=True, disable=not progress) as bar:
        advance = _advancing(bar, plan)
        raced = run_race(plan, folder, store, execution, advance, progress)
        units = raced.units
        chosen = Search(_race_table(raced.finalists, units, store)).select().cell
        tested = plan.units({"chosen": (chosen,)}, validation=False)
        score_units(tested, plan.worker, store, execution, advance)
    cells = check(_race_table(raced.finalists, units + tested, store), "cells")
    if folder is not None:
        folder.write_table("cells", cells, "cells")
        folder.write_table("rounds", raced.rounds)
    n_prompts = plan.count_prompts(validation)
    spent = Spent(
        plan.settings.method,
        len(set(raced.rounds["cell"])),
        plan.n_cells,
        raced.cell_prompts,
        raced.n_attributed,
        share_of_grid(plan.n_cells, n_prompts, raced),
    )
    return Search(cells, tuple(plan.notes), raced.rounds, spent)


def _advancing(bar: Any, plan: Plan) -> Callable[[Unit, float], None]:
    """What moves a bar of prompts by a share of a unit."""
    return lambda unit, share: bar.update(round(share * unit.n_cells * plan.prompts[unit.shard]))


def _race_table(finalists: list[Cell], units: list[Unit], store: PartStore) -> pd.DataFrame:
    """One row per (cell, split), of the model as trained and the cells that were scored on all of validation."""
    base = _scores(units, store, BASE_GROUP)
    names = [str(cell) for cell in finalists]
    parts = [_scores(units, store, group) for group in ("raced", "chosen") if any(u.group == group for u in units)]
    both = pd.concat(parts, ignore_index=True)
    edits = cell_means(both[both["cell"].isin(names)], names, base)
    return pd.concat([cell_means(base, [], base), edits], ignore_index=True)


def _hopeless(plan: Plan, units: list[Unit], store: PartStore) -> set[Cell]:
    base = _scores(units, store, BASE_GROUP)
    stopped: set[Cell] = set()
    for group, cells in plan.by_group.items():
        part = _scores(units, store, group)
        stopped |= {cell for cell in cells if is_hopeless(part[part["cell"] == str(cell)], base)}
    return stopped


def _scores(units: list[Unit], store: PartStore, group: str) -> pd.DataFrame:
    parts = [part for unit in units if unit.group == group and (part := store.read(unit)) is not None]
    return pd.concat(parts, ignore_index=True)


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
