"""Two runs beside each other, for the top of their common page: what each found, and the facts that both asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.plots.names import plain_name
from laser_interp.report.run_reader import KEYS, FinishedRun
from laser_interp.storage.run_folder import read_tables
from laser_interp.studies.question import PageTable


def labels_of(folders: Sequence[Path], runs: Sequence[FinishedRun]) -> list[str]:
    """What each run is called: its model, with its folder's name where the models are the same."""
    models = [str(run.about.get("model", "a model")) for run in runs]
    if len(set(models)) == len(models):
        return models
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"run {i + 1}" for i in range(len(names))]
    return [f"{model} ({name})" for model, name in zip(models, names, strict=True)]


def side_by_side(folders: Sequence[Path], runs: Sequence[FinishedRun], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Tables with a column for each run."""
    columns = [_column(folder, run) for folder, run in zip(folders, runs, strict=True)]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, *(column.get(name) for column in columns)) for name in names]
    tables = [
        PageTable(
            "two-runs",
            "The two runs",
            "Numbers are accuracies unless the row says otherwise. The edit is what validation chose in each run.",
            ("what", *labels),
            pd.DataFrame(rows, dtype=object),
        )
    ]
    if (common := _common_facts(runs)) is not None:
        tables.append(
            PageTable(
                "same-facts",
                "The prompts that both runs asked",
                "How many test prompts the chosen edit of each run fixed, broke or left as they were.",
                (f"{labels[0]}, down; {labels[1]}, across", *_OUTCOMES.values()),
                common,
            )
        )
    return [table.as_json() for table in tables]


def _column(folder: Path, run: FinishedRun) -> dict[str, Any]:
    means = run.cells.set_index(["cell", "split"])
    out: dict[str, Any] = {"model": run.about.get("model"), "facts": run.about.get("facts"), "the edit": run.selected}
    for split in ("validation", "test"):
        for what, name in (("as trained", ""), ("under the edit", run.selected)):
            if (name, split) in means.index:
                out[f"{split}, {what}"] = means.loc[(name, split), "top1"]
        if ("", split) in means.index:
            out[f"{split}, prompts"] = means.loc[("", split), "n"]
    for table in read_tables(folder, ["controls"]).values():
        for name, accuracy in zip(table["control"], table["accuracy"], strict=True):
            if name not in ("base", "laser", "single"):
                out[f"test, control “{plain_name(name)}”"] = accuracy
    return out


# (right before, right after) -> what became of a prompt
_OUTCOMES = {(0, 1): "fixed", (1, 0): "broken", (1, 1): "right before and after", (0, 0): "wrong before and after"}


def _common_facts(runs: Sequence[FinishedRun]) -> pd.DataFrame | None:
    outcomes = []
    for run in runs:
        before, after = run.right[""], run.right.get(run.selected)
        if after is None:
            return None
        kinds = np.array([_OUTCOMES.get(pair) for pair in zip(before.tolist(), after.tolist(), strict=True)], object)
        asked = (run.items["split"] == "test").to_numpy() & np.isfinite(before) & np.isfinite(after)
        texts = [prompt for fact in run.facts for prompt in fact.prompts]
        outcomes.append(run.items[KEYS].assign(prompt=texts, kind=kinds)[asked])
    both = outcomes[0].merge(outcomes[1], on=[*KEYS, "prompt"])
    if both.empty:
        return None
    kinds = list(_OUTCOMES.values())
    counts = pd.crosstab(both["kind_x"], both["kind_y"])
    return counts.reindex(index=kinds, columns=kinds, fill_value=0).reset_index()
