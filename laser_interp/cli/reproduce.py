"""`laser-interp reproduce`."""

from pathlib import Path

from laser_interp.cli.options import Output, read_text


def reproduce(
    *, example: str = "organism", out: Path = Path("runs/organism"), text: Path | None = None, output: Output = Output()
) -> None:
    """Repeat the paper's whole argument on a shipped example: a small model or a real one.

    For example: laser-interp reproduce --out runs/organism

    Args:
        example: Name of the example.
        out: Folder for the results. The same command goes on from it.
        text: A text file whose perplexity is measured before and after, instead of the shipped text.
    """
    from laser_interp.storage.run_folder import SUMMARY
    from laser_interp.studies.examples import reproduce as run

    found = run(out, example, text=None if text is None else read_text(text), progress=not output.quiet)
    output.say(dict(found.summary), f"{found.report}\nAll numbers: {out / SUMMARY}")
