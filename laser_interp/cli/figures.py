"""`laser-interp figures`."""

from pathlib import Path

from laser_interp.cli.options import Output


def figures(
    run: Path, /, *, out: Path | None = None, style: str = "paper", columns: int = 1, output: Output = Output()
) -> None:
    """Draw a run's figures from its tables, as PDF and PNG, each with its caption and its data.

    For example: laser-interp figures runs/organism --style icml --out figures

    Args:
        run: Folder of a search, of a study or of reproduce.
        out: Folder for the figures. RUN/figures if left out.
        style: paper, neurips, icml, acl or nature.
        columns: 1 for the width of one column, 2 for the full width of the page's text.
    """
    from laser_interp.plots.registry import draw_all, required_tables
    from laser_interp.storage.run_folder import FIGURES, TABLES, read_tables

    tables = read_tables(run, required_tables())
    if not tables:
        raise ValueError(f"no tables in {run / TABLES}: `laser-interp reproduce --out {run}` writes them")
    options = "" if (style, columns) == ("paper", 1) else f" --style {style} --columns {columns}"
    about = {"command": f"laser-interp figures {run}{options}"}
    paths = draw_all(tables, out or run / FIGURES, style=style, columns=columns, about=about)
    if not paths:
        raise ValueError(
            f"{run} holds only the tables {', '.join(sorted(tables))}, from which no figure is drawn: a search with "
            "--method grid --test all draws the effect of each layer, and a study draws all figures"
        )
    output.say({"figures": [str(path) for path in paths]}, "\n".join(map(str, paths)))
