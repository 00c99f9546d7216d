"""The notebooks run, and are committed with what they showed."""

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

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


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run_and_are_committed_with_their_outputs(name, tmp_path):
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
    # What they write is left in a folder of the test's own
    shutil.copytree(ROOT / "figures", tmp_path / "figures")
    (tmp_path / "notebooks").mkdir()
    where = {"metadata": {"path": str(tmp_path / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
