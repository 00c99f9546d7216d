"""The page of a trajectory: what was found, the loss with a slider over checkpoints, and a table by step."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.extras import require
from laser_interp.plots.training_loss import loss_over_training
from laser_interp.statistics.formatting import percent
from laser_interp.statistics.through_training import in_words
from laser_interp.storage.outputs import PAGE_MARK
from laser_interp.storage.run_folder import read_tables

TABLE = "trajectory"  # a folder with this table holds a trajectory
_TABLES = (TABLE, *(f"{TABLE}_{name}" for name in ("changes", "recall", "spectra")))
_STYLE = ".steps td, .steps th { white-space: nowrap; }"
_SECURITY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def training_page(run: Path, style: str) -> str:
    """The page as HTML; it loads nothing from a network."""
    require("page", "plotly", what="the report")
    tables = read_tables(run)
    if missing := [name for name in _TABLES if name not in tables]:
        raise ValueError(f"{run} lacks the table {missing[0]}: run li.trajectory with the same settings there again")
    edit = str(tables[TABLE].attrs["provenance"]["edit"])
    title = html.escape(f"{edit} through training")
    figure = loss_over_training.figure.draw_interactive(tables[TABLE])  # type: ignore[attr-defined]
    drawn = figure.to_html(
        full_html=False, include_plotlyjs=True, config={"displaylogo": False}, auto_play=False, div_id="loss"
    )
    words = "".join(f"<p>{html.escape(line)}</p>" for line in in_words(tables, edit))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'{PAGE_MARK}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_SECURITY}"><title>{title}</title>'
        f'<link rel="icon" href="data:,"><style>{style}{_STYLE}</style></head><body>'
        f"<header><h1>{title}</h1></header><main>"
        f"<section><h2>What was found</h2>{words}</section>"
        '<section><h2>The loss of the answer, by checkpoint</h2><p class="hint">Move the slider to another step. Point '
        f"at a bar for its values.</p>{drawn}</section>"
        f'<section><h2>By step</h2><div class="scroll steps">{_by_step(tables[TABLE])}</div></section>'
        "</main></body></html>\n"
    )


def _by_step(table: pd.DataFrame) -> str:
    at: Any = table[table["facts"] == "all"].set_index(["step", "edit"]).unstack("edit")
    shown = {
        "accuracy as trained": at["accuracy", "base"].map(percent),
        "under the edit": at["accuracy", "laser"].map(percent),
        "loss as trained": (-at["logprob", "base"]).map("{:.3f}".format),
        "under the edit ": (-at["logprob", "laser"]).map("{:.3f}".format),
        "generic answers of the discarded part": at["answers_generic", "discarded"].map(percent),
    }
    return pd.DataFrame(shown).reset_index().to_html(index=False, border=0)
