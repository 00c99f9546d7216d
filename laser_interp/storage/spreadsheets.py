"""csv files that are safe to open in a spreadsheet, which would run a cell that begins like a formula.

Such a cell is written with an apostrophe before it, as spreadsheets themselves do. Reading removes the apostrophe.
"""

import re

import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame for a csv file: texts that begin with = + - @ get an apostrophe before them."""
    return frame.map(lambda cell: f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell)


def as_written(cell: str) -> str:
    """A cell of a csv file without the apostrophe of `without_formulas`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
