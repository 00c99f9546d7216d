"""Results that can draw themselves.

Statistics and scores do not import figures. Classes that can be drawn inherit `Drawable`, which imports
`laser_interp.plots` only when a figure is asked for. This is the one import against the order of the folders.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawable(ABC):
    """A result with a figure.

    Attributes:
        figure_name: of the figure that `plot` draws; a name in `li.plots.FIGURES`.
    """

    figure_name: str

    @property
    @abstractmethod
    def figure_tables(self) -> Mapping[str, Any]:
        """The tables that figures draw, by name."""

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
