"""The one arrow that runs against the order: a result can be drawn.

Statistics and scores know nothing of figures. Classes that can be drawn inherit `Drawable`, which asks
`laser_interp.plots` only when a figure is wanted.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawable:
    """A result with a figure."""

    @cached_property
    def figure(self) -> Figure:
        """This result as a figure, in the style for papers."""
        return self.plot()

    def plot(self, **options: Any) -> Any:
        """Draw this result; the options are those of its function in `laser_interp.plots`."""
        from laser_interp.plots.registry import draw

        return draw(self, **options)
