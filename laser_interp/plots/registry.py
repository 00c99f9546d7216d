"""Every figure by name: the function that draws it, and the tables it draws."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.choices import names_with_suggestion
from laser_interp.plots.answer_categories import discarded_answers
from laser_interp.plots.captions import caption
from laser_interp.plots.composition_steps import composition
from laser_interp.plots.control_bars import controls
from laser_interp.plots.edit_comparison import compared_edits
from laser_interp.plots.frequency_panels import accuracy_by_frequency, rare_facts
from laser_interp.plots.gradient_map import attribution_map
from laser_interp.plots.loss_by_layer import loss_by_layer
from laser_interp.plots.paraphrase_bars import robustness
from laser_interp.plots.relation_changes import relations
from laser_interp.plots.simulated_errors import frequency_simulation
from laser_interp.plots.singular_values import spectrum
from laser_interp.plots.style import paper_style, style_of
from laser_interp.plots.transfer_map import transfer
from laser_interp.plots.trap_simulation import frequency_trap

_FUNCTIONS = (
    loss_by_layer,
    spectrum,
    rare_facts,
    discarded_answers,
    controls,
    relations,
    robustness,
    composition,
    transfer,
    attribution_map,
    compared_edits,
    frequency_simulation,
    frequency_trap,
)
# name -> (function, the tables it draws, in order)
FIGURES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    function.__name__: (function, function.needed)  # type: ignore[attr-defined]
    for function in _FUNCTIONS
}


def draw(result: Any, figure: str | None = None, *, interactive: bool = False, **options: Any) -> Any:
    """Draw a result; see `laser_interp.display.Drawable`.

    Args:
        figure: name of the figure in `FIGURES`; if left out, the result's own figure.
        interactive: make a Plotly figure, which shows a value when the mouse points at its mark.
        options: of the function that draws it; see `laser_interp.plots.figure_functions`.

    Raises:
        ValueError: no such figure, or one that has no interactive form.
    """
    name = result.figure_name if figure is None else figure
    known: dict[str, Callable[..., Any]] = {name: function for name, (function, _) in FIGURES.items()}
    known["accuracy_by_frequency"] = accuracy_by_frequency
    if name not in known:
        raise ValueError(f"there is no figure {name!r}: expected {names_with_suggestion(known, name)}")
    if interactive:
        from laser_interp.plots.interactive import draw_interactive

        return draw_interactive(name, result, known[name].needed, **options)  # type: ignore[attr-defined]
    return known[name](result, **options)


def required_tables() -> list[str]:
    """The names of all tables that figures are drawn from."""
    return sorted({table for _, needed in FIGURES.values() for table in needed})


def draw_figure(name: str, tables: Mapping[str, pd.DataFrame]) -> Any:
    """One figure by name, from its tables."""
    function, _ = FIGURES[name]
    return function(tables)


def draw_all(
    tables: Mapping[str, pd.DataFrame],
    folder: str | Path,
    *,
    style: str = "paper",
    columns: int = 1,
    about: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Draw every figure whose tables are there, as PDF and PNG, each with its caption (.txt) and its data (.csv).

    Equal tables give equal files: no dates are written into them.

    Args:
        style, columns: see `style_of`.
        about: `model`, `edit` and `command`, for the captions; the provenance of the tables fills in missing ones.
    """
    style_of(style, columns)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (draw, needed) in FIGURES.items():
        if not all(table in tables and len(tables[table]) for table in needed):
            continue
        if (
            name == "loss_by_layer"
            and tables["cells"].query("kind == 'laser' and split == 'test'")["site"].nunique() < 2
        ):
            continue  # a search that tests the chosen cell alone makes no map
        with paper_style(style, columns):
            figure = draw(*(tables[table] for table in needed))
            for suffix, metadata in (
                (".pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
                (".png", {"Software": None}),
            ):
                figure.savefig(folder / f"{name}{suffix}", metadata=metadata)
                written.append(folder / f"{name}{suffix}")
        known = tables[needed[0]].attrs.get("provenance", {}) | dict(about or {})
        (folder / f"{name}.txt").write_text(caption(name, tables, needed, known), encoding="utf-8")
        for table in needed:
            path = folder / (f"{name}.csv" if len(needed) == 1 else f"{name}.{table.removeprefix(name + '_')}.csv")
            tables[table].to_csv(path, index=False)
    return written
