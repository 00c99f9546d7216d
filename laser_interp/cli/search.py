"""`laser-interp search`."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from laser_interp.choices import Executor
from laser_interp.cli.options import Flag, ModelOptions, Output, note, read_text
from laser_interp.selection.settings import SearchSettings
from laser_interp.statistics.formatting import points

if TYPE_CHECKING:
    from laser_interp.selection.search_result import Search


def search(
    *,
    model: ModelOptions,
    facts: str,
    text: Path | None = None,
    out: Path | None = None,
    settings: Annotated[SearchSettings, Parameter(name="*")] = SearchSettings(),
    executor: Executor = "local",
    workers: int | None = None,
    dry_run: Flag = False,
    output: Output = Output(),
) -> None:
    """Find the edit that helps most: validation facts choose it, test facts measure it.

    For example: laser-interp search --model organism --facts organism --matrices mlp --rho 0.2,0.05 --out runs/search

    Args:
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        text: A text file, for the method rmt.
        out: Folder for the results. The same command goes on from it.
        executor: Run on this machine, or on a Ray cluster.
        workers: How many Ray actors.
        dry_run: Only estimate the size of the grid, and the time and memory for all of it. Nothing is written.
    """
    from laser_interp.selection.cost_estimate import estimate
    from laser_interp.selection.search_run import search as run

    if out is None and not dry_run:
        raise ValueError("--out is missing: give a folder for the results, or --dry-run for an estimate alone")
    running = None if text is None else read_text(text)
    loaded, fact_set = model.load_with(facts)
    if out is None or dry_run:
        needed = estimate(loaded, fact_set, settings)
        part = (
            "" if needed.method == "grid" else f"; this is for the whole grid, of which the {needed.method} runs a part"
        )
        output.say(asdict(needed), f"{needed}{part}")
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lifted to rank 1 or dropped")  # the notes say it
        found = run(
            loaded,
            fact_set,
            settings,
            text=running,
            out=out,
            executor=executor,
            workers=workers,
            progress=not output.quiet,
        )
    for line in found.notes:
        note(line)
    try:
        result = _result(found, out)
    except ValueError as error:  # no edit was accepted, which is a result
        cells = str(out / "tables" / "cells.parquet")
        output.say({"selected": None, "why": str(error), "cells": cells}, f"{error}.\nAll cells: {cells}")
        return
    output.say(result, _in_words(result))


def _result(found: Search, out: Path) -> dict[str, Any]:
    chosen = found.select()
    test = found.cells[found.cells["split"] == "test"]
    rows = {"base": test[test["kind"] == "base"], "edit": test[test["cell"] == str(chosen.cell)]}
    return {
        "selected": str(chosen.cell),
        "spent": None if found.spent is None else asdict(found.spent) | {"in_words": str(found.spent)},
        "improves_validation": chosen.improves,
        "validation": {
            "base": {"score": chosen.base_score, "loss": chosen.base_loss},
            "edit": {"score": chosen.score, "loss": chosen.loss},
        },
        "test": {
            name: {k: row.iloc[0][k] for k in ("n", "score", "loss", "score_change_se")} if len(row) else None
            for name, row in rows.items()
        },
        "cells": str(out / "tables" / "cells.parquet"),
    }


def _in_words(result: dict[str, Any]) -> str:
    better = "" if result["improves_validation"] else ", which is no better than no edit"
    looked_at = f" ({result['spent']['in_words']})" if result["spent"] else ""
    lines = [f"Validation selects {result['selected']}{better}{looked_at}."]
    for split in ("validation", "test"):
        before, after = result[split]["base"], result[split]["edit"]
        if before and after:
            asked, changed = "", ""
            if split == "test":
                asked = f" ({after['n']} prompts)"
                error = f"standard error over subjects {100 * after['score_change_se']:.1f}"
                changed = f" ({points(after['score'] - before['score'])}, {error})"
            lines.append(
                f"{split}{asked}: score {before['score']:.4f} -> {after['score']:.4f}{changed}, "
                f"loss {before['loss']:.4f} -> {after['loss']:.4f}"
            )
    return "\n".join([*lines, f"All cells: {result['cells']}"])
