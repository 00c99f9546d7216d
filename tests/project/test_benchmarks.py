"""The benchmarks run, compare procedures that give the same numbers, and the documentation shows what came out."""

import json
import re
from pathlib import Path

import pytest
import torch
from preloaded_commands import run_preloaded

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_engine(tmp_path):
    command = ["python", "-m", "benchmarks", "engine", "--models", "gpt2-tiny", "--prompts", "12"]
    done = run_preloaded([*command, "--json", str(tmp_path / "rows.json")], ROOT)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert list(row)[:6] == [
        "model", "device", "ms_per_cell_prompt", "ratio_published", "ratio_plain", "gemm_fraction"
    ]  # fmt: skip
    assert row["worst_difference"] < 1e-4
    assert all(row[key] > 0 for key in list(row)[2:6])
    needed = [one["needed_gflop"] for one in row["by_layer"]]
    assert needed == sorted(needed, reverse=True)
    assert row["slope_prompts"] > 0
    assert {"slope_cells", "slope_layers", "slope_vocabulary", "at_last", "at_last_full_passes"} <= set(row)


@pytest.mark.parametrize("name", ["gpt2-small", "pythia-160m", "gptj", "llama"])
def test_the_plain_loop_edits_the_matrix_it_says(name, monkeypatch):
    """At a small size: what the baseline swaps is what the package calls that site."""
    monkeypatch.syspath_prepend(str(ROOT))
    import laser_interp as li
    from benchmarks import models
    from benchmarks.engine import _Plain

    cls, config = models.SHAPES[name]
    small = config()
    for key in ("n_embd", "hidden_size"):
        if hasattr(small, key):
            setattr(small, key, 48)
    for key, value in {"n_layer": 2, "num_hidden_layers": 2, "vocab_size": 100, "intermediate_size": 96}.items():
        if hasattr(small, key):
            setattr(small, key, value)
    if name == "gptj":
        small.rotary_dim = 4
    monkeypatch.setitem(models.SHAPES, name, (cls, lambda: small))
    hf, tokenizer = models.make(name, "cpu", torch.float32)
    model = li.load_model((hf, tokenizer), device="cpu")
    plain = _Plain(hf, name, [[1, 2, 3]])
    for matrix in model.matrices:
        view = plain.view(1, matrix)
        expected = model.weight(1, matrix)
        assert torch.equal(view if view.ndim == 2 else view.reshape(-1, view.shape[-1]).T, expected), matrix


@pytest.mark.slow
def test_count():
    done = run_preloaded(["python", "-m", "benchmarks", "count", "--mb", "2", "--names", "200"], ROOT)
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.strip().splitlines()[-2:]
    told = dict(zip(header.split(), map(float, row.split()), strict=True))
    assert told["times_loop"] > 1
    assert told["names"] == 200


@pytest.mark.slow
def test_frequency(tmp_path):
    command = ["python", "-m", "benchmarks", "frequency", "--facts", "60", "--json", str(tmp_path / "rows.json")]
    done = run_preloaded(command, ROOT)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["facts"] == 60
    assert min(row[name] for name in ("associate", "decompose", "explain")) > 0


@pytest.mark.slow
def test_attribution(tmp_path):
    command = ["python", "-m", "benchmarks", "attribution", "--models", "gpt2-tiny", "--prompts", "8"]
    done = run_preloaded([*command, "--runs", "2", "--json", str(tmp_path / "rows.json")], ROOT)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["prompts"] == 8
    assert row["forward_passes"] > 1


@pytest.mark.slow
def test_search(tmp_path):
    """Each method has a row, with what it chose and what it cost beside the grid and the published procedure."""
    command = ["python", "-m", "benchmarks", "search", "--models", "organism", "--methods", "gradient"]
    small = ["--seeds", "1", "--pool", "24", "--tested", "20", "--matrices", "in", "--layers", "2-3"]
    done = run_preloaded([*command, *small, "--json", str(tmp_path / "rows.json")], ROOT)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "rows.json").read_text())
    assert results["command"] == " ".join([*command, *small])
    rows = {row["method"]: row for row in results["rows"]}
    assert list(rows) == ["grid", "gradient", "published"]
    assert rows["grid"]["share"] == 1
    assert rows["gradient"]["chosen"].startswith(("2.in laser", "3.in laser"))
    assert rows["published"]["published / it"] == 1


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import tables

    return tables


def test_the_documentation_shows_the_results_as_they_are(tables):
    """`python -m benchmarks tables` would change nothing, and every result is shown somewhere."""
    shown = set()
    for page in sorted(tables.PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert tables.rewritten(text) == text, f"{page.name} is stale: run python -m benchmarks tables"
        shown |= set(re.findall("<!-- benchmark: ([^ ]+) -->", text))
        # Words after a comment that begins a line would be shown as they are written, backticks and all
        assert not re.search(r"^<!-- benchmark: \S+ -->.", text, re.MULTILINE), page.name
    assert shown == set(tables.TABLES)


def test_a_stale_block_is_written_anew(tables):
    text = "before <!-- benchmark: count-range -->3 times<!-- /benchmark --> after"
    now = tables.rewritten(text)
    assert now != text
    assert now == f"before <!-- benchmark: count-range -->{tables.count_range()}<!-- /benchmark --> after"
