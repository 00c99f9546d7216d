"""Scores given cells on given facts, in parts that are kept. Studies and compositions test their edits with it."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from laser_interp.choices import UNIT_PROMPTS
from laser_interp.facts.tasks import Task
from laser_interp.models.model import Model
from laser_interp.progress import by_fractions, progress_bar
from laser_interp.selection.cells import Cell
from laser_interp.selection.execution import Execution, PartStore, score_units
from laser_interp.selection.units import Unit, Worker, WorkerOptions, shards_of
from laser_interp.storage.provenance import provenance
from laser_interp.storage.run_folder import open_run


def score_cells(
    model: Model,
    task: Task,
    cells: Mapping[str, Cell | None],
    options: WorkerOptions,
    *,
    out: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Scores under each cell (None: the model as trained), with the columns of `li.score`.

    Args:
        cells: label -> cell.
        out: folder in which parts are kept, so that a stopped run can continue from them.
    """
    shards = shards_of(task.facts, UNIT_PROMPTS)
    worker = Worker(model, task, shards, options, lean=False)
    edited = tuple(cell for cell in cells.values() if cell is not None)
    # The edits of a shard first: the model as trained then goes on from the layer that they share
    of_shard = [("edited", edited)] * bool(edited) + [("base", ())] * (None in cells.values())
    units = [Unit(group, i, which) for i in range(len(shards)) for group, which in of_shard]
    prompts = [sum(len(fact.prompts) for fact in shard) for shard in shards]
    about = {"rule": task.rule, "protocol": task.protocol, "max_new_tokens": task.max_new_tokens}
    how = {name: value for name, value in asdict(options).items() if name != "memory"}
    identity = provenance(model, task.facts) | about | {"cells": [str(cell) for cell in edited]} | how
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(open_run(out, identity))
        store = PartStore(folder, schema="scores")
        total = sum(unit.n_cells * prompts[unit.shard] for unit in units)
        bar = stack.enter_context(progress_bar(total=total, desc="scoring", unit=" prompts", disable=not progress))
        add = by_fractions(bar)
        score_units(
            units, worker, store, Execution(), lambda unit, share: add(share * unit.n_cells * prompts[unit.shard])
        )
        parts = pd.concat([store.read(unit) for unit in units], ignore_index=True)  # type: ignore[arg-type]
    by_cell = dict(tuple(parts.groupby("cell", sort=False)))
    frames = [by_cell["" if cell is None else str(cell)].assign(edit=label) for label, cell in cells.items()]
    return pd.concat(frames, ignore_index=True)
