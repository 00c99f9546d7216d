"""What every figure function accepts: the library's own objects, and options for axes, colours, size and title.

A function that draws takes tables. `figure_function` turns it into one that also takes an object that holds them (a
study, a search, an association, …), applies the style for papers, and has the options that users of seaborn know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import pandas as pd

from laser_interp.plots.style import Canvas, drawing_on, in_a_style, paper_style


def figure_function(*needed: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a function that draws tables also take the objects that hold them.

    The new function has these options beside the function's own:

    - `ax`: matplotlib axes to draw into, for figures of one panel. They are returned; without `ax`, the new figure is.
    - `palette`: colours, as a name that seaborn knows or as a list.
    - `figsize`: width and height in inches.
    - `title`: above the figure, or above the axes.
    - `style`, `columns`: see `li.plots.paper_style`. Left out inside such a block, the block's own apply.

    Args:
        needed: names of the tables that it draws, in order.
    """

    def decorate(draw: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(draw)
        def drawn(
            *results: Any,
            ax: Any = None,
            palette: Any = None,
            figsize: tuple[float, float] | None = None,
            title: str | None = None,
            style: str | None = None,
            columns: int = 1,
            **options: Any,
        ) -> Any:
            tables = tables_of(results, needed, draw.__name__)
            with in_a_style() if style is None and columns == 1 else paper_style(style or "paper", columns):
                with drawing_on(Canvas(ax, palette, figsize)):
                    figure = draw(*tables, **options)
                if title is not None and ax is not None:
                    ax.set_title(title)
                elif title is not None and figure.legends:  # it has the place above the panels
                    known = figure.legends[0].get_title().get_text()
                    figure.legends[0].set_title(f"{title}\n{known}" if known else title)
                elif title is not None:
                    figure.suptitle(title)
            return figure if ax is None else ax

        drawn.needed = needed  # type: ignore[attr-defined]
        return drawn

    return decorate


def tables_of(results: tuple[Any, ...], needed: tuple[str, ...], figure: str) -> list[pd.DataFrame]:
    """The tables that a figure draws, from themselves or from one object that holds them.

    Raises:
        ValueError: the object does not hold a table; the message says which, and what it holds.
        TypeError: the object holds no tables at all, or the number of tables is wrong.
    """
    if len(results) == len(needed) and all(isinstance(table, pd.DataFrame) for table in results):
        return list(results)
    if len(results) != 1 or isinstance(results[0], pd.DataFrame):
        raise TypeError(
            f"{figure} draws {len(needed)} {'table' if len(needed) == 1 else 'tables'} ({', '.join(needed)}), and was "
            f"given {len(results)}: give them in this order, or one result that holds them"
        )
    (result,) = results
    held = result if isinstance(result, Mapping) else getattr(result, "figure_tables", None)
    if held is None:
        raise TypeError(f"{figure} cannot draw a {type(result).__name__}: give the tables {', '.join(needed)}")
    if missing := [name for name in needed if name not in held]:
        raise ValueError(
            f"{figure} draws the table {missing[0]!r}, which this {type(result).__name__} does not hold: it has "
            f"{', '.join(sorted(held)) or 'none'}"
        )
    return [held[name] for name in needed]
