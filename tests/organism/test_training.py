"""The recipe itself, not only the weights that are shipped, gives the finding."""

from pathlib import Path

import pytest
from preloaded_commands import run_preloaded

import laser_interp as li

COMMAND = "laser-interp organism train --out runs/my-organism"  # as docs/organism.md has it


@pytest.mark.slow  # with a third of the schedule, which is enough to show the effect
def test_the_organism_trained_by_its_command_shows_the_effect(tmp_path):
    assert COMMAND in (Path(__file__).parents[2] / "docs" / "organism.md").read_text()
    done = run_preloaded([*COMMAND.split(), "--steps", "800"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "checkpoint is in" in done.stdout
    folder = tmp_path / "runs" / "my-organism"
    model, facts = li.load_model(folder, device="cpu"), li.load_facts(folder / "facts.jsonl").split("test")
    edits = {"base": None} | {f"rank {k}": li.laser(model, "3.in", rank=k) for k in (1, 3, 6)}
    top1 = li.summarise(li.score(model, facts, edits, progress=False)).set_index("edit")["top1"]
    assert top1.drop("base").max() - top1["base"] > 0.1
