"""A trajectory is single studies at each checkpoint, put together; it resumes, and counts what had been read."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.studies import training_trajectory
from laser_interp.studies.training_trajectory import counts_so_far

pytestmark = pytest.mark.slow

EDIT = "3.in:rank=3"
STEPS = [296, 860, 2500]


@pytest.fixture(scope="module")
def few(facts):
    return facts.keep([fact for fact in facts if fact.subject in sorted({f.subject for f in facts})[:24]])


@pytest.fixture(scope="module")
def checkpoints():
    return li.checkpoints("organism", steps=STEPS)


@pytest.fixture(scope="module")
def counts(checkpoints, few):
    return counts_so_far(checkpoints, few, "organism", 128, progress=False)


@pytest.fixture(scope="module")
def found(checkpoints, few, counts):
    return li.trajectory(checkpoints, few, counts, EDIT, progress=False)


def test_equal_to_a_study_of_each_checkpoint(found, checkpoints, few, counts):
    test = few.split("test")
    for one in checkpoints:
        model = li.load_model(one.source)
        laser = li.laser(model, "3.in", rank=3)
        scores = li.score(
            model, test, {"base": None, "laser": laser, "discarded": laser.discarded()}, engine="reference",
            progress=False,
        )  # fmt: skip
        rows = found.tables["trajectory"].query("step == @one.step and facts == 'all'").set_index("edit")
        for edit, of_edit in scores.groupby("edit"):
            assert rows.loc[edit, "accuracy"] == of_edit["correct"].mean()
            assert rows.loc[edit, "logprob"] == pytest.approx(of_edit["logprob"].mean(), abs=1e-4)
            assert rows.loc[edit, "p_generic"] == pytest.approx(of_edit["p_generic"].mean(), abs=1e-4)
            assert rows.loc[edit, "answers_generic"] == (of_edit["category"] == "generic").mean()
            ahead = (of_edit["generic_logprob"] > of_edit["logprob"]).mean()
            assert rows.loc[edit, "generic_ahead"] == pytest.approx(ahead, abs=1e-12)
        changes = found.tables["trajectory_changes"].query("step == @one.step and edit == 'laser'").set_index("part")
        expected = li.decompose(scores).table.set_index("part")
        np.testing.assert_allclose(changes[["change", "lo", "hi"]], expected[["change", "lo", "hi"]], atol=1e-4)
        slope = found.tables["trajectory_slopes"].query("step == @one.step and of == 'whole'").iloc[0]
        table = li.associate(scores, counts[one.step], n_permutations=50).slope("whole")
        assert slope["slope"] == pytest.approx(table["slope"], abs=1e-4)
        spectrum = found.tables["trajectory_spectra"].query("step == @one.step").iloc[0]
        assert spectrum["stable_rank"] == pytest.approx(li.spectrum(model, "3.in").stable_rank)


def test_overlap_is_that_of_the_principal_angles(found, checkpoints):
    from scipy.linalg import subspace_angles

    kept = [li.spectrum(li.load_model(one.source), "3.in") for one in checkpoints]
    for row, of_step in zip(found.tables["trajectory_spectra"].to_dict("records"), kept, strict=True):
        for side, ours, last in (
            ("in", of_step.U[:, :3], kept[-1].U[:, :3]), ("out", of_step.Vh[:3].T, kept[-1].Vh[:3].T)
        ):  # fmt: skip
            angles = subspace_angles(ours.double().numpy(), last.double().numpy())
            assert row[f"overlap_{side}"] == pytest.approx(np.square(np.cos(angles)).mean(), abs=1e-6)


def test_first_recall_is_the_first_checkpoint_that_is_right(found, checkpoints, few, counts):
    recall = found.tables["trajectory_recall"]
    right = {}
    for one in checkpoints:
        model = li.load_model(one.source)
        edits = {"base": None, "laser": li.laser(model, "3.in", rank=3)}
        for row in li.score(model, few.split("test"), edits, progress=False).to_dict("records"):
            if row["correct"]:
                right.setdefault((row["edit"], row["fact_id"], row["prompt_id"]), one.step)
    assert len(right) > 30
    for row in recall.to_dict("records"):
        for edit in ("base", "laser"):
            step = right.get((edit, row["fact_id"], row["prompt_id"]))
            if step is None:
                assert np.isnan(row[edit])
                assert np.isnan(row[f"{edit}_read"])
            else:
                assert row[edit] == step
                n_read = counts[step].set_index("fact_id").loc[row["fact_id"], "n_both"]
                assert row[f"{edit}_read"] == n_read
    assert (recall["laser"] < recall["base"]).sum() > (recall["laser"] > recall["base"]).sum()
    assert f"{int((recall['laser'] < recall['base']).sum())} at an earlier one" in found.report


def test_counts_are_those_of_what_training_had_read(checkpoints, few, counts):
    from itertools import islice

    from laser_interp.organism.checkpoint_corpus import documents_read

    text = list(islice(documents_read("organism"), 296 * 128))
    for fact in few.facts[:12]:
        naive = sum(fact.subject in line and fact.object in line for line in text)
        assert counts[296].set_index("fact_id").loc[fact.fact_id, "n_both"] == naive
    assert (counts[860]["n_both"] >= counts[296]["n_both"]).all()


def test_a_search_chooses_the_edit_at_the_end_or_at_each(checkpoints, few, tmp_path):
    grid = {"matrices": "in", "layers": [2, 3], "rhos": [0.05]}
    found = li.trajectory(checkpoints[1:], few, None, "each", out=tmp_path / "run", progress=False, **grid)
    for one in checkpoints[1:]:
        model = li.load_model(one.source)
        alone = li.search(model, few, progress=False, **grid).select()
        each = found.tables["trajectory_spectra"].query("step == @one.step")["each"].iloc[0]
        assert each == str(alone.cell)
        scores = li.score(model, few.split("test"), alone.edit(model), progress=False)
        rows = found.tables["trajectory"].query("step == @one.step and facts == 'all'").set_index("edit")
        laser = scores[scores["edit"] == "laser"]
        assert rows.loc["each", "logprob"] == pytest.approx(laser["logprob"].mean(), abs=1e-5)
    assert str(found.edit) == each
    assert (tmp_path / "run" / "figures" / "loss_over_training.png").stat().st_size > 10_000


def test_the_change_since_the_checkpoint_before_as_the_edit(checkpoints, few):
    """Undone, a matrix is that of the checkpoint before; plain transformers with that matrix scores alike."""
    found = li.trajectory(checkpoints[1:], few, None, "difference", settings=None, progress=False, **ONE_CELL)
    plain = transformers.AutoModelForCausalLM.from_pretrained(checkpoints[2].source)
    old = load_file(f"{checkpoints[1].source}/model.safetensors")["transformer.h.3.mlp.c_fc.weight"]
    with torch.no_grad():
        plain.transformer.h[3].mlp.c_fc.weight.copy_(old)
    ours = li.load_model((plain, li.load_tokenizer(checkpoints[2].source)))
    expected = li.score(ours, few.split("test"), None, progress=False)["logprob"].mean()
    rows = found.tables["trajectory"].query("step == 2500 and facts == 'all'").set_index("edit")
    assert rows.loc["undone", "logprob"] == pytest.approx(expected, abs=1e-4)
    after = li.load_model(checkpoints[2].source)
    edit = li.laser_of_difference(after, li.load_model(checkpoints[1].source), "3.in", rank=3)
    scores = li.score(after, few.split("test"), {"edit": edit}, progress=False)
    assert rows.loc["difference", "logprob"] == pytest.approx(scores["logprob"].mean(), abs=1e-5)
    assert "undone" not in set(found.tables["trajectory"].query("step == 860")["edit"])


def test_the_change_since_the_checkpoint_before_acts_where_the_edit_acts(checkpoints, few):
    how = {"matrices": "out", "layers": [3], "rhos": [0.05], "path": "indirect"}  # nothing is above the last layer
    rows = li.trajectory(checkpoints[1:], few, None, "difference", progress=False, **how).tables["trajectory"]
    at_end = rows.query("step == 2500 and facts == 'all'").set_index("edit")["logprob"]
    assert at_end[["difference", "undone"]].tolist() == pytest.approx([at_end["base"]] * 2, abs=1e-5)


ONE_CELL = {"matrices": "in", "layers": [3], "rhos": [0.05], "method": "grid"}


def test_killed_and_resumed_it_gives_equal_tables(found, checkpoints, few, counts, tmp_path, monkeypatch):
    asked = []
    real = training_trajectory._at

    def dies_at_the_third(shared, pair):
        asked.append(pair[0].step)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(shared, pair)

    monkeypatch.setattr(training_trajectory, "_at", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        li.trajectory(checkpoints, few, counts, EDIT, out=tmp_path / "run", progress=False)
    again = li.trajectory(checkpoints, few, counts, EDIT, out=tmp_path / "run", progress=False)
    assert asked == [*STEPS, STEPS[-1]]
    assert set(again.tables) == set(found.tables)
    for name, table in found.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)
    with pytest.raises(ValueError, match="other settings"):
        li.trajectory(checkpoints[1:], few, counts, EDIT, out=tmp_path / "run", progress=False)


@pytest.mark.nightly
def test_on_ray_a_checkpoint_is_a_task(found, checkpoints, few, counts):
    on_ray = li.trajectory(checkpoints, few, counts, EDIT, executor="ray", workers=2, progress=False)
    pd.testing.assert_frame_equal(on_ray.tables["trajectory"], found.tables["trajectory"], atol=1e-5)


def test_the_command_counts_an_organisms_text_by_itself(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["trajectory", "organism", "--facts", "organism", "--edit", "3.in:0.05", "--steps", "860,2500"]
    assert main([*words, "--out", str(out), "--quiet"]) == 0
    assert "From step 860 to step 2500" in capsys.readouterr().out
    assert main(["report", str(out), "-o", str(tmp_path / "t.html"), "--quiet"]) == 0
    page = (tmp_path / "t.html").read_text()
    assert '"label":"860"' in page
    assert "From step 860 to step 2500" in page
    slopes = pd.read_parquet(out / "tables" / "trajectory_slopes.parquet")
    assert set(slopes["step"]) == {860, 2500}
    with pytest.raises(ValueError, match="a page of its own: leave counts out"):
        li.write_report(out, tmp_path / "t.html", counts=pd.DataFrame({"fact_id": ["0"], "n_both": [1]}))
    (out / "tables" / "trajectory_recall.parquet").unlink()
    assert main(["report", str(out), "-o", str(tmp_path / "t.html"), "--quiet"]) == 2
    assert "lacks the table trajectory_recall: run li.trajectory" in capsys.readouterr().err
    for bad, expected in (
        (["trajectory", "--facts", "organism", "--out", "x"], "no checkpoints are given"),
        (["trajectory", "organism", "--steps", "7", "--facts", "organism", "--out", "x"], "the nearest are 145"),
        ([*words, "--corpus", "organism", "--out", "x"], "--documents-per-step is missing"),
    ):
        assert main(bad) == 2
        assert expected in capsys.readouterr().err


def test_counts_of_some_facts_that_hold_at_all_steps(checkpoints, few):
    """As a mapping; facts without a count are in no group of frequency, and in no slope."""
    by_id = {fact.fact_id: 5 + i for i, fact in enumerate(few) if i % 2}
    found = li.trajectory(checkpoints[1:], few, by_id, EDIT, progress=False)
    rows = found.tables["trajectory"].query("step == 2500 and edit == 'base'").set_index("facts")
    counted = sum(len(fact.prompts) for fact in few.split("test") if fact.fact_id in by_id)
    assert rows.loc["rare", "n"] + rows.loc["frequent", "n"] == counted < rows.loc["all", "n"]
    assert found.tables["trajectory_recall"]["frequency"].isna().any()


def test_other_weights_in_a_folder_are_another_run(checkpoints, few, tmp_path):
    for one in checkpoints[1:]:
        shutil.copytree(one.source, tmp_path / "kept" / f"checkpoint-{one.step}")
    li.trajectory(tmp_path / "kept", few, None, EDIT, out=tmp_path / "run", progress=False)
    shutil.copyfile(f"{checkpoints[0].source}/model.safetensors", tmp_path / "kept/checkpoint-860/model.safetensors")
    with pytest.raises(ValueError, match="other settings"):
        li.trajectory(tmp_path / "kept", few, None, EDIT, out=tmp_path / "run", progress=False)


def test_directions_of_blocks_have_no_overlap(checkpoints, few):
    found = li.trajectory(checkpoints[1:], few, None, "3.in:0.05:4-outputs", progress=False)
    assert found.tables["trajectory_spectra"]["overlap_in"].isna().all()
    assert "overlaps" not in found.report


def test_a_checkpoint_with_other_tokens_is_refused(checkpoints, few, tmp_path):
    shutil.copytree(checkpoints[1].source, tmp_path / "checkpoint-860")
    path = tmp_path / "checkpoint-860" / "tokenizer.json"
    first = few.split("test").facts[0]
    text = path.read_text()
    name = first.subject.split()[0]
    path.write_text(text.replace(f'"{name}"', '"?"').replace('"wolf"', f'"{name}"').replace('"?"', '"wolf"'))
    with pytest.raises(ValueError, match="other matrices or other tokens"):
        li.trajectory([tmp_path / "checkpoint-860", checkpoints[2]], few, None, EDIT, progress=False)


def test_what_cannot_be_asked_is_refused(checkpoints, few, counts):
    for bad, more, expected in (
        (checkpoints[:1], {}, "expected two or more"),
        ([checkpoints[0], checkpoints[0]], {}, "each of another step"),
        (["organism", "organism-control"], {}, "the step of the checkpoint 'organism' is not known"),
        (checkpoints, {"counts": {296: counts[296]}}, "no counts for step 860"),
        (checkpoints, {"edit": "9.in:0.05"}, "layer"),
        (checkpoints, {"edit": 5}, "the edit is 5: expected an edit"),
        (checkpoints, {"executor": "cloud"}, "executor"),
        (checkpoints, {"edit": "difference", "blocks": 4}, "directions of whole matrices: leave blocks out"),
    ):
        with pytest.raises(ValueError, match=expected):
            li.trajectory(bad, few, progress=False, **more)
