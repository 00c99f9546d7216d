"""Screening in bfloat16: near enough in every family, measured once, and never what is reported."""

import json

import pandas as pd
import pytest
import torch
from families import FAMILIES, MASKED, PROMPTS, by_engine, loaded

import laser_interp as li
from laser_interp.models import bfloat16 as bf16
from laser_interp.models.bfloat16 import bfloat16_is_faster, in_bfloat16
from laser_interp.scoring.engine import Engine
from laser_interp.storage.cache import cache_dir


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in MASKED])
def test_every_family_runs_in_it(family):
    _, model = loaded(family, torch.float32)
    reads = [(i, len(row) - 1) for i, row in enumerate(PROMPTS)]
    edits = [None, *(li.laser(model, f"{layer}.{m}", rank=3) for layer in (0, 2) for m in ("v", "in", "out"))]

    def logprobs():
        return by_engine(Engine(model, PROMPTS, reads, memory=1 << 28), edits)

    asked = [p.requires_grad for p in model.bridge.parameters()]
    exact = logprobs()
    with in_bfloat16(model):
        near = logprobs()
    assert [p.requires_grad for p in model.bridge.parameters()] == asked
    assert 0 < (near - exact).abs().mean() < 0.1
    assert torch.equal(logprobs(), exact)  # nothing of it stays


def test_measured_once(organism, monkeypatch, tmp_path):
    monkeypatch.setenv("LASER_INTERP_CACHE", str(tmp_path))
    asked = []
    monkeypatch.setattr(bf16, "_ratio", lambda *a: asked.append(a) or 2.1)
    assert bfloat16_is_faster(organism)
    assert bfloat16_is_faster(organism)
    assert len(asked) == 1
    (cache_dir() / "bfloat16.json").write_text("{broken")
    assert bfloat16_is_faster(organism)
    assert len(asked) == 2
    assert list(json.loads((cache_dir() / "bfloat16.json").read_text()).values()) == [2.1]


def test_the_measurement_is_a_ratio_of_times():
    assert 0 < bf16._ratio(torch.device("cpu"), 64, 256) < 100


@pytest.mark.slow
def test_a_screened_race_reports_what_the_exact_one_does(organism, facts, tmp_path):
    some = facts.keep(facts.split("validation").facts + facts.split("test").facts[:40])
    found = {
        screen: li.search(organism, some, method="race", matrices="mlp", screen=screen, progress=False)
        for screen in ("model", "bfloat16")
    }
    exact, screened = found["model"], found["bfloat16"]
    assert str(screened.select().cell) == str(exact.select().cell)
    both = set(exact.cells["cell"]) & set(screened.cells["cell"])
    tables = [one.cells[one.cells["cell"].isin(both)] for one in (exact, screened)]
    pd.testing.assert_frame_equal(*(t.sort_values(["cell", "split"], ignore_index=True) for t in tables), rtol=1e-5)
    assert len(both) > 2
    assert screened.spent.cell_prompts > exact.spent.cell_prompts  # the finalists are scored twice on the first rounds
    assert screened.rounds["round"].is_monotonic_increasing
    resumed = [
        li.search(organism, some, method="race", matrices="mlp", screen="bfloat16", out=tmp_path, progress=False).cells
        for _ in range(2)
    ]
    pd.testing.assert_frame_equal(*resumed)
    pd.testing.assert_frame_equal(resumed[0], screened.cells, rtol=1e-6)


def test_nothing_that_was_screened_is_gone_on_from(organism, facts):
    """The layers below an edit are kept from one unit to the next, in the numbers that they were computed in."""
    from laser_interp.facts.tasks import own_task
    from laser_interp.selection.execution import Unit, Worker
    from laser_interp.selection.settings import SearchSettings

    some = own_task(facts.keep(facts.facts[:40]))
    cells = tuple(li.EditSpec(li.Site(3, m), ranks=3) for m in ("in", "out"))

    def worker():
        return Worker(organism, some, [some.facts], SearchSettings(candidates=False))

    used = worker()
    near = used.run(Unit("a", 0, cells, screened=True))
    again, fresh = used.run(Unit("a", 0, cells)), worker().run(Unit("a", 0, cells))
    pd.testing.assert_frame_equal(again, fresh, rtol=1e-7)
    assert (near["logprob"] - fresh["logprob"]).abs().max() > 1e-4
