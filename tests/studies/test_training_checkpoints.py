"""Which checkpoints a training has, without a network; and what is kept of an organism's training."""

from itertools import pairwise

import pytest
from safetensors.torch import load_file

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.facts.shipped import shipped_history
from laser_interp.organism.history import pack, unpacked
from laser_interp.organism.training import TrainingSettings, rows_read
from laser_interp.studies.training_checkpoints import AT_MOST


def test_the_names_of_pythia_and_olmo():
    pythia = li.checkpoints("EleutherAI/pythia-70m-deduped", steps="all")
    assert len(pythia) == 154  # as the README of EleutherAI/pythia says
    assert [one.revision for one in pythia[:4]] == ["step0", "step1", "step2", "step4"]
    assert (pythia[-1].revision, pythia[-1].step) == ("step143000", 143_000)
    olmo = li.checkpoints("allenai/OLMo-2-0425-1B", steps=[10_000, 1_907_359])
    assert [one.revision for one in olmo] == ["stage1-step10000-tokens21B", "stage1-step1907359-tokens4001B"]
    some = li.checkpoints("EleutherAI/pythia-410m")
    assert len(some) == AT_MOST
    assert (some[0].step, some[-1].step) == (0, 143_000)
    later = [one.step for one in some[3:]]
    assert all(1.5 < b / a < 5 for a, b in pairwise(later))


def test_described_in_every_form(tmp_path):
    of = li.types.Checkpoint.of
    assert of("EleutherAI/pythia-70m@step512") == of(("EleutherAI/pythia-70m", "step512"))
    assert of("a/b@stage1-step1000-tokens3B").step == 1000
    assert of(tmp_path / "checkpoint-500").step == 500
    assert str(of("a/b@step7")) == "a/b@step7"
    assert of("a/b@iteration7").step == 7
    with pytest.raises(ValueError, match="the step of the checkpoint 'pythia-410m' is not known"):
        of("EleutherAI/pythia-410m")  # the number is its size
    for folder in ("checkpoint-20", "checkpoint-100", "checkpoint-3", "other"):
        (tmp_path / folder).mkdir()
        if folder != "checkpoint-3":  # one that was not finished
            (tmp_path / folder / "config.json").write_text("{}")
    assert [one.step for one in li.checkpoints(tmp_path)] == [20, 100]


@pytest.mark.parametrize(
    ("source", "steps", "error", "expected"),
    [
        ("nobody/nothing", "log", FileNotFoundError, "not known without a network"),
        ("./nowhere", "log", FileNotFoundError, "no folder './nowhere'"),
        ("organism-experts", "log", FileNotFoundError, "no history of 'organism-experts'"),
        ("EleutherAI/pythia-70m", [3], ValueError, "no checkpoint of step 3: the nearest are 2, 4, 1"),
        ("EleutherAI/pythia-70m", "linear", ValueError, "expected 'log', 'all' or numbers"),
        ("EleutherAI/pythia-70m", [1.5], ValueError, "step"),
    ],
)
def test_refused(source, steps, error, expected):
    with pytest.raises(error, match=expected):
        li.checkpoints(source, steps=steps)


def test_an_empty_folder_has_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no checkpoints"):
        li.checkpoints(tmp_path)


def test_the_shipped_histories_are_small_and_load():
    sizes = [shipped_history(name).stat().st_size for name in ("organism", "organism-control")]
    assert sum(sizes) < 3_000_000
    control = li.checkpoints("organism-control")
    assert [one.step for one in control] == [147, 210, 300]
    model = li.load_model(control[-1].source)
    assert model.generic_words
    assert model.n_layers == 4


@pytest.mark.slow
def test_training_keeps_its_checkpoints_and_they_can_be_packed(tmp_path, monkeypatch):
    out = tmp_path / "trained"
    assert main(["organism", "train", "--steps", "12", "--checkpoints", "3", "--out", str(out), "--quiet"]) == 0
    kept = li.checkpoints(out)
    assert [one.step for one in kept] == TrainingSettings(steps=12, n_checkpoints=3).kept_steps == [1, 2, 12]
    last, final = (load_file(f"{folder}/model.safetensors") for folder in (kept[-1].source, out))
    assert all((last[name] == final[name]).all() for name in final)
    assert any((load_file(f"{kept[0].source}/model.safetensors")[name] != final[name]).any() for name in final)

    packed = pack(out, [2, 12], tmp_path / "packed.safetensors")
    monkeypatch.setattr("laser_interp.organism.history.shipped_history", lambda name: packed)
    again = load_file(unpacked("organism") / "checkpoint-12" / "model.safetensors")
    assert set(again) == set(final)
    for name, weight in final.items():
        largest = weight.abs().amax(-1, keepdim=True)
        assert ((again[name] - weight).abs() <= largest / 127 / 2 * 1.001 + 1e-6).all(), name


def test_rows_are_read_in_the_order_of_training():
    settings = TrainingSettings(steps=5, batch_size=4, seed=3)
    rows = rows_read(10, settings)
    assert rows.shape == (5, 4)
    first, second = rows[:2].flatten().tolist(), rows[2:4].flatten().tolist()
    assert len(set(first)) == len(set(second)) == 8  # a pass leaves out what does not fill a batch
    assert first != second
    assert (rows_read(10, settings) == rows).all()
    assert rows_read(3, settings).shape == (5, 3)
    with pytest.raises(ValueError, match="n_checkpoints is 6"):
        TrainingSettings(steps=5, n_checkpoints=6)
