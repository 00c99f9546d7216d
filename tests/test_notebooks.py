"""The notebooks run, and are committed with what they showed."""

from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["rare_facts", "discarded_components"])
def test_notebooks_run_and_are_committed_with_their_outputs(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code if cell.source.splitlines()[-1][:1].isalpha() and "=" not in cell.source)
    assert sum(bool(cell.outputs) for cell in code) >= 5
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
