"""`laser-interp compare-runs`."""

from pathlib import Path

from laser_interp.cli.options import Output


def compare_runs(*runs: Path, out: Path | None = None, output: Output = Output()) -> None:
    """Put finished studies side by side: where each gain comes from, and what a better prompt does instead.

    For example: laser-interp compare-runs figures/smollm2 figures/gemma3-270m

    Args:
        runs: Folders of studies or of reproduce.
        out: Folder for the table (tables/atlas.parquet) and its figure. If left out, the table is only printed.
    """
    from laser_interp.plots.registry import draw_all
    from laser_interp.storage.run_folder import TABLES
    from laser_interp.storage.tables import write_table
    from laser_interp.studies.run_comparison import compare_runs as compare

    found = compare(runs)
    if out is not None:
        write_table(found.table, out / TABLES / "atlas.parquet", None, {"runs": [path.name for path in runs]})
        draw_all(found.figure_tables, out, about={"command": f"laser-interp compare-runs {' '.join(map(str, runs))}"})
    output.say({"runs": found.table.to_dict("records")}, repr(found))
