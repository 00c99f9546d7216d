"""Draw a run's figures from its tables: `python -m figures [RUN] [--out FOLDER]`.

Without arguments: the organism's, from the tables committed beside them.
"""

import argparse
import sys
from pathlib import Path

from laser_interp import plots, results

HERE = Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument(
        "run", nargs="?", type=Path, default=HERE / "organism", help="a run's folder (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder for the figures (default: RUN, or RUN/figures)")
    args = parser.parse_args(argv)
    needed = {table for _, tables in plots.FIGURES.values() for table in tables}
    tables = {
        name: results.read_table(args.run / "tables" / f"{name}.parquet")
        for name in sorted(needed)
        if (args.run / "tables" / f"{name}.parquet").is_file()
    }
    if not tables:
        print(
            f"figures: no tables in {args.run / 'tables'}: `laser-interp reproduce --out RUN` writes them",
            file=sys.stderr,
        )
        return 2
    out = args.out or (args.run if args.run == HERE / "organism" else args.run / "figures")
    for path in plots.draw_all(tables, out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
