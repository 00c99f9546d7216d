"""Studies: whole, of every kind of task, resumed, and what they refuse."""

import json

import pandas as pd
import pytest

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.facts.published import SOURCES

SETTINGS = dict(
    matrices="mlp", layers=[1], rhos=[0.5, 0.1], split="subject", n_draws=1, n_permutations=199, progress=False
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_every_task_is_studied_whole(random_model, tmp_path, name):
    """Nothing is learned by a random model: all of it runs, and says so."""
    model, _, tasks = random_model
    task, out = tasks[name], tmp_path / "run"
    found = li.study(model, task, out=out, text="Person 3 was born in Paris. " * 4, attribute=False, **SETTINGS)
    assert len(found.search.cells) == (1 + 2 * 2) + (1 + 1)  # the test facts see the chosen cell alone
    assert set(found.tables["metrics"]["edit"]) >= {"base", "laser", "zeroed", "random_kept/0"}
    report = (out / "REPORT.md").read_text()
    assert report == found.report
    assert task.title in report
    summary = json.loads((out / "summary.json").read_text())
    assert summary["selected"]["cell"] == str(found.cell)
    scores = found.tables["scores"]
    assert summary["test"]["base"]["n"] == len(scores[scores["edit"] == "base"])
    if name in ("counterfact", "pararel", "lre"):
        assert len(found.tables["robustness"]) == 2
        assert (out / "figures" / "robustness.pdf").stat().st_size > 1000
    if any("degenerate" in note for note in summary["notes"]):
        assert "degenerate" in report


def test_a_degenerate_classifier_is_called_one(random_model):
    model, _, tasks = random_model
    found = li.study(model, tasks["epistemic"], **SETTINGS)
    scores = found.tables["scores"]
    said = scores[scores["edit"] == "base"]["prediction"].nunique()
    assert (said == 1) == bool(found.tables["metrics"].set_index("edit").loc["base", "degenerate"])
    assert found.tables["metrics"]["degenerate"].any()  # a random model has one favourite
    assert "degenerate" in found.report


@pytest.mark.slow
def test_a_stopped_study_goes_on(random_model, tmp_path, monkeypatch):
    from laser_interp.studies import pipeline

    model, _, tasks = random_model
    whole = li.study(model, tasks["fever"], out=tmp_path / "a", **SETTINGS)
    real = pipeline.QUESTIONS

    class Stop(pipeline.Answer):
        @classmethod
        def ask(cls, context):
            raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "QUESTIONS", (*real[:2], Stop, *real[2:]))
    with pytest.raises(KeyboardInterrupt):
        li.study(model, tasks["fever"], out=tmp_path / "b", **SETTINGS)
    assert (tmp_path / "b" / "tables" / "scores.parquet").is_file()
    assert not (tmp_path / "b" / "summary.json").exists()
    monkeypatch.setattr(pipeline, "QUESTIONS", real)
    again = li.study(model, tasks["fever"], out=tmp_path / "b", **SETTINGS)
    for name in ("cells", "scores", "metrics"):
        pd.testing.assert_frame_equal(again.tables[name], whole.tables[name])
    with pytest.raises(ValueError, match="holds a run with other settings"):
        li.study(model, tasks["fever"], out=tmp_path / "b", **SETTINGS | {"rhos": [0.5]})


@pytest.mark.slow
def test_the_organism_as_ones_own_task(tmp_path, capsys, organism, facts):
    out, counts = tmp_path / "run", tmp_path / "counts.parquet"
    li.count(facts, "organism", out=counts, progress=False)
    (tmp_path / "text.txt").write_text("Mira Tolen was born in Varholt.\n" * 5)
    command = ["study", "--model", "organism", "--facts", "organism", "--matrices", "in", "--layers", "3"]
    command += ["--rho", "0.2,0.05", "--counts", str(counts), "--text", str(tmp_path / "text.txt"), "--n-draws", "2"]
    command += ["--prompts", "all", "--subject", "single"]
    assert main([*command, "--out", str(out), "--quiet"]) == 0
    shown = capsys.readouterr().out
    for words in ("3.in laser", "enfold frequency", "erplexity"):
        assert words in shown
    summary = json.loads((out / "summary.json").read_text())
    assert summary["test"]["laser"]["accuracy"] == pytest.approx(0.795, abs=0.03)
    assert summary["change"]["n_fixed"] > 80
    assert summary["selected"]["improves_validation"]
    assert (out / "figures" / "rare_facts.pdf").is_file()

    from analyses.paper_table import beside, published

    assert len(published()) == 24
    assert published().query("task == 'counterfact'")["accuracy_laser"].tolist() == [0.193, 0.24, 0.376]
    assert len(beside(out)) == 1  # the paper has no organism


@pytest.mark.slow
def test_an_edit_of_one_task_on_another(organism, facts):
    table = li.tasks.transfer(
        organism, [li.tasks.own_task(facts)], {"own": li.laser(organism, "3.in", rank=1)}, progress=False
    )
    assert table["change"].iloc[0] == pytest.approx(0.25, abs=0.03)
    both = pd.concat([table, table.assign(task="other", change=-0.1)])
    assert len(li.plots.transfer(both).axes) == 2


def test_what_is_no_task_is_refused(capsys, tmp_path, organism, facts):
    study = ["study", "--model", "organism", "--out", str(tmp_path / "x")]
    assert main([*study, "--task", "mmlu"]) == 2
    assert "no set 'mmlu'" in capsys.readouterr().err
    assert main([*study, "--task", "fever", "--facts", "organism"]) == 2
    assert "either --facts" in capsys.readouterr().err
    with pytest.raises(ValueError, match="give one of them"):
        li.study(organism, li.tasks.own_task(facts), task="generation")
    with pytest.raises(ValueError, match="no tasks are given"):
        li.tasks.transfer(organism, [], {"own": li.laser(organism, "3.in", rank=1)})
    with pytest.raises(ValueError, match="another label"):
        li.tasks.transfer(organism, facts, {"base": li.laser(organism, "3.in", rank=1)})
    assert not (tmp_path / "x").exists()
