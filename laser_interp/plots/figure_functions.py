"""What every figure function accepts: the library's own objects, and options for axes, colours, size and title.

A function that draws takes tables. `figure_function` turns it into one that also takes an object that holds them (a
study, a search, an association, …), applies the style for papers, and has the options that users of seaborn know.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import pandas as pd

from laser_interp.extras import require
from laser_interp.plots.style import Canvas, drawing_on, in_a_style


def _test_prompts(first: pd.DataFrame, *_: pd.DataFrame) -> str:
    """How many prompts a figure shows, where its first table says so in `n`."""
    return f"n = {int(first['n'].max())} prompts, test split" if "n" in first else "test split"


def no_sample(*_: pd.DataFrame) -> str:
    """Nothing, for a figure that shows no prompts."""
    return ""


@dataclass(frozen=True)
class FigureFunction:
    """A figure: how it is drawn, from which tables, and what its caption says.

    Called with its tables or with an object that holds them, it draws. It has these options beside its own:

    - `ax`: matplotlib axes to draw into, or, for a figure of several panels, as many axes as it has. They are returned;
      without `ax`, the new figure is.
    - `palette`: colours, as a name that seaborn knows or as a list.
    - `figsize`: width and height in inches.
    - `title`: above the figure, or above the axes.
    - `style`, `columns`: see `li.plots.paper_style`. Inside such a block, what is left out is the block's.

    Attributes:
        draw: (tables) -> matplotlib figure.
        needed: names of the tables that it draws, in order.
        caption: what is drawn, in plain sentences.
        sample: (tables) -> over how many prompts or facts, for the caption.
        interactive: (tables) -> Plotly figure; None where it has no such form.
        of_one_edit: whether it shows one edit, which its caption then names.
        worth_drawing: (tables) -> whether there is enough for a figure.
    """

    draw: Callable[..., Any]
    needed: tuple[str, ...]
    caption: str
    sample: Callable[..., str] = _test_prompts
    interactive: Callable[..., Any] | None = None
    of_one_edit: bool = False
    worth_drawing: Callable[..., bool] = lambda *_: True

    @property
    def name(self) -> str:
        return self.draw.__name__

    def __call__(
        self,
        *results: Any,
        ax: Any = None,
        palette: Any = None,
        figsize: tuple[float, float] | None = None,
        title: str | None = None,
        style: str | None = None,
        columns: int | None = None,
        **options: Any,
    ) -> Any:
        """Draw it."""
        tables = tables_of(results, self.needed, self.name)
        with in_a_style(style, columns):
            with drawing_on(canvas := Canvas(ax, palette, figsize)):
                try:
                    figure = self.draw(*tables, **options)
                except KeyError as error:
                    if not isinstance(results[0], pd.DataFrame):
                        raise
                    raise ValueError(
                        f"{self.name} draws the tables {', '.join(self.needed)}, and this is another one "
                        f"({error.args[0]}): give these, or a result that holds them; li.plots.accuracy draws the "
                        "scores of li.score"
                    ) from None
            if title is not None and ax is not None:
                canvas.axes[0].set_title(title)
            elif title is not None and figure.legends:  # it has the place above the panels
                known = figure.legends[0].get_title().get_text()
                figure.legends[0].set_title(f"{title}\n{known}" if known else title)
            elif title is not None:
                figure.suptitle(title)
        return figure if ax is None else ax

    def draw_interactive(self, *results: Any, title: str | None = None, **options: Any) -> Any:
        """Draw it with Plotly.

        Raises:
            ValueError: it has no interactive form.
            ModuleNotFoundError: Plotly is not installed.
        """
        if self.interactive is None:
            raise ValueError(f"{self.name} has no interactive form: leave interactive out")
        require("page", "plotly", what="an interactive figure")
        figure = self.interactive(*tables_of(results, self.needed, self.name), **options)
        figure.update_layout(title=title, template="plotly_white", margin={"t": 50 if title else 25})
        return figure

    def can_draw(self, tables: Mapping[str, pd.DataFrame]) -> bool:
        """Whether its tables are there and hold something to draw."""
        there = all(name in tables and len(tables[name]) for name in self.needed)
        return there and self.worth_drawing(*(tables[name] for name in self.needed))

    def caption_of(self, tables: Mapping[str, pd.DataFrame], about: Mapping[str, Any]) -> str:
        """The caption: what is drawn, over how many, of which model and edit, and what draws it again."""
        parts = [self.sample(*(tables[name] for name in self.needed))]
        parts.append(f"model {about['model']}" if about.get("model") else "")
        if self.of_one_edit and about.get("edit"):
            parts.append(f"edit {about['edit']}")
        tail = f" ({', '.join(filter(None, parts))}.)" if any(parts) else ""
        drawn = f" Drawn by `{about['command']}`." if about.get("command") else ""
        return f"{self.caption}{tail}{drawn}\n"


def figure_function(*needed: str, caption: str, **how: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a figure of a function that draws tables; see `FigureFunction`, which the function then carries."""

    def decorate(draw: Callable[..., Any]) -> Callable[..., Any]:
        figure = FigureFunction(draw, needed, caption, **how)

        @wraps(draw)
        def drawn(*results: Any, **options: Any) -> Any:
            return figure(*results, **options)

        shown = inspect.signature(figure.__call__).parameters
        own = list(inspect.signature(draw).parameters.values())[len(needed) :]
        own = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in own]
        general = [p for p in shown.values() if p.name not in {"options", *(option.name for option in own)}]
        drawn.__signature__ = inspect.Signature([*general, *own])  # type: ignore[attr-defined]
        drawn.figure = figure  # type: ignore[attr-defined]
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
