"""The code of a notebook, run in this process cell after cell, as in a kernel: `python -m notebook_cells NOTEBOOK`."""

import sys

import nbformat
from IPython.core.interactiveshell import InteractiveShell


def main(path: str) -> None:
    shell = InteractiveShell.instance()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source, store_history=True).raise_error()


if __name__ == "__main__":
    main(sys.argv[1])
