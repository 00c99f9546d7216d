"""Which search method finds LASER's gains, and what each method costs.

Each seed draws a random half of a pool of facts. On this half every method chooses an edit, and all choices are tested
on the same test facts. The grid is scored once on the whole pool, cell by cell and fact by fact, so that its choice is
known for every half; the other methods run anew for each seed. All of it runs in one process. `cells x prompts` counts
what a method runs on validation before it chooses; a prompt with gradients counts three times. `share` divides this
number by the grid's. The grid's seconds are scaled up from four layers. The row "published" is an estimate from a few
cells and prompts of the published procedure, in the same process. That procedure copies the model, factorises the
matrix anew for each cell and runs one prompt at a time.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import tempfile
import time
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import torch

import laser_interp as li
from benchmarks import models, results
from benchmarks.engine import sync
from laser_interp.choices import SearchMethod
from laser_interp.scoring.kept_streams import kept_streams
from laser_interp.storage.run_folder import FACTS, PARTS

_FACTS = {"organism": "organism", "smollm2": "wikidata"}
_METHODS = [name for name in get_args(SearchMethod) if name != "grid"]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(_FACTS), choices=list(_FACTS))
    parser.add_argument("--methods", nargs="+", default=["race", "gradient", "random"], choices=_METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=174, help="facts of which each seed takes half for validation")
    parser.add_argument("--tested", type=int, default=2000, help="test facts, at most")
    parser.add_argument("--matrices", nargs="+", default=["all"])
    parser.add_argument("--layers", default=None)
    parser.add_argument("--grids", default=None, help="folder that keeps the grids, to continue from them")
    parser.add_argument("--json", default=None, help="also write the rows to this file")


def main(args: argparse.Namespace) -> None:
    rows = []
    with ExitStack() as stack:
        grids = args.grids or stack.enter_context(tempfile.TemporaryDirectory())
        for name in args.models:
            try:
                model = li.load_model(name)
            except (FileNotFoundError, ValueError, OSError) as error:
                print(f"{name} is left out: {error}")
                continue
            rows += compare(model, pool_of(name, args.pool, args.tested), args, Path(grids) / name)
    table = pd.DataFrame(rows)
    print(table.drop(columns=["chosen"]).to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    for row in rows:
        print(f"{row['model']}, {row['method']}: {row['chosen']}")
    results.write(rows, args.json)


def pool_of(name: str, n_pool: int, n_tested: int) -> li.FactSet:
    """Facts with one prompt each: a pool that is spread over the relations, as validation, and the test facts."""
    facts = li.load_facts(_FACTS[name])
    one_prompt = [replace(fact, paraphrases=()) for fact in facts]
    validation = [fact for fact in one_prompt if fact.split == "validation"]
    relations = {fact.relation for fact in validation}
    of_relation: dict[str, int] = {}
    chosen = set()
    for fact in validation:
        of_relation[fact.relation] = of_relation.get(fact.relation, 0) + 1
        if of_relation[fact.relation] <= max(n_pool // len(relations), 1):
            chosen.add(fact.fact_id)
    test = [fact.fact_id for fact in one_prompt if fact.split == "test"]
    chosen |= set(test[:: max(len(test) // n_tested, 1)])
    return facts.keep([fact for fact in one_prompt if fact.fact_id in chosen])


def compare(model: li.Model, facts: li.FactSet, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One row a method: medians over the seeds, and what it chose each time."""
    where = {"matrices": args.matrices, "layers": args.layers, "candidates": False, "progress": False}
    warnings.filterwarnings("ignore", message=".*lifted to rank 1 or dropped")
    kept_streams(model).forget()
    grid = li.search(model, facts, method="grid", out=folder, **where)
    assert grid.spent is not None
    grid_seconds = seconds_of_grid(model, facts, grid.cells, where)
    scores = pd.concat([pd.read_parquet(part) for part in sorted((folder / PARTS).rglob("*.parquet"))])
    scores = scores[scores["split"] == "validation"]
    pool = [fact.fact_id for fact in li.load_facts(folder / FACTS) if fact.split == "validation"]
    test = facts.split("test")
    tested: dict[str, float] = {"": _top1(model, test, None)}
    found: dict[str, list[dict[str, Any]]] = {"grid": []}
    for seed in range(args.seeds):
        chosen_ids = set(random.Random(seed).sample(pool, len(pool) // 2))
        best, validated = grid_choice(scores, chosen_ids)
        cost = (grid.spent.n_grid + 1) * len(chosen_ids)
        share = len(chosen_ids) / len(pool)
        found["grid"].append(_row(best, validated, cost, share * grid_seconds, 1.0, tested, model, test))
        half = facts.keep([fact for fact in facts if fact.split == "test" or fact.fact_id in chosen_ids])
        for method in args.methods:
            kept_streams(model).forget()
            started = time.perf_counter()
            result = li.search(model, _with_few_tests(half), method=method, seed=seed, **where)
            seconds = time.perf_counter() - started
            selected, spent = result.select(), result.spent
            assert spent is not None
            validated = selected.score - selected.base_score
            cost = spent.cell_prompts + 3 * spent.n_attributed
            row = _row(
                str(selected.cell),
                validated,
                cost,
                seconds,
                cost / (spent.n_grid + 1) / len(chosen_ids),
                tested,
                model,
                test,
            )
            found.setdefault(method, []).append(row)
    prompts = [fact.prompt for fact in facts.split("validation")][: len(pool) // 2]
    seconds = published_seconds(model, prompts, grid.spent.n_grid)
    found["published"] = [row | {"seconds": seconds} for row in found["grid"]]
    summaries = [_summary(model.name, method, rows, found["grid"]) for method, rows in found.items()]
    return [row | {"published / it": seconds / row["seconds"]} for row in summaries]


def seconds_of_grid(model: li.Model, facts: li.FactSet, cells: pd.DataFrame, where: dict[str, Any]) -> float:
    """Seconds of the whole grid on the pool, from four layers and at most 64 prompts.

    The grid itself may have been stopped and continued, or run beside other work.
    """
    in_grid = cells.loc[(cells["kind"] == "laser") & (cells["split"] == "validation"), "layer"]
    layers = sorted(in_grid.unique())
    chosen = [int(layers[i]) for i in models.spread_layers(len(layers))]
    pool = facts.split("validation")
    few = {fact.fact_id for fact in [*pool][:: max(len(pool) // 64, 1)][:64]}
    part = facts.keep([fact for fact in facts if fact.split == "test" or fact.fact_id in few])
    kept_streams(model).forget()
    started = time.perf_counter()
    there: dict[str, Any] = where | {"layers": chosen}
    li.search(model, _with_few_tests(part), method="grid", **there)
    seconds = time.perf_counter() - started
    return seconds * len(in_grid) / in_grid.isin(chosen).sum() * len(pool) / len(few)


@torch.no_grad()
def published_seconds(model: li.Model, prompts: list[str], n_cells: int) -> float:
    """Estimated seconds of the published procedure for `n_cells` cells, from three cells and eight prompts."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        hf: Any = AutoModelForCausalLM.from_pretrained(model.save_checkpoint(Path(folder) / "plain")).eval()
    hf = hf.to(model.device)
    setups, forwards = [], []
    for layer in (0, model.n_layers // 2, model.n_layers - 1):
        weight = model.weight(layer, "in")
        started = time.perf_counter()
        edited = copy.deepcopy(hf)
        U, S, V = torch.svd_lowrank(weight.float(), q=max(min(weight.shape) // 10, 1), niter=2)
        _ = (U @ S.diag() @ V.T).to(weight.dtype)
        sync(model.device)
        setups.append(time.perf_counter() - started)
        for prompt in prompts[:8]:
            started = time.perf_counter()
            tokens = torch.tensor([model.encode(prompt)], device=model.device)
            edited(tokens).logits[0, -1].float().log_softmax(-1).topk(10).indices.tolist()
            forwards.append(time.perf_counter() - started)
    return n_cells * (statistics.median(setups) + len(prompts) * statistics.median(forwards))


def grid_choice(scores: pd.DataFrame, chosen: set[str]) -> tuple[str, float]:
    """The cell that the grid chooses on some of the facts, and its change of score there."""
    means = scores[scores["fact_id"].isin(chosen)].groupby("cell")[["score", "logprob"]].mean()
    lasers = means[means.index != ""].sort_values(["score", "logprob"], ascending=False, kind="stable")
    return str(lasers.index[0]), float(lasers["score"].iloc[0] - means.loc["", "score"])


def _with_few_tests(facts: li.FactSet) -> li.FactSet:
    """Keep one test fact, because a search needs some; what is reported is tested on all test facts."""
    test = [fact for fact in facts if fact.split == "test"][:1]
    return facts.keep([*(fact for fact in facts if fact.split == "validation"), *test])


def _top1(model: li.Model, facts: li.FactSet, edit: li.Edit | None) -> float:
    return float(li.score(model, facts, {"x": edit}, candidates=False, progress=False)["score"].mean())


def _row(
    cell: str,
    validated: float,
    cost: int,
    seconds: float,
    share: float,
    tested: dict[str, float],
    model: li.Model,
    test: li.FactSet,
) -> dict[str, Any]:
    if cell not in tested:
        tested[cell] = _top1(model, test, li.EditSpec.parse(cell).edit(model))
    return {
        "cell": cell,
        "validation": validated,
        "test": tested[cell] - tested[""],
        "cost": cost,
        "seconds": seconds,
        "share": share,
    }


def _summary(model: str, method: str, rows: list[dict[str, Any]], grid: list[dict[str, Any]]) -> dict[str, Any]:
    middle = {name: statistics.median(row[name] for row in rows) for name in ("cost", "seconds", "share")}
    changes = {f"{split}_change": statistics.mean(row[split] for row in rows) for split in ("validation", "test")}
    of_grid = statistics.mean(row["test"] for row in grid)
    return {
        "model": model,
        "method": method,
        "cells x prompts": middle["cost"],
        "seconds": middle["seconds"],
        "share": middle["share"],
        **changes,
        "of the grid's": changes["test_change"] / of_grid if of_grid else None,
        "chosen": "; ".join(dict.fromkeys(row["cell"] for row in rows)),
    }
