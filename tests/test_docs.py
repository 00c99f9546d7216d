"""What the README and the notebook say runs, as they say it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A copy of what the README's commands use, so that they write nothing into the checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("analyses", "figures"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(command, folder):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_python_blocks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text, "README.md", "exec"), scope)
    out = capsys.readouterr().out
    assert "Ranarik" in out
    assert "Selection(site=Site(layer=3, matrix='in')" in out
    assert "tenfold frequency" in out


# These run the whole suite, or are run by tests of their own.
ELSEWHERE = {
    "make test": "this is it",
    "make reproduce": "tests/test_reproduce.py runs what it calls",
    "laser-interp reproduce --out runs/organism": "tests/test_reproduce.py",
    "pip install .": "tests/test_packaging.py installs the wheel that this builds",
}


def test_every_command_is_accounted_for():
    assert set(ELSEWHERE) <= set(COMMANDS)
    makefile = (ROOT / "Makefile").read_text()
    assert "$(BIN)/laser-interp reproduce --out runs/organism" in makefile
    assert "$(BIN)/python -m pytest" in makefile


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE])
def test_commands(command, elsewhere):
    done = run(command, elsewhere)
    assert done.returncode == 0, done.stderr
    paths = re.findall(r"^(\S+\.(?:png|pdf|parquet))$", done.stdout, re.MULTILINE)
    told = (
        "checkpoint is in",
        "compressed model is in",
        "dense, is in",
        "All cells: ",
        "open it in a browser",
        "All steps: ",
        "cells x 800 prompts",
        "All answers: ",
        "All results: ",
        "All counts: ",
        "All directions: ",
        "The index of 38361 documents is in",
    )
    assert paths or any(text in done.stdout for text in told)
    for path in paths:
        assert (elsewhere / path).stat().st_size > 0


def test_the_organism_trained_by_the_readme_shows_the_effect(elsewhere):
    """Runs after its command: the recipe itself, not only the shipped weights, gives the finding."""
    import laser_interp as li

    folder = elsewhere / "runs" / "my-organism"
    if not folder.is_dir():
        pytest.skip("its training command was not run in this process")
    model, facts = li.load_model(folder, device="cpu"), li.load_facts(folder / "facts.jsonl").split("test")
    edits = {"base": None} | {f"rank {k}": li.laser(model, "3.in", rank=k) for k in (1, 3, 6)}
    top1 = li.summarise(li.score(model, facts, edits)).set_index("edit")["top1"]
    assert top1.drop("base").max() - top1["base"] > 0.1


def test_committed_figures_are_those_of_the_committed_tables(elsewhere):
    """Vector files are compared byte for byte where the libraries are the pinned ones."""
    folder = elsewhere / "figures" / "organism"
    for path in folder.glob("*.pdf"):
        path.unlink()
    done = run("python -m figures", elsewhere)
    assert done.returncode == 0, done.stderr
    names = {p.name for p in (ROOT / "figures" / "organism").glob("*.pdf")}
    assert {p.name for p in folder.glob("*.pdf")} == names
    assert len(names) == 4
    for name in names:
        data = (folder / name).read_bytes()
        assert b"/FontFile2" in data or b"/FontFile3" in data  # fonts are embedded
        assert b"/Type3" not in data


def test_the_table_of_families_is_that_of_the_tests():
    from families import FAMILIES
    from support_table import END, NOTES, START, table

    shown = README.split(START)[1].split(END)[0].strip()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()[2:]]
    results = {}
    for family, _, matrices, single, double, _ in rows:
        results |= {(family, "float32"): (matrices, single), (family, "float64"): (matrices, double)}
        assert matrices.split() == list(FAMILIES[family][3])
        assert float(single) < 2e-5
        assert float(double) < 1e-12
    assert shown == table(results)
    assert set(NOTES) <= set(FAMILIES)


def test_figures_say_what_is_missing(elsewhere, tmp_path):
    done = run(f"python -m figures {tmp_path}", elsewhere)
    assert done.returncode == 2
    assert "laser-interp reproduce --out RUN" in done.stderr


def test_analyses_refuse_what_they_do_not_know(elsewhere):
    for command, says in (
        ("python -m analyses", "usage: python -m analyses NAME"),
        ("python -m analyses nothing", "usage: python -m analyses NAME"),
        ("python -m analyses controls --model elsewhere", "--facts is needed"),
        ("python -m analyses controls --edit 3.in", "not of the form SITE:RHO"),
        ("python -m analyses controls --edit 3.up:0.1", "no matrix 'up'"),
    ):
        done = run(command, elsewhere)
        assert done.returncode == 2, command
        assert says in done.stderr


def test_an_analysis_of_ones_own_facts_and_edit(elsewhere, tmp_path):
    """A fact file without a split, counted in a text file."""
    import laser_interp as li
    from laser_interp.organism import corpus_of
    from laser_interp.results import read_table

    facts = li.load_facts("organism")
    li.load_facts(facts.to_frame().head(60).drop(columns=["split", "frequency"])).save(tmp_path / "facts.csv")
    (tmp_path / "corpus.txt").write_text(corpus_of("organism").text)
    done = run(
        f"python -m analyses rare_facts --facts {tmp_path}/facts.csv --corpus {tmp_path}/corpus.txt "
        f"--edit 3.in:0.05 --out {tmp_path}/out",
        elsewhere,
    )
    assert done.returncode == 0, done.stderr
    assert "Spearman" in done.stdout
    counts = read_table(tmp_path / "out" / "tables" / "counts.parquet", "counts")
    known = {fact.fact_id: fact.frequency for fact in facts}
    assert [known[i] for i in counts["fact_id"]] == counts["n_both"].tolist()
    assert (tmp_path / "out" / "figures" / "rare_facts.pdf").is_file()


def test_the_notebook_runs_and_is_committed_with_its_outputs():
    path = ROOT / "notebooks" / "quickstart.ipynb"
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs or cell.source.startswith(("import", "scores =")) for cell in code)
    for name in ("load_model", "load_facts", "laser", "discarded", "inject", "on", "generate", "next_token_logprobs",
                 "score", "sweep", "select", "count", "associate", "favoured_answers"):  # fmt: skip
        assert any(f".{name}(" in cell.source for cell in code), name
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
