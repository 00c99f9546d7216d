"""Draw a run's figures from its tables: `python -m figures [RUN] [--out FOLDER]`.

Without arguments: the organism's, from the tables committed beside them.
"""

import argparse
import sys
from pathlib import Path

from laser_interp.plots import figures as plots
from laser_interp.storage import tables as results

HERE = Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument(
        "run", nargs="?", type=Path, default=HERE / "organism", help="a run's folder (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder for the figures (default: RUN, or RUN/figures)")
    parser.add_argument("--style", default="paper", choices=list(plots.WIDTHS), help="default: %(default)s")
    parser.add_argument("--columns", type=int, default=1, choices=[1, 2], help="width (default: %(default)s)")
    args = parser.parse_args(argv)
    needed = {table for _, tables in plots.FIGURES.values() for table in tables}
    found = {name: args.run / "tables" / f"{name}.parquet" for name in sorted(needed)}
    cells = (found["layer_sweep"], args.run / "cells.parquet", args.run / "sweep" / "cells.parquet")
    found["layer_sweep"] = next((path for path in cells if path.is_file()), cells[0])  # a sweep's folder has no tables
    for name, of_compose in (("composition", "steps"), ("composition_scores", "scores")):
        if not found[name].is_file():
            found[name] = args.run / f"{of_compose}.parquet"
    tables = {name: results.read_table(path) for name, path in found.items() if path.is_file()}
    if not tables:
        print(
            f"figures: no tables in {args.run / 'tables'}: `laser-interp reproduce --out RUN` writes them",
            file=sys.stderr,
        )
        return 2
    out = args.out or (args.run if args.run == HERE / "organism" else args.run / "figures")
    shown = "" if args.run == HERE / "organism" else f" {args.run}"
    options = "" if (args.style, args.columns) == ("paper", 1) else f" --style {args.style} --columns {args.columns}"
    about = {"command": f"python -m figures{shown}{options}"}
    for path in plots.draw_all(tables, out, style=args.style, columns=args.columns, about=about):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
