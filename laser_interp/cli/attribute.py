"""`laser-interp attribute`."""

from pathlib import Path
from typing import Literal

from laser_interp.cli.options import Flag, ModelOptions, Output


def attribute(
    *,
    model: ModelOptions,
    facts: str,
    sites: tuple[str, ...] = ("*.all",),
    by: Literal["relation", "subject", "split"] | None = None,
    split: str | None = None,
    blocks: str | None = None,
    memory: str | None = None,
    out: Path,
    force: Flag = False,
    output: Output = Output(),
) -> None:
    """Show which singular directions help or harm the answers, with one backward pass per batch.

    For example: laser-interp attribute --model organism --facts organism --out directions.parquet

    Args:
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        sites: Which matrices, as in *.mlp or 3.in.
        by: Average the gradients within each relation, subject or split.
        split: Split of the facts. If left out, validation if there is one: a proposal must not see test facts.
        blocks: Divide each matrix, as in 4, 4-inputs or 4-outputs-kmeans, and take the directions of its parts.
        memory: Memory that activations may take, as in 2GiB.
        out: A .parquet, .csv or .jsonl file with one row per direction.
        force: Replace whatever file has that name. Without it, only an earlier result of this command is replaced.
    """
    from laser_interp.discarded.attribution import attribute as run
    from laser_interp.storage.outputs import check_output, write_output
    from laser_interp.storage.provenance import provenance

    check_output(out, "directions", force=force)
    loaded, fact_set = model.load_with(facts)
    if split is not None or "validation" in fact_set.splits:
        fact_set = fact_set.split(split or "validation")
    found = run(loaded, fact_set, sites, blocks=blocks, memory=memory, progress=not output.quiet)
    proposed = found.propose().head(8)
    path = write_output(found.summary(by), out, "directions", provenance(loaded, fact_set))
    output.say(
        {"proposed": proposed.to_dict("records"), "directions": str(path)},
        "If effects were linear, LASER would change the mean log p(answer) by:\n"
        f"{proposed.round(4).to_string(index=False)}\nAll directions: {path}",
    )
