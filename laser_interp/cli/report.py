"""`laser-interp report`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from laser_interp.cli.options import Flag, Output


def report(
    run: Path,
    compare_with: Path | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    counts: Path | None = None,
    max_facts: int = 20_000,
    force: Flag = False,
    output: Output = Output(),
) -> None:
    """Write a run as one interactive HTML page, which needs no network.

    For example: laser-interp report runs/organism -o report.html

    Args:
        run: Folder of a search, of a study or of reproduce.
        compare_with: Folder of a second run, to be compared with the first on the same page.
        out: The .html file. RUN/report.html if left out.
        counts: Training frequencies, from laser-interp count. Those in the run if left out.
        max_facts: Most facts in the page's table; a larger set is sampled.
        force: Replace whatever file has that name. Without it, only an earlier result of this command is replaced.
    """
    from laser_interp.report.page import write_report
    from laser_interp.storage.outputs import check_output
    from laser_interp.storage.tables import read_table

    out = run / "report.html" if out is None else out
    check_output(out, "page", suffixes=(".html",), force=force)
    frame = None if counts is None else read_table(counts, "counts")
    path = write_report(
        run, out, compare_with=compare_with, counts=frame, max_facts=max_facts, progress=not output.quiet
    )
    n_bytes = path.stat().st_size
    output.say(
        {"page": str(path), "bytes": n_bytes},
        f"{path} ({n_bytes / 1e6:.1f} MB): open it in a browser; it needs no network.",
    )
