"""The scoring engine against the published procedure and the strongest plain loop.

All run on the same random models, prompts and cells, interleaved in one process, so that other load on the
machine affects all of them alike. Per cell (an edit) and prompt:

- A, published: copy the model, `torch.svd_lowrank(W, q=k, niter=2)`, one prompt at a time, all logits;
- B, plain: weights swapped in place, exact factors computed once, prompts in batches sorted by length,
  logits at the last position only;
- ours: `li.score`'s engine on all ranks of all matrices of a layer.

The time of A includes its copy and factorisation; `ratio_published_no_setup` leaves them out, because they
would hardly count over very many prompts. Our factorisation and B's are done before the clock starts.
`gemm_fraction` compares two rates: the operations that `laser_interp.selection.cost_estimate` counts as needed, per
second of our time, over the best rate of matrix products on this machine, which is measured between the cells.
"""

from __future__ import annotations

import argparse
import copy
import math
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import laser_interp as li
from benchmarks import models, results
from laser_interp.choices import RHOS
from laser_interp.edits.constructors import rank_of
from laser_interp.scoring.kept_streams import kept_streams
from laser_interp.scoring.scorer import Scorer
from laser_interp.selection.cost_estimate import operations

DEFAULT = ("gpt2-small", "pythia-160m", "gptj", "llama")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(DEFAULT), choices=list(models.SHAPES))
    parser.add_argument("--prompts", type=int, default=72)
    parser.add_argument("--tokens", type=int, default=10, help="of the longest prompt; the shortest has half as many")
    parser.add_argument("--layers", type=int, nargs="+", default=None, help="default: four, spread evenly")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch (default: all cores)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--no-published", action="store_true", help="leave the slow procedure A out")
    parser.add_argument("--json", default=None, help="also write the rows to this file")


def main(args: argparse.Namespace) -> None:
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rows = []
    for name in args.models:
        rows += [one_model(name, args)]
        print(pd.DataFrame(rows).drop(columns=["by_layer"]).to_string(index=False), flush=True)
    for row in rows:
        told = ", ".join(f"{one['layer']}: {one['ms']:.3g} ms ({one['needed_gflop']:.3g})" for one in row["by_layer"])
        print(f"{row['model']}, by layer, ms per cell and prompt (GFLOP needed): {told}")
    for row in rows:
        row |= scaling(row["model"], args)
        grows = ", ".join(f"{name} {row[f'slope_{name}']:.2f}" for name in ("prompts", "cells", "layers", "vocabulary"))
        print(f"{row['model']}, exponent of the time's growth: {grows}")
        at_last, full = row["at_last"], row["at_last_full_passes"]
        print(f"{row['model']}, at the last position: {at_last:.2f} of the time, there by full passes {full:.2f}")
    results.write(rows, args.json)


def scaling(name: str, args: argparse.Namespace) -> dict[str, float]:
    """How our time grows with the prompts, the cells of a site, the layers and the vocabulary, as the exponent of a
    power; and what edits cost where the answer is read, and by full forward passes there, as a share of the time
    everywhere. Each is the median of three, taken in turn, of cells of the middle layer."""
    dtype = getattr(torch, args.dtype)
    n_prompts = 2 * args.prompts
    loaded = {
        halved: li.load_model(models.make(name, args.device, dtype, halved), device=args.device)
        for halved in ("", "layers", "vocabulary")
    }

    def work(prompts: int, rhos: int, where: str = "", halved: str = "") -> Callable[[], Any]:
        model = loaded[halved]
        middle = model.n_layers // 2
        chosen = RHOS[:: 8 // rhos]
        cells = {
            f"{matrix} {rho}": li.laser(model, li.Site(middle, matrix), rho=rho)
            for matrix in model.matrices
            for rho in chosen
        }
        facts = models.facts(prompts, model.d_vocab, tokens=args.tokens)
        scorer = Scorer(model, facts, generic=["4"], candidates=False)
        if where:
            cells = {name: cell.at(model, "last", facts) for name, cell in cells.items()}

        def run() -> list[Any]:
            kept_streams(model).forget()
            return list(scorer.run(cells, engine="reference" if where == "reference" else "fast"))

        return run

    sizes: dict[str, Any] = {"one": (n_prompts, 4), "prompts": (2 * n_prompts, 4), "cells": (n_prompts, 8)}
    sizes |= {where: (n_prompts, 4, where) for where in ("last", "reference")}
    sizes |= {halved: (n_prompts, 4, "", halved) for halved in ("layers", "vocabulary")}
    works = {name: work(*size) for name, size in sizes.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(3):
        for name, one in works.items():
            times[name].append(_timed(args.device, one)[0])
    median = {name: statistics.median(of_name) for name, of_name in times.items()}
    slopes = {f"slope_{name}": math.log2(median[name] / median["one"]) for name in ("prompts", "cells")}
    slopes |= {f"slope_{name}": math.log2(median["one"] / median[name]) for name in ("layers", "vocabulary")}
    return slopes | {
        "at_last": median["last"] / median["one"],
        "at_last_full_passes": median["reference"] / median["one"],
    }


def sync(device: str | torch.device) -> None:
    """Wait until the device has done what it was asked to."""
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()


def _timed(device: str, work: Callable[[], Any]) -> tuple[float, Any]:
    sync(device)
    start = time.perf_counter()
    out = work()
    sync(device)
    return time.perf_counter() - start, out


class _Rate:
    """The machine's own rate of matrix products, at the best of some sizes."""

    def __init__(self, width: int, device: str, dtype: torch.dtype) -> None:
        self.device = device
        tokens = (256, 1024, 2048) if device == "cpu" else (4096, 16384)
        self.inputs = [torch.randn(n, width, device=device, dtype=dtype) for n in tokens]
        # Several weights, as in a model, so that none is still in the processor's cache.
        self.weights = [torch.randn(width, 4 * width, device=device, dtype=dtype) for _ in range(6)]
        self.times: list[list[float]] = [[] for _ in tokens]

    def measure(self) -> None:
        for x, times in zip(self.inputs, self.times, strict=True):
            for weight in self.weights:
                times.append(_timed(self.device, partial(torch.mm, x, weight))[0])

    @property
    def flops(self) -> float:
        size = 2.0 * self.weights[0].numel()
        return max(size * len(x) / statistics.median(times) for x, times in zip(self.inputs, self.times, strict=True))


def one_model(name: str, args: argparse.Namespace) -> dict[str, Any]:
    device, dtype = args.device, getattr(torch, args.dtype)
    hf, tokenizer = models.make(name, device, dtype)
    model = li.load_model((hf, tokenizer), device=device)
    facts = models.facts(args.prompts, model.d_vocab, tokens=args.tokens)
    layers = args.layers or models.spread_layers(model.n_layers)
    scorer = Scorer(model, facts, generic=["1 2 3", "4", "5"], candidates=False)
    plain = _Plain(hf, name, [tokenizer(fact.prompt)["input_ids"] for fact in facts])
    answers = torch.tensor([tokenizer(fact.object)["input_ids"][0] for fact in facts], device=device)
    rate = _Rate(model.d_model, device, dtype)

    ours = needed = plain_time = published_time = no_setup = 0.0
    n_ours = n_plain = n_published = 0
    worst = 0.0
    by_layer = []
    for place, layer in enumerate(layers):
        edits: dict[str, li.Edit | None] = {}
        wanted = 0.0
        for matrix in model.matrices:
            site = li.Site(layer, matrix)
            full = li.spectrum(model, site).max_rank
            ranks = sorted({max(rank_of(rho, full), 1) for rho in RHOS}, reverse=True)
            edits |= {f"{matrix} {rank}": li.laser(model, site, rank=rank) for rank in ranks}
            wanted += operations(model, site, ranks, [len(row) for row in plain.rows])
        if place == 0:  # warm up all three
            list(scorer.run(dict(list(edits.items())[:2])))
            kept_streams(model).forget()
            plain.logprobs(answers)
        rate.measure()
        seconds, frames = _timed(device, lambda edits=edits: dict(scorer.run(edits)))
        rate.measure()
        ours, needed, n_ours = ours + seconds, needed + wanted, n_ours + len(edits)
        cells_prompts = len(edits) * len(facts)
        by_layer.append(
            {"layer": layer, "ms": 1e3 * seconds / cells_prompts, "needed_gflop": wanted / cells_prompts / 1e9}
        )
        chosen = list(edits)[place :: max(len(edits) // 3, 1)][:3]
        for at, label in enumerate(chosen):
            matrix, rank = label.split()
            spectrum = li.spectrum(model, li.Site(layer, matrix))
            factors = [part.to(device) for part in (spectrum.U, spectrum.S.float(), spectrum.Vh)]
            seconds, found = _timed(device, partial(plain.edited, layer, matrix, int(rank), factors, answers))
            plain_time, n_plain = plain_time + seconds, n_plain + 1
            difference = torch.tensor(frames[label]["logprob"].to_list()) - found.double().cpu()
            worst = max(worst, float(difference.abs().max()))
            rate.measure()
            if at == place % len(chosen) and not args.no_published:
                seconds, setup = _timed(device, partial(plain.published, layer, matrix, int(rank), answers))
                published_time, no_setup, n_published = (
                    published_time + seconds,
                    no_setup + seconds - setup,
                    n_published + 1,
                )
                rate.measure()

    def per(seconds: float, cells: int) -> float:
        return 1e3 * seconds / max(cells, 1) / len(facts)

    mine = per(ours, n_ours)
    return {
        "model": name,
        "device": f"{torch.cuda.get_device_name() if device != 'cpu' else platform.processor() or platform.machine()}, "
        f"{torch.get_num_threads()} threads, {args.dtype}",
        "ms_per_cell_prompt": mine,
        "ratio_published": per(published_time, n_published) / mine if n_published else None,
        "ratio_plain": per(plain_time, n_plain) / mine,
        "gemm_fraction": needed / ours / rate.flops,
        "ratio_published_no_setup": per(no_setup, n_published) / mine if n_published else None,
        "worst_difference": worst,
        "gflop_per_second": rate.flops / 1e9,
        "cells": n_ours,
        "prompts": len(facts),
        "by_layer": by_layer,
    }


class _Plain:
    """What one would write without this package: a transformers model and its weights."""

    def __init__(self, hf: Any, name: str, rows: list[list[int]]) -> None:
        self.hf, self.name, self.rows = hf, name, rows
        self.device = next(hf.parameters()).device
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        self.batches = []
        for start in range(0, len(order), 24):
            batch = order[start : start + 24]
            longest = len(rows[batch[-1]])
            ids, mask = torch.zeros(2, len(batch), longest, dtype=torch.long)
            for i, row in enumerate(batch):
                ids[i, : len(rows[row])], mask[i, : len(rows[row])] = torch.tensor(rows[row]), 1
            self.batches.append((torch.tensor(batch), ids.to(self.device), mask.to(self.device)))

    @torch.no_grad()
    def logprobs(self, answers: Tensor) -> Tensor:
        out = torch.empty(len(self.rows), device=self.device)
        for batch, ids, mask in self.batches:
            hidden = self.hf.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            last = hidden[torch.arange(len(ids)), mask.sum(1) - 1]
            logprobs = self.hf.get_output_embeddings()(last).float().log_softmax(-1)
            own = logprobs[torch.arange(len(ids)), answers[batch]]
            (logprobs >= own[:, None]).sum(-1)  # the rank
            out[batch] = own
        return out

    def view(self, layer: int, matrix: str, hf: Any = None) -> Tensor:
        """The weight in place, `[d_in, d_out]` or, in NeoX, `[heads, d_head, d_in]`."""
        hf = self.hf if hf is None else hf
        if self.name.startswith("gpt2"):
            block = hf.transformer.h[layer]
            if matrix in "qkv":
                return block.attn.c_attn.weight.data.chunk(3, dim=1)["qkv".index(matrix)]
            return {"o": block.attn.c_proj, "in": block.mlp.c_fc, "out": block.mlp.c_proj}[matrix].weight.data
        if self.name == "pythia-160m":
            block = hf.gpt_neox.layers[layer]
            if matrix in "qkv":
                weight = block.attention.query_key_value.weight.data
                heads = hf.config.num_attention_heads
                return weight.view(heads, 3, -1, weight.shape[1])[:, "qkv".index(matrix)]
            names = {"o": block.attention.dense, "in": block.mlp.dense_h_to_4h, "out": block.mlp.dense_4h_to_h}
            return names[matrix].weight.data.T
        if self.name.startswith("gptj"):
            block = hf.transformer.h[layer]
            linear = {"o": "out_proj", "in": "fc_in", "out": "fc_out"}.get(matrix, f"{matrix}_proj")
            return getattr(block.mlp if matrix in ("in", "out") else block.attn, linear).weight.data.T
        block = hf.model.layers[layer]
        linear = {"in": "up", "out": "down"}.get(matrix, matrix)
        return getattr(
            block.mlp if matrix in ("in", "gate", "out") else block.self_attn, f"{linear}_proj"
        ).weight.data.T

    @torch.no_grad()
    def edited(self, layer: int, matrix: str, rank: int, factors: list[Tensor], answers: Tensor) -> Tensor:
        """B: swap the weight, run, swap it back."""
        U, S, Vh = factors
        view = self.view(layer, matrix)
        before = view.clone()
        weight = ((U[:, :rank] * S[:rank]) @ Vh[:rank]).to(view.dtype)
        view.copy_(weight if view.ndim == 2 else weight.T.reshape(view.shape))
        try:
            return self.logprobs(answers)
        finally:
            view.copy_(before)

    @torch.no_grad()
    def published(self, layer: int, matrix: str, rank: int, answers: Tensor) -> float:
        """A: run the published procedure, and return the seconds that its copy and factorisation took."""
        start = time.perf_counter()
        hf = copy.deepcopy(self.hf)
        view = self.view(layer, matrix, hf)
        weight = view if view.ndim == 2 else view.reshape(-1, view.shape[-1])
        U, S, V = torch.svd_lowrank(weight.float(), q=rank, niter=2)
        view.copy_((U @ S.diag() @ V.T).to(view.dtype).reshape(view.shape))
        sync(self.device)
        setup = time.perf_counter() - start
        for row, answer in zip(self.rows, answers, strict=True):
            logits = hf(torch.tensor([row], device=self.device)).logits[0, -1]
            logprobs = logits.float().log_softmax(-1)
            logprobs[answer].item()
            logprobs.topk(10).indices.tolist()
        return setup


warnings.filterwarnings("ignore", message=".*generic words.*")
