"""`laser-interp compose`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from laser_interp.cli.options import ModelOptions, Output
from laser_interp.selection.settings import CompositionSettings


def compose(
    *,
    model: ModelOptions,
    facts: str,
    out: Path | None = None,
    settings: Annotated[CompositionSettings, Parameter(name="*")] = CompositionSettings(),
    output: Output = Output(),
) -> None:
    """Add one LASER after the other while validation improves: guided by gradients, or in the paper's order.

    For example: laser-interp compose --model organism --facts organism --rho 0.4,0.05 --out runs/composed

    Args:
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        out: Folder for the results. The same command goes on from it.
    """
    from laser_interp.selection.composition import compose as run

    loaded, fact_set = model.load_with(facts)
    found = run(loaded, fact_set, settings, out=out, progress=not output.quiet)
    scores = found.scores[["edit", "split", "n", "score", "loss"]]
    result: dict[str, Any] = {"edit": str(found) if found.ranks else None, "scores": scores.to_dict("records")}
    text = f"Composed: {found}" if found.ranks else "No step improved on validation."
    text += f"\n{scores.to_string(index=False)}"
    if out is not None:
        result["steps"] = str(out / "tables" / "composition.parquet")
        text += f"\nAll steps: {result['steps']}"
    output.say(result, text)
