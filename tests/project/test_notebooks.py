"""The notebooks run, and are committed with what they showed."""

import os
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest
from preloaded_commands import run_preloaded

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
# What a reader should find in the first one: the package's main calls.
TOUR = ("load_model", "load_facts", "laser", "discarded", "inject", "on", "generate", "next_token_logprobs",
        "score", "search", "select", "count", "associate", "favoured_answers")  # fmt: skip


def test_all_are_here():
    expected = {
        "discarded_components",
        "quickstart",
        "rare_facts",
        "real_model",
        "reproduce_the_paper",
        "through_training",
        "transformer_lens",
        "your_own_model",
    }
    assert set(NAMES) == expected


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_committed_with_their_outputs(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code if cell.source.splitlines()[-1][:1].isalpha() and "=" not in cell.source)
    assert sum(bool(cell.outputs) for cell in code) >= 5
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    for cell in code:
        if cell.source.splitlines()[-1].endswith("figure"):
            assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source
    assert any("GPU" in cell.source for cell in notebook.cells)  # what changes with one
    shown = "".join(str(cell.outputs) for cell in code)
    assert "/tmp/" not in shown
    assert str(ROOT) not in shown  # no path of the machine it was executed on
    if name == "quickstart":
        for call in TOUR:
            assert any(f".{call}(" in cell.source for cell in code), call


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run(name, tmp_path, few_facts):
    """Every cell, in a process that has imported the libraries already, with a fifth of the organism's facts."""
    done = run_preloaded(
        ["python", "-m", "notebook_cells", str(ROOT / "notebooks" / f"{name}.ipynb")], beside_the_figures(tmp_path),
        {**os.environ, "MPLBACKEND": "Agg"}, few_facts,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run_in_a_kernel(name, tmp_path):
    """With all facts, as Jupyter runs them."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    where = {"metadata": {"path": str(beside_the_figures(tmp_path))}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()


def beside_the_figures(folder):
    """A folder for a notebook to run in, so that what it writes is left in a folder of the test's own."""
    shutil.copytree(ROOT / "figures", folder / "figures")
    (folder / "notebooks").mkdir()
    return folder / "notebooks"
