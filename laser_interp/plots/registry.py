"""Every figure by name; a new figure is one file, and a line here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.choices import names_with_suggestion
from laser_interp.plots.answer_by_layer import answer_by_layer
from laser_interp.plots.answer_categories import discarded_answers
from laser_interp.plots.atlas_bars import atlas
from laser_interp.plots.composition_steps import composition
from laser_interp.plots.control_bars import controls
from laser_interp.plots.decomposition_steps import decomposition
from laser_interp.plots.edit_comparison import compared_edits
from laser_interp.plots.figure_functions import FigureFunction
from laser_interp.plots.frequency_panels import accuracy_by_frequency, rare_facts
from laser_interp.plots.generic_words_ahead import generic_ahead
from laser_interp.plots.gradient_map import attribution_map
from laser_interp.plots.loss_by_layer import loss_by_layer
from laser_interp.plots.paraphrase_bars import robustness
from laser_interp.plots.recall_steps import first_recall
from laser_interp.plots.relation_changes import relations
from laser_interp.plots.singular_values import spectrum
from laser_interp.plots.slope_points import frequency_slopes
from laser_interp.plots.style import paper_style, style_of
from laser_interp.plots.training_loss import loss_over_training
from laser_interp.plots.training_spectra import spectrum_over_training
from laser_interp.plots.transfer_map import transfer

# name -> figure, those of a study first
FIGURES: dict[str, FigureFunction] = {
    function.figure.name: function.figure  # type: ignore[attr-defined]
    for function in (
        loss_by_layer,
        spectrum,
        decomposition,
        frequency_slopes,
        rare_facts,
        accuracy_by_frequency,
        discarded_answers,
        controls,
        relations,
        robustness,
        composition,
        transfer,
        attribution_map,
        compared_edits,
        atlas,
        loss_over_training,
        first_recall,
        spectrum_over_training,
        generic_ahead,
        answer_by_layer,
    )
}


def draw(result: Any, figure: str | None = None, *, interactive: bool = False, **options: Any) -> Any:
    """Draw a result; see `laser_interp.display.Drawable`.

    Args:
        figure: name of the figure in `FIGURES`; if left out, the result's own figure.
        interactive: make a Plotly figure, which shows a value when the mouse points at its mark.
        options: of the figure; see `laser_interp.plots.figure_functions`.

    Raises:
        ValueError: no such figure, or one that has no interactive form.
    """
    name = result.figure_name if figure is None else figure
    if name not in FIGURES:
        raise ValueError(f"there is no figure {name!r}: expected {names_with_suggestion(FIGURES, name)}")
    return FIGURES[name].draw_interactive(result, **options) if interactive else FIGURES[name](result, **options)


def required_tables() -> list[str]:
    """The names of all tables that figures are drawn from."""
    return sorted({table for figure in FIGURES.values() for table in figure.needed})


def draw_all(
    tables: Mapping[str, pd.DataFrame],
    folder: str | Path,
    *,
    style: str = "paper",
    columns: int = 1,
    about: Mapping[str, Any] | None = None,
    figures: Sequence[FigureFunction] | None = None,
) -> list[Path]:
    """Draw every figure whose tables are there, as PDF and PNG, each with its caption (.txt) and its data (.csv).

    Equal tables give equal files: no dates are written into them.

    Args:
        style, columns: see `style_of`.
        about: `model`, `edit` and `command`, for the captions; the provenance of the tables fills in missing ones.
        figures: other figures than those of `FIGURES`.
    """
    style_of(style, columns)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in FIGURES.values() if figures is None else figures:
        if not figure.can_draw(tables):
            continue
        name, needed = figure.name, figure.needed
        with paper_style(style, columns):
            drawn = figure(*(tables[table] for table in needed))
            for suffix, metadata in (
                (".pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
                (".png", {"Software": None}),
            ):
                drawn.savefig(folder / f"{name}{suffix}", metadata=metadata)
                written.append(folder / f"{name}{suffix}")
        known = tables[needed[0]].attrs.get("provenance", {}) | dict(about or {})
        (folder / f"{name}.txt").write_text(figure.caption_of(tables, known), encoding="utf-8")
        for table in needed:
            path = folder / (f"{name}.csv" if len(needed) == 1 else f"{name}.{table.removeprefix(name + '_')}.csv")
            tables[table].to_csv(path, index=False)
    return written
