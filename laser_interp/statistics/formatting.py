"""How numbers stand in sentences and tables: intervals, points, odds ratios and p-values, each in one form."""

import math
from typing import Any

LEAST_P = 0.001  # that 1,999 permutations can give


def is_known(value: float | None) -> bool:
    """Whether there is a number: neither None nor NaN."""
    return value is not None and value == value


def interval(value: float | None, lo: float | None = None, hi: float | None = None, form: str = ".3f") -> str:
    """A number with its interval, where there is one; "–" where there is no number.

    Example:
        >>> interval(0.25, 0.1, 0.4, ".2f")
        '0.25 [0.10, 0.40]'
    """
    if not is_known(value):
        return "–"
    ends = f" [{lo:{form}}, {hi:{form}}]" if is_known(lo) and is_known(hi) else ""
    return f"{value:{form}}{ends}"


def points(change: float, lo: float | None = None, hi: float | None = None) -> str:
    """A change of a share, in percentage points, with its interval where there is one.

    Example:
        >>> points(0.25, 0.1, 0.4)
        '+25.0 points [+10.0, +40.0]'
    """
    ends = f" [{100 * lo:+.1f}, {100 * hi:+.1f}]" if lo is not None and hi is not None and is_known(lo) else ""
    return f"{100 * change:+.1f} points{ends}"


def in_nats(change: float, lo: float | None = None, hi: float | None = None) -> str:
    """A change of a log-probability, with its interval where there is one.

    Example:
        >>> in_nats(0.25, 0.1, 0.4)
        '+0.250 [+0.100, +0.400] nats'
    """
    return f"{interval(change, lo, hi, '+.3f')} nats"


def row_in_nats(row: Any, of: str = "change") -> str:
    """The change, or slope, of a log-probability in a row of a table that has `lo` and `hi`."""
    return in_nats(row[of], row["lo"], row["hi"])


def percent(share: float) -> str:
    """A share as in "12.3 %"."""
    return f"{100 * share:.1f} %"


def p_value(p: float) -> str:
    """As in "p = 0.03", but "p ≤ 0.001" for smaller values, which 1,999 permutations cannot tell apart."""
    return f"p ≤ {LEAST_P}" if p <= LEAST_P else f"p = {p:.2g}"


def odds_ratio(ratio: float, lo: float, hi: float) -> str:
    """An odds ratio with its interval, whose ends may be 0 and ∞; "" where there is no ratio."""
    if not math.isfinite(ratio):
        return ""
    return f"{ratio:.2f} [{f'{lo:.2f}' if lo > 0 else '0'}, {f'{hi:.2f}' if math.isfinite(hi) else '∞'}]"
