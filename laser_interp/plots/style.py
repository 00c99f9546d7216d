"""Styles and widths of venues, and the figure that every function starts from."""

import io
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.style as mpl_style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from laser_interp.choices import names_with_suggestion
from laser_interp.extras import require

# Widths in inches of one column and of the page's text, as each venue's template has them. NeurIPS has a single
# column, so half the width of its text is used for one.
WIDTHS = {"paper": (3.25, 6.75), "neurips": (2.75, 5.5), "icml": (3.25, 6.75), "acl": (3.03, 6.3), "nature": (3.5, 7.2)}
PAPER_STYLE: dict[str, Any] = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.0,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Canvas:
    """What a caller sets for the next figure: axes, colours and size. None is the default of this package."""

    ax: Any = None
    palette: Any = None
    figsize: tuple[float, float] | None = None

    @property
    def axes(self) -> list[Any]:
        """The caller's axes, in the order in which they are read."""
        return [] if self.ax is None else list(np.ravel(np.asarray(self.ax, dtype=object)))


_OURS = Canvas()
_canvas: ContextVar[Canvas] = ContextVar("canvas", default=_OURS)
_block: ContextVar[tuple[str, int] | None] = ContextVar("block", default=None)  # style and columns


@contextmanager
def drawing_on(canvas: Canvas) -> Iterator[None]:
    """Figures made inside are made as the caller wants them."""
    before = _canvas.set(canvas)
    try:
        yield
    finally:
        _canvas.reset(before)


def palette() -> list[Any]:
    """The caller's colours, else seaborn's for colour-blind readers; fewer than ten are repeated."""
    import seaborn as sns

    asked = _canvas.get().palette
    return list(sns.color_palette("colorblind" if asked is None else asked, 10))


def sequence(n: int) -> list[Any]:
    """Colours of an ordered quantity: the caller's, else from light to dark."""
    import seaborn as sns

    asked = _canvas.get().palette
    return list(sns.color_palette("viridis_r" if asked is None else asked, n))


def diverging(default: str) -> Any:
    """The colour map of a signed quantity: the caller's, else this one.

    A caller's list of colours, or the name of a palette that is no colour map, gives one from its first colour over
    white to its second.
    """
    import seaborn as sns

    asked = _canvas.get().palette
    if asked is None or (isinstance(asked, str) and asked in mpl.colormaps):
        return default if asked is None else asked
    low, high = sns.color_palette(asked, 2)
    return sns.blend_palette([low, "white", high], as_cmap=True)


def style_of(style: str = "paper", columns: int = 1) -> dict[str, Any]:
    """matplotlib settings of a venue: its fonts and sizes, its width, fonts embedded as TrueType.

    Args:
        style: one of `WIDTHS`. NeurIPS and ICML come from tueplots, Nature from SciencePlots. No maintained package has
            ACL: it is Times in the font sizes of ACL's template.
        columns: 1 for the width of a column, 2 for that of the page's text.

    Raises:
        ValueError: another style or number of columns.
    """
    if style not in WIDTHS:
        raise ValueError(f"style is {style!r}: expected {names_with_suggestion(WIDTHS, style)}")
    if columns not in (1, 2):
        raise ValueError(f"columns is {columns}: expected 1 or 2")
    venue: dict[str, Any] = {}
    if style in ("neurips", "icml"):
        require("styles", "tueplots", what=f"the style {style!r}")
        from tueplots import bundles

        bundle = bundles.neurips2024 if style == "neurips" else bundles.icml2024
        venue = {str(name): value for name, value in bundle(usetex=False).items()}
    elif style == "nature":
        require("styles", "scienceplots", what="the style 'nature'")
        import scienceplots  # noqa: F401  # registers its styles

        venue = {str(name): value for name, value in mpl_style.library["nature"].items()}
        venue["font.sans-serif"] = ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"]
    elif style == "acl":
        venue = {"font.size": 9, "axes.labelsize": 9, "axes.titlesize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8}
        venue |= {"legend.fontsize": 8}
    # Sizes and fonts are the venue's; colours and layout are ours.
    ours = ("axes.prop_cycle", "font.serif")
    wanted = {
        name: value
        for name, value in venue.items()
        if name not in ours and (name.partition(".")[0] in ("font", "axes", "xtick", "ytick") or "fontsize" in name)
    }
    serif = {"font.serif": ["Times New Roman", "Times", "STIXGeneral", "DejaVu Serif"]} if style != "paper" else {}
    width = WIDTHS[style][columns - 1]
    if width < 3.2:  # a narrow column has no room for more
        wanted |= {k: min(v, 7.5) for k, v in wanted.items() if k.endswith("size") and isinstance(v, int | float)}
    return PAPER_STYLE | wanted | serif | {"figure.figsize": (width, 2.5), "text.usetex": False}


@contextmanager
def paper_style(style: str = "paper", columns: int = 1) -> Iterator[None]:
    """Figures made inside are drawn for print, see `style_of`; nothing changes outside."""
    settings: Any = style_of(style, columns)
    before = _block.set((style, columns))
    try:
        with _quiet_fonts(), mpl.rc_context(settings):
            yield
    finally:
        _block.reset(before)


def in_a_style(style: str | None, columns: int | None) -> AbstractContextManager[None]:
    """The style of a figure. What is None is as in a surrounding `paper_style` block; without one, as for papers."""
    block = _block.get()
    if block is not None and style is None and columns is None:
        return nullcontext()
    of_block, columns_of_block = block or ("paper", 1)
    return paper_style(of_block if style is None else style, columns_of_block if columns is None else columns)


@contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Silence matplotlib's warnings about fonts that are not installed; it takes the first installed one of a list."""
    log = logging.getLogger("matplotlib.font_manager")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def new_figure(rows: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """A figure of the style's width; `height` in inches. A notebook shows it, in its style, without `%matplotlib`.

    If the caller gave axes, these and their figure are returned instead of a new one.

    Raises:
        ValueError: another number of axes was given than the figure has panels.
    """
    asked = _canvas.get()
    if given := asked.axes:
        if len(given) != rows * columns:
            raise ValueError(
                f"this figure has {rows * columns} panels: give as many axes, as of plt.subplots({rows}, {columns}), "
                "or leave ax out"
            )
        return given[0].figure, np.array(given, dtype=object).reshape(rows, columns)
    # Fonts are looked up when a figure is drawn, which may be after its style's block has ended.
    fonts: Any = {name: value for name, value in mpl.rcParams.items() if name.startswith(("font.", "mathtext."))}

    class Shown(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            data = io.BytesIO()
            with _quiet_fonts(), mpl.rc_context(fonts):
                self.savefig(data, format="png", dpi=220, metadata={"Software": None})
            return data.getvalue(), {"width": round(110 * self.get_figwidth())}

    figure = Shown(figsize=asked.figsize or (mpl.rcParams["figure.figsize"][0], height))
    FigureCanvasAgg(figure)  # no global state, no window
    return figure, np.atleast_2d(figure.subplots(rows, columns, squeeze=False, **kwargs))


def label_panels(axes: np.ndarray, x: str | None = None, y: str | None = None, *, fontsize: float = 7) -> None:
    """One label below all panels, or beside them. The caller's own axes, whose figure may hold others too, get it below
    each column and beside each row instead."""
    if _canvas.get().axes:
        for column in axes.T if x is not None else ():
            [ax for ax in column if ax.get_visible()][-1].set_xlabel(x)
        for ax in axes[:, 0] if y is not None else ():
            ax.set_ylabel(y)
        return
    if x is not None:
        axes[0, 0].figure.supxlabel(x, fontsize=fontsize)
    if y is not None:
        axes[0, 0].figure.supylabel(y, fontsize=fontsize)


def legend(*axes: Any, **options: Any) -> None:
    """A legend above the figure's panels, of what these show; inside the caller's own axes, where these were given."""
    asked = _canvas.get()
    shown = [entry for ax in axes for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    handles, labels = [handle for handle, _ in shown], [label for _, label in shown]
    if asked.axes:
        asked.axes[0].legend(handles, labels, fontsize=options.get("fontsize", 6), title=options.get("title"))
    else:
        axes[0].figure.legend(handles, labels, loc="outside upper center", **options)
