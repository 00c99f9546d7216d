"""What the analysis of rare facts costs: many facts beside few, in one run.

The scores are those of the organism, drawn again for as many facts as are asked for, with noise, so that every part of
the analysis has something to do.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

import laser_interp as li
from benchmarks import results

N_RELATIONS = 25


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--facts", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--json", default=None, help="also write the rows to this file")


def main(args: argparse.Namespace) -> None:
    model = li.load_model("organism")
    test = li.load_facts("organism").split("test")
    scored = li.score(model, test, {"base": None, "laser": li.laser(model, "3.in", rho=0.05)}, progress=False)
    rows = [of_facts(scored[scored["prompt_id"] == 0], n) for n in args.facts]
    print(pd.DataFrame(rows).round(2).to_string(index=False))
    results.write(rows, args.json)


def of_facts(scored: pd.DataFrame, n: int) -> dict[str, float]:
    """Seconds of each part, for n facts of two a subject."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, scored["fact_id"].nunique(), n)
    noise, number = np.abs(rng.normal(size=n)), np.arange(n)
    names = {
        "fact_id": [f"fact {i}" for i in number],
        "subject": [f"subject {i // 2}" for i in number],
        "relation": [f"relation {i // 2 % N_RELATIONS}" for i in number],
    }
    edits = [scored[scored["edit"] == edit].iloc[chosen].reset_index(drop=True) for edit in ("base", "laser")]
    scores = pd.concat([e.assign(**names, logprob=e["logprob"] - noise) for e in edits], ignore_index=True)
    counts = pd.DataFrame({"fact_id": names["fact_id"], "n_both": np.round(10 ** rng.normal(2, 1, n))})
    seconds: dict[str, float] = {"facts": n}
    for name, run in (
        ("associate", lambda: li.associate(scores, counts).paragraph),
        ("decompose", lambda: li.decompose(scores).paragraph),
        ("explain", lambda: str(li.explain(scores))),
    ):
        started = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - started
    return seconds
