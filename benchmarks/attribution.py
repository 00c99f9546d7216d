"""What one attribution pass costs, in forward passes over the same prompts.

Both run on the same random model and prompts, in turn, in one process; the factorisations are made before the
clock starts. A forward pass reads the last position of each prompt; an attribution pass is one forward and one
backward pass, with every direction of every matrix.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import pandas as pd
import torch

import laser_interp as li
from benchmarks import models, results
from laser_interp.facts.files import facts_from_rows
from laser_interp.models.forward import logits_at
from laser_interp.models.tokens import questions

BATCH_TOKENS = 2048


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=["gpt2-small", "llama"], choices=list(models.SHAPES))
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=12, help="tokens of each prompt")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", default=None, help="also write the rows to this file")


def main(args: argparse.Namespace) -> None:
    rows = [one_model(name, args) for name in args.models]
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    results.write(rows, args.json)


def one_model(name: str, args: argparse.Namespace) -> dict[str, object]:
    model = li.load_model(models.make(name, args.device, getattr(torch, args.dtype)), device=args.device)
    rng = random.Random(0)
    facts = facts_from_rows(
        {
            "fact_id": str(i),
            "subject": "a",
            "relation": "r",
            "object": str(rng.randrange(1, 400)),
            "prompt": " ".join(str(rng.randrange(1, 400)) for _ in range(args.tokens)),
        }
        for i in range(args.prompts)
    )
    asked = [row for row, _ in questions(model, [fact.prompt for fact in facts])]
    reads = [(i, len(row) - 1) for i, row in enumerate(asked)]
    li.attribute(model, facts, progress=False)  # keeps the factorisations
    passes, forwards = [], []
    for _ in range(args.runs):
        start = time.perf_counter()
        li.attribute(model, facts, progress=False)
        passes.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in logits_at(model, asked, reads, batch_tokens=BATCH_TOKENS):
            pass
        forwards.append(time.perf_counter() - start)
    return {
        "model": name,
        "prompts": args.prompts,
        "attribution_s": statistics.median(passes),
        "forward_s": statistics.median(forwards),
        "forward_passes": statistics.median(a / b for a, b in zip(passes, forwards, strict=True)),
    }
