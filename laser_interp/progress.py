"""Progress of long work: a bar in a terminal or a notebook, and a line every ten seconds elsewhere."""

import sys
from collections.abc import Callable
from typing import Any, TextIO

SECONDS = 10.0  # between two lines in a file or a pipe


def progress_bar(*arguments: Any, **options: Any) -> Any:
    """A bar of `tqdm`, which takes the same arguments.

    Where standard error is a file or a pipe, as in a batch job, carriage returns would make one endless line. Each
    state is then a line of its own, at most one in ten seconds, and short work writes none.

    Example:
        >>> for cell in progress_bar(cells, desc="scoring", unit="cell"): ...
    """
    from tqdm.auto import tqdm

    in_notebook = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
    if not in_notebook and not sys.stderr.isatty():
        options |= {"file": _Lines(sys.stderr), "mininterval": SECONDS, "maxinterval": SECONDS, "delay": SECONDS}
        options |= {"unit": options.get("unit", "").strip(), "bar_format": _format(arguments, options)}
    return tqdm(*arguments, **options)


def by_fractions(bar: Any) -> Callable[[float], None]:
    """What moves a bar by any amounts, so that rounding does not add up."""
    done = float(bar.n)

    def add(amount: float) -> None:
        nonlocal done
        done += amount
        bar.update(round(done) - bar.n)

    return add


def _format(arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    if options.get("total") or (arguments and hasattr(arguments[0], "__len__")):
        return "{desc}: {n_fmt} of {total_fmt} {unit} ({percentage:.0f} %), {elapsed} passed, about {remaining} left"
    return "{desc}: {n_fmt} {unit}, {elapsed} passed"


class _Lines:
    """What a bar writes, a line for each state, and none for a state that was written already."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> None:
        text = text.strip()
        if text and text != self._last:
            self._stream.write(text + "\n")
            self._last = text

    def flush(self) -> None:
        self._stream.flush()
