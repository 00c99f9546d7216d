"""`laser-interp reproduce`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from laser_interp.cli.options import Output


def reproduce(
    *, example: str = "organism", out: Path = Path("runs/organism"), output: Annotated[Output, Parameter()] = Output()
) -> None:
    """Run the study of a shipped example: the paper's whole argument, with every control.

    Args:
        example: Name of the example.
        out: Folder for the results. The same command goes on from it.
    """
    from laser_interp.storage.run_folder import SUMMARY
    from laser_interp.studies.examples import reproduce as run

    found = run(out, example, progress=output.progress)
    output.say(dict(found.summary), f"{found.report}\nAll numbers: {out / SUMMARY}")
