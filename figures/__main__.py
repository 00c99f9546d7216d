"""Draw the committed figures again from the tables committed beside them: `python -m figures`, in the checkout."""

import sys
from pathlib import Path

from laser_interp.plots.registry import draw_all, required_tables
from laser_interp.storage.run_folder import TABLES, read_tables

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Draw all of them; elsewhere than in the checkout nothing is written."""
    if Path.cwd().resolve() != HERE.parent:
        print(
            f"figures: run this in {HERE.parent}; `laser-interp figures RUN --out DIR` draws those of a run",
            file=sys.stderr,
        )
        return 2
    for folder in sorted(path.parent for path in HERE.glob(f"*/{TABLES}")):
        tables = read_tables(folder, required_tables())
        for path in draw_all(tables, folder, about={"command": "python -m figures"}):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
