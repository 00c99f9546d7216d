"""Draw the committed figures again from the tables committed beside them, in the checkout.

`python -m figures` draws them. `python -m figures organism RUN` first takes the tables, the numbers and the report
from a run: the folder `figures/organism` then shows what RUN found.
"""

import gzip
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from laser_interp.plots.registry import draw_all, required_tables
from laser_interp.report.page import page_of
from laser_interp.storage.atomic import write_text
from laser_interp.storage.run_folder import FIGURES_LINE, REPORT, SUMMARY, TABLES, read_tables

HERE = Path(__file__).resolve().parent
PAGE = "page.json.gz"  # the documentation makes a page of it
LARGEST_PAGE = 3_000_000
LARGEST = 500_000  # bytes of a table; the attribution of a real model is too large for the repository
ALSO = ("rare_facts_relations", "rare_facts_effects")  # what a notebook shows beside the figures


def main(argv: Sequence[str]) -> int:
    """Draw all of them; elsewhere than in the checkout nothing is written."""
    if Path.cwd().resolve() != HERE.parent or len(argv) not in (0, 2):
        print(
            f"figures: run `python -m figures` or `python -m figures NAME RUN` in {HERE.parent}; "
            "`laser-interp figures RUN --out DIR` draws those of a run",
            file=sys.stderr,
        )
        return 2
    if argv:
        take(*argv)
    for folder in sorted(path.parent for path in HERE.glob(f"*/{TABLES}")):
        tables = read_tables(folder, required_tables())
        for path in draw_all(tables, folder, about={"command": "python -m figures"}):
            print(path)
    return 0


def take(name: str, run: str) -> None:
    """Copy the tables that figures need, the numbers and the report. Files that the run does not have are kept."""
    tables = HERE / name / TABLES
    tables.mkdir(parents=True, exist_ok=True)
    for needed in (*required_tables(), *ALSO):
        path = Path(run) / TABLES / f"{needed}.parquet"
        if path.is_file() and path.stat().st_size <= LARGEST:
            shutil.copyfile(path, tables / path.name)
    if (Path(run) / SUMMARY).is_file():
        shutil.copyfile(Path(run) / SUMMARY, HERE / name / SUMMARY)
    if (Path(run) / REPORT).is_file():  # its figures lie beside it here
        report = (Path(run) / REPORT).read_text(encoding="utf-8").partition(f"\n{FIGURES_LINE}")[0]
        write_text(f"{report.rstrip()}\n", HERE / name / REPORT)
    page = json.dumps(page_of([run], max_bytes=LARGEST_PAGE), allow_nan=False)
    (HERE / name / PAGE).write_bytes(gzip.compress(page.encode(), mtime=0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
