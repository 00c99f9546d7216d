"""Results that can draw themselves.

Statistics and scores do not import figures. Classes that can be drawn inherit `Drawable`, which imports
`laser_interp.plots` only when a figure is asked for. This is the one import against the order of the folders.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def named_row(table: pd.DataFrame, column: str, name: str) -> pd.Series:
    """The row of a table with this name.

    Raises:
        KeyError: there is none.
    """
    rows = table[table[column] == name]
    if rows.empty:
        raise KeyError(f"no {column} {name!r}: there are {', '.join(table[column])}")
    return rows.iloc[0]


class Drawable(ABC):
    """A result with a figure.

    Attributes:
        figure_name: of the figure that `plot` draws; a name in `li.plots.FIGURES`.
        drawn_from: name of a table that figures draw -> the attribute that holds it; without it, all of `tables`.
    """

    figure_name: str
    drawn_from: ClassVar[Mapping[str, str]] = {}
    tables: Mapping[str, Any]

    @property
    def figure_tables(self) -> Mapping[str, Any]:
        """The tables that figures draw, by name."""
        return {name: getattr(self, attribute) for name, attribute in self.drawn_from.items()} or self.tables

    @cached_property
    def figure(self) -> Figure:
        """This result as a figure, in the style for papers."""
        return self.plot()

    def plot(self, figure: str | None = None, *, interactive: bool = False, **options: Any) -> Any:
        """Draw this result.

        Args:
            figure: the name of another figure that can be drawn from its tables.
            interactive: as a Plotly figure (`pip install 'laser-interp[page]'`).
            options: `ax`, `palette`, `figsize`, `title`, `style`, `columns`, and those of the figure's function in
                `laser_interp.plots`, such as `metric`.

        Returns:
            The matplotlib figure; the axes, where `ax` was given; or a Plotly figure.

        Example:
            >>> search.plot(metric="top1", title="Which layers help")
        """
        from laser_interp.plots.registry import draw

        return draw(self, figure, interactive=interactive, **options)
