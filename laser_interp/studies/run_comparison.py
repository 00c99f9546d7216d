"""Several studies side by side: where each gain comes from, and what a better prompt does instead."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import with_interval
from laser_interp.display import Drawable
from laser_interp.plots.names import PARTS
from laser_interp.statistics.decomposition import WHOLE
from laser_interp.statistics.frequency_slope import MASKED_LOG_ODDS
from laser_interp.storage.checksums import read_checked_json
from laser_interp.storage.run_folder import SUMMARY


@dataclass(frozen=True, repr=False)
class RunComparison(Drawable):
    """Studies side by side.

    Attributes:
        table: one row a run: `run`, `model`, `edit`, `n` prompts; the change of log p(answer) in nats (`whole`, with
            `whole_lo, whole_hi`) and its parts (`generic, kind, rivals, others, rest`); accuracy `as_trained` and
            `edited`; both with generic words forbidden (`as_trained_masked`, `edited_masked`); and on `n_examples`
            prompts with solved examples before them (`as_trained_examples`, `edited_examples`); and the `slope` of
            log-odds per tenfold frequency, generic words forbidden (`slope_lo, slope_hi`). NaN where a run did not ask.
    """

    table: pd.DataFrame

    figure_name = "atlas"
    drawn_from: ClassVar[Mapping[str, str]] = {"atlas": "table"}

    def __repr__(self) -> str:
        return f"RunComparison of {len(self.table)} runs\n{self.table.round(3).to_string(index=False, na_rep='–')}"


def compare_runs(runs: Sequence[str | Path]) -> RunComparison:
    """Put finished studies side by side; see `RunComparison`.

    Args:
        runs: folders of `li.study` or `laser-interp reproduce`.

    Raises:
        ValueError: no folder is given, or one holds no study by the rule next_token.
        FileNotFoundError: a folder holds no finished study.

    Example:
        >>> found = li.compare_runs(["runs/smollm2", "runs/gemma3-270m"])  # doctest: +SKIP
        >>> found.plot()  # doctest: +SKIP
    """
    if not runs:
        raise ValueError("no runs are given: expected one folder of a study or more")
    table = pd.DataFrame([_row(Path(run).resolve()) for run in runs])
    twice = table["run"].duplicated(keep=False)
    table.loc[twice, "run"] = [str(Path(*Path(run).resolve().parts[-2:])) for run in np.asarray(runs, object)[twice]]
    return RunComparison(table)


def _row(folder: Path) -> dict[str, Any]:
    if not (folder / SUMMARY).is_file():
        raise FileNotFoundError(f"{folder} holds no finished study: {SUMMARY} is missing")
    numbers = read_checked_json(folder / SUMMARY)
    if "decomposition" not in numbers:
        raise ValueError(f"{folder} holds no change in nats: expected a study by the rule next_token")
    whole = numbers["decomposition"][WHOLE]
    test = numbers["test"]
    row: dict[str, Any] = {
        "run": folder.name,
        "model": numbers["model"]["name"],
        "edit": numbers["selected"]["cell"],
        "n": test["base"]["n"],
    }
    row |= with_interval("whole", (whole["change"], whole["lo"], whole["hi"]))
    row |= {part: numbers["decomposition"].get(part, {}).get("change", math.nan) for part in PARTS}
    examples = next((row for row in numbers.get("prompts", ()) if "before" in row["prompts"]), None)
    for name, edit in (("as_trained", "base"), ("edited", "laser")):
        row[name] = test[edit]["top1"]
        row[f"{name}_masked"] = test[edit]["generic_masked_top1"]
        row[f"{name}_examples"] = math.nan if examples is None else examples[edit]["accuracy"]
    slope = numbers.get("slopes", {}).get(MASKED_LOG_ODDS, {})
    row |= with_interval("slope", (slope.get("slope", math.nan), slope.get("lo", math.nan), slope.get("hi", math.nan)))
    return row | {"n_examples": 0 if examples is None else examples["n"]}
