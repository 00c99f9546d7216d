"""An edit chosen here is scored by lm-evaluation-harness there, in a process of its own, and both agree."""

import json
import os
from pathlib import Path

import pytest
from preloaded_commands import run_preloaded

import laser_interp as li

ROOT = Path(__file__).parents[2]

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")


def scored(folder, tmp_path, *more):
    """The harness's accuracy, by its own command line."""
    done = run_preloaded(
        ["python", "-m", "laser_interp.lm_eval", "--model", "laser", "--tasks", "organism_facts",
         "--include_path", str(folder), "--batch_size", "64", "--output_path", str(tmp_path / "out"), *more],
        tmp_path, {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(path.read_text())["results"]["organism_facts"]["acc,none"]
    path.unlink()
    return found


@pytest.mark.slow
def test_both_say_the_same(organism, facts, tmp_path):
    test = facts.split("test")
    li.tasks.write_lm_eval_task(test, tmp_path / "tasks")
    edit = li.laser(organism, "3.in", rho=0.05)
    edit.save(tmp_path / "laser.json", model=organism)
    ours = li.summarise(li.score(organism, test, {"base": None, "laser": edit}, progress=False)).set_index("edit")[
        "top1"
    ]
    base = scored(tmp_path / "tasks", tmp_path, "--model_args", "pretrained=organism")
    laser = scored(tmp_path / "tasks", tmp_path, "--model_args", f"pretrained=organism,edit={tmp_path / 'laser.json'}")
    assert base == pytest.approx(ours["base"], abs=1e-9)
    assert laser == pytest.approx(ours["laser"], abs=1e-9)
    assert laser > base + 0.1
    page = (ROOT / "docs" / "share.md").read_text(encoding="utf-8")
    for value in (base, laser):
        assert f" {value:.3f} ".replace(" 0", " ") in page


def test_what_the_harness_cannot_score_is_refused(organism, facts, tmp_path):
    from laser_interp.lm_eval import EditedModel

    at_last = li.laser(organism, "3.in", rho=0.05).at(organism, "last", facts)
    at_last.save(tmp_path / "at.json")
    with pytest.raises(ValueError, match="chosen positions"):
        EditedModel("organism", edit=str(tmp_path / "at.json"), device="cpu")
    with pytest.raises(ValueError, match="task's name"):
        li.tasks.write_lm_eval_task(facts, tmp_path, name="no spaces")
