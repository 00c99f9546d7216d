"""Golden numbers of every way to look for an edit, on few facts; see `golden_numbers`."""

import dataclasses
import itertools

import pytest
from golden_numbers import check_golden, refused

import laser_interp as li
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.selection import cost_estimate
from laser_interp.selection.composition import _tested
from laser_interp.selection.plan import Plan, divided_task
from laser_interp.selection.score_store import ScoreStore
from laser_interp.selection.settings import CompositionSettings, SearchSettings, parse_band

WHERE = {"matrices": ["in", "out"], "layers": [2, 3], "rhos": (0.4, 0.1, 0.02), "progress": False}
TEXT = "Mira Tolen was born in Varwick. The guild of Mira Tolen is old, and the town of Varwick is near."


@pytest.fixture(autouse=True)
def _in_its_own_numbers(monkeypatch):
    """Whether this machine multiplies faster in bfloat16 changes no golden number."""
    monkeypatch.setattr("laser_interp.selection.plan.bfloat16_is_faster", lambda model: False)


@pytest.fixture(scope="module")
def some(facts):
    return facts.keep([*facts.split("validation").facts[::5], *facts.split("test").facts[::20]])


def numbers_of(search):
    cells = search.cells.drop(columns=["alpha"])
    return {
        "cells": cells,
        "rounds": search.rounds,
        "spent": None if search.spent is None else dataclasses.asdict(search.spent) | {"in words": str(search.spent)},
        "notes": search.notes,
        "words": repr(search),
        "changes": search.changes("validation").head(3)[["cell", "d_top1", "d_loss", "d_p_generic"]],
    }


@pytest.mark.parametrize("method", ["grid", "race", "gradient", "random", "learned"])
def test_golden_searches(organism, some, method):
    found = li.search(organism, some, method=method, **WHERE)
    chosen = found.select()
    numbers = numbers_of(found) | {"chosen": [str(chosen.cell), repr(chosen), chosen.improves]}
    check_golden(f"search {method}", numbers, tolerance=2e-3)


def test_golden_search_by_a_text(organism, some):
    from laser_interp.selection.search_run import run_plan

    task, _ = divided_task(organism, some, None, 0)
    settings = SearchSettings(method="rmt", **{name: value for name, value in WHERE.items() if name != "progress"})
    found = run_plan(Plan(organism, task, settings, text=TEXT), None, None, notes=[], progress=False)
    check_golden("search rmt", numbers_of(found) | {"chosen": str(found.select().cell)}, tolerance=2e-3)


def test_golden_search_beside_controls(organism, some):
    more = {"controls": ["discarded", "zeroed", "random_kept"], "alphas": [0.5], "bands": ["0:4"], "test": "all"}
    found = li.search(organism, some, **WHERE | {"layers": 3, "rhos": 0.1, **more})
    check_golden("search beside controls", {"cells": found.cells, "notes": found.notes}, tolerance=2e-3)


@pytest.mark.parametrize("method", ["guided", "greedy"])
def test_golden_compositions(organism, some, method):
    start = EditSpec.parse("3.in laser rho=0.1 rank=6") if method == "guided" else None
    for name, begun in ({"": None} | ({"started": start} if start else {})).items():
        found = li.compose(organism, some, method=method, start=begun, **WHERE)
        numbers = {"words": str(found), "spec": str(found.spec), "by step": found.by_step}
        check_golden(f"composition {method} {name}".strip(), numbers | {"steps": found.steps}, tolerance=2e-3)


def test_golden_steps_of_a_composition(organism, some):
    """What each edit adds on test; and facts without a test half."""
    task, _ = divided_task(organism, some, None, 0)
    two = EditSpec.parse("3.in+2.out laser rank=2+9")
    numbers = {}
    for name, facts in {"both": task.facts, "validation": task.facts.split("validation")}.items():
        store = ScoreStore(organism, task, SearchSettings(), progress=False)
        means, by_step, tested = _tested(store, facts, two)
        numbers[name] = {"means": means, "by step": by_step, "tested": tested[["fact_id", "edit", "rank"]].head(9)}
    check_golden("steps", numbers, tolerance=2e-3)


def test_durations_are_said_in_hours_minutes_and_seconds():
    said = [repr(cost_estimate.Estimate(3, 40, seconds, 2 * 10**9, "grid")) for seconds in (59, 60, 119, 3599, 7384)]
    assert [words.partition("about ")[2].partition(",")[0] for words in said] == [
        "0 min 59 s",
        "1 min 0 s",
        "1 min 59 s",
        "59 min 59 s",
        "2 h 3 min",
    ]
    assert said[0].startswith("3 cells x 40 prompts: ")
    assert said[0].endswith("2.00 GB of memory")


def test_golden_plans(organism, some, monkeypatch):
    task, notes = divided_task(organism, some, None, 0)
    numbers = {"notes": notes}
    for method in ("grid", "race"):
        plan = Plan(organism, task, SearchSettings(method=method, matrices=("all",)))
        numbers[method] = {
            "cells": [plan.n_cells, [str(cell) for cell in plan.cells[:4]]],
            "groups": {name: len(cells) for name, cells in plan.by_group.items()},
            "shards": [[len(shard), plan.validates(i), plan.prompts[i]] for i, shard in enumerate(plan.shards)],
            "lifted": plan.lifted,
            "prompts": [plan.n_prompts(validation=True), plan.n_prompts(validation=False)],
            "units": [[unit.name, unit.n_cells] for unit in plan.units(plan.by_group, validation=True)][:4],
            "method": [plan.method, plan.is_large, plan.screens],
        }
    clock = itertools.count()
    monkeypatch.setattr(cost_estimate.time, "perf_counter", lambda: float(next(clock)))  # each part takes a second
    estimated = li.estimate(organism, some, matrices=("in", "out"), rhos=(0.4, 0.1))
    numbers["estimate"] = [*dataclasses.astuple(estimated), repr(estimated)]
    check_golden("plans", numbers)


def test_golden_refusals_of_searches(organism, some):
    calls = {
        name: lambda kind=kind, changes=changes: kind(**changes)
        for name, (kind, changes) in {
            "rho of 2": (SearchSettings, {"rhos": 2}),
            "rho as text": (SearchSettings, {"rhos": "much"}),
            "no rho": (SearchSettings, {"rhos": ()}),
            "rhos and rates": (SearchSettings, {"rhos": (0.5,), "rates": (9,)}),
            "another method": (SearchSettings, {"method": "raze"}),
            "another path": (SearchSettings, {"path": "straight"}),
            "another position": (SearchSettings, {"at": "first"}),
            "another engine": (SearchSettings, {"engine": "slow"}),
            "another split": (SearchSettings, {"split": "half"}),
            "a seed of -1": (SearchSettings, {"seed": -1}),
            "alphas of a race": (SearchSettings, {"method": "race", "alphas": (0.5,)}),
            "tests of a race": (SearchSettings, {"method": "race", "test": "all"}),
            "an alpha that is not finite": (SearchSettings, {"alphas": (float("nan"),)}),
            "bands of blocks": (SearchSettings, {"bands": ("0:4",), "blocks": 4}),
            "an unknown control": (SearchSettings, {"controls": ("magic",)}),
            "candidates as text": (SearchSettings, {"candidates": "yes"}),
            "a band of one number": (SearchSettings, {"bands": ("4",)}),
            "no edits": (CompositionSettings, {"most_edits": 0}),
            "another composition": (CompositionSettings, {"method": "race"}),
        }.items()
    } | {
        "a band backwards": lambda: parse_band((4, 2)),
        "a text for rmt": lambda: li.search(organism, some, method="rmt", **WHERE),
        "no split": lambda: li.search(organism, some, **WHERE | {"layers": 3, "rhos": 0.1}).select("nowhere"),
        "no workers": lambda: li.search(organism, some, workers=0, **WHERE),
    }
    check_golden("refused searches", {what: refused(call) for what, call in calls.items()})
