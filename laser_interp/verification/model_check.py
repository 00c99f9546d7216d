"""Checking this package on a model, a device and a dtype: edits against edited weights, batches, the engine, speed."""

import itertools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from laser_interp.edits.constructors import laser, rank_of
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site, resolve_layers, sites_in
from laser_interp.edits.spectra import spectrum
from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.models.families import is_tested
from laser_interp.models.load_check import few_layers
from laser_interp.models.model import Model
from laser_interp.models.plain_model import PlainModel
from laser_interp.models.tokens import questions
from laser_interp.progress import progress_bar
from laser_interp.scoring.scores import score

# Nats by which a log-probability may differ. Sixteen-bit models round each product to 8 or 11 bits, so that two ways to
# compute the same number differ.
ALLOWED = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.4}
_ROUNDINGS = 16  # an edit may differ by as many times the effect of one rounding, if that is more than ALLOWED
_LENGTHS = (2, 7, 12, 3)  # of the prompts, in words: no two of a batch should be padded alike


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        table: one row a comparison: `compared, where, difference` (the largest, in nats), `allowed, right`.
        speed: seconds per prompt and edit of the engine and of full passes, their ratio, and the peak memory in bytes.
        about: model, architecture, device, dtype, and whether the architecture is in the tested table.
    """

    table: pd.DataFrame
    speed: Mapping[str, float]
    about: Mapping[str, Any]

    @property
    def right(self) -> bool:
        """Whether every comparison came out within what is allowed."""
        return bool(self.table["right"].all())

    @property
    def verdict(self) -> str:
        """One sentence: right, or what is wrong."""
        where = (
            f"{self.about['model']} ({self.about['architecture']}) on {self.about['device']} in {self.about['dtype']}"
        )
        if self.right:
            largest = self.table["difference"].max()
            text = (
                f"Right: on {where} all {len(self.table)} comparisons agree; the largest difference is {largest:.1e}."
            )
            excused = int((self.table["difference"] > self.table["allowed"].min()).sum())
            if excused:
                text += f" {excused} of them differ by more: these edits amplify rounding in plain transformers too."
            return text
        wrong = self.table[~self.table["right"]]
        first = wrong.iloc[0]
        return (
            f"WRONG: on {where} {len(wrong)} of {len(self.table)} comparisons differ, first {first['compared']} at "
            f"{first['where']} by {first['difference']:.2g} where {first['allowed']:g} is allowed: do not trust "
            "results of this model here, and please report this table."
        )

    def __repr__(self) -> str:
        shown = self.table.to_string(index=False, float_format=lambda x: f"{x:.1e}")
        speed = self.speed
        return (
            f"{shown}\n\nThe engine takes {1e3 * speed['seconds_engine']:.2f} ms per prompt and edit, full passes "
            f"{1e3 * speed['seconds_full']:.2f} ms, {speed['ratio']:.1f} times as long. Peak memory: "
            f"{speed['peak_bytes'] / 1e9:.2f} GB.\n{self.verdict}"
        )

    def _repr_html_(self) -> str:
        return f"{self.table.to_html(index=False, float_format=lambda x: f'{x:.1e}')}<p>{self.verdict}</p>"


def check(
    model: Model, *, layers: Sequence[int] | None = None, rho: float = 0.1, seed: int = 0, progress: bool = True
) -> Check:
    """Compare what this package computes on a model with what plain transformers computes.

    In a few layers, each matrix is edited twice: once truncated, and once reduced to its discarded part. This package
    does it with hooks. In a model that transformers loads from a checkpoint, the weight itself is replaced, using
    torch's own decomposition in fp64. Batches are compared with single prompts, and the engine with full passes. The
    prompts are random words of the model's vocabulary.

    Some edits ruin a model so much that the last digit of a weight changes its answers. How much is measured in plain
    transformers, with weights that are off by one rounding. Such an edit may differ by 16 times this effect, where that
    is more than the usual limit, and the table shows it.

    Args:
        layers: which layers; if left out, the first, one in the middle and the last.
        rho: fraction of the rank that is kept.
        seed: of the words.

    Returns:
        `print` shows the table, speed and verdict.

    Raises:
        ValueError: no such layer, or a model whose vocabulary has no words.

    Example:
        >>> li.check(li.load_model("organism")).right
        True
    """
    layers = few_layers(model) if layers is None else resolve_layers(model, layers)
    facts = _facts(model, seed)
    prompts = [fact.prompt for fact in facts]
    allowed = ALLOWED[model.dtype]
    edits = {}
    for site in sites_in(model, layers, "all"):
        edits[site] = laser(model, site, rank=max(rank_of(rho, spectrum(model, site).max_rank), 1))
    rows: list[dict[str, Any]] = []

    def compare(compared: str, where: str, ours: Any, expected: Any, rounding: float = 0.0) -> None:
        within = max(allowed, _ROUNDINGS * rounding)
        ours, expected = np.asarray(ours, float), np.asarray(expected, float)
        difference = float(np.nanmax(np.abs(ours - expected)))
        if np.isnan(difference) or (np.isnan(ours) != np.isnan(expected)).any():
            difference = float("inf")
        rows.append(
            {
                "compared": compared,
                "where": where,
                "difference": difference,
                "allowed": within,
                "right": difference <= within,
            }
        )

    with tempfile.TemporaryDirectory(prefix="laser-interp-check-") as folder:
        plain = PlainModel(model, model.save_checkpoint(Path(folder) / "model"))
    reads = questions(model, prompts)
    alone = _each(model, prompts)
    rounding: dict[tuple[Site, str], float] = {}
    compare("the model with plain transformers", "as trained", alone, plain.next_token_logprobs(reads).cpu())
    compare("a batch with single prompts", "as trained", model.next_token_logprobs(prompts).cpu(), alone)
    for site, edit in progress_bar(edits.items(), "checking", unit="matrix", disable=not progress):
        factors, rank = plain.factors(site.layer, site.matrix), edit.rank
        parts = (("LASER", edit, slice(None, rank)), ("discarded part", edit.discarded(), slice(rank, None)))
        for name, part, kept in parts:
            with plain.edited(factors, kept):
                expected = plain.next_token_logprobs(reads).cpu()
            with plain.edited(factors, kept, nudged=True):
                rounding[site, name] = float((plain.next_token_logprobs(reads).cpu() - expected).abs().max())
            alone, batch = _each(model, prompts, part), model.next_token_logprobs(prompts, part).cpu()
            compare("an edit with edited weights", f"{site} {name}", alone, expected, rounding[site, name])
            compare("a batch with single prompts", f"{site} {name}", batch, alone, rounding[site, name])
    del plain
    speed = _engine(model, facts, edits, compare, {str(site): rounding[site, "LASER"] for site in edits})
    about = {
        "model": model.name,
        "architecture": model.architecture,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "tested_family": is_tested(model.architecture),
    }
    return Check(pd.DataFrame(rows), speed, about)


def _engine(
    model: Model, facts: FactSet, edits: Mapping[Site, Edit], compare: Any, rounding: Mapping[str, float]
) -> dict[str, float]:
    """Compare the engine with full passes, and measure both."""
    runs: dict[str, Edit | None] = {"base": None} | {str(site): edit for site, edit in edits.items()}
    logprobs, seconds = {}, {}
    for engine in ("fast", "reference"):
        started = time.perf_counter()
        scores = score(model, facts, runs, candidates=False, engine=engine, progress=False)
        seconds[engine] = (time.perf_counter() - started) / (len(facts) * len(runs))
        logprobs[engine] = dict(tuple(scores.groupby("edit", sort=False)["logprob"]))
    for label in runs:
        where = "as trained" if label == "base" else label
        both = logprobs["fast"][label], logprobs["reference"][label]
        compare("the engine with full passes", where, *both, rounding.get(label, 0.0))
    return {
        "seconds_engine": seconds["fast"],
        "seconds_full": seconds["reference"],
        "ratio": seconds["reference"] / seconds["fast"],
        "peak_bytes": float(_peak(model)),
    }


def _peak(model: Model) -> int:
    """The most memory that was taken: of the model's CUDA device, or of this process."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _each(model: Model, prompts: Sequence[str], edit: Edit | None = None) -> torch.Tensor:
    return torch.cat([model.next_token_logprobs(prompt, edit).cpu() for prompt in prompts])


def _facts(model: Model, seed: int) -> FactSet:
    """Random words of the vocabulary as prompts, and one more as the answer."""
    draw = np.random.default_rng(seed)
    words: dict[str, None] = {}
    special = set(model.tokenizer.all_special_ids)
    n_words = sum(_LENGTHS) + len(_LENGTHS)
    for token in draw.permutation(min(model.d_vocab, len(model.tokenizer))).tolist():
        word = model.decode(token).strip()
        if token not in special and word.isalnum():
            words[word] = None
        if len(words) == n_words:
            break
    if not words:
        raise ValueError(f"the tokenizer of {model.name!r} has no words to ask: give it one with a vocabulary")
    drawn = itertools.cycle(words)
    facts = []
    for number, length in enumerate(_LENGTHS):
        *asked, answer = itertools.islice(drawn, length + 1)
        prompt = " ".join([*asked, model.tokenizer.mask_token] if model.masked else asked)
        facts.append(Fact(fact_id=f"check-{number}", subject=asked[0], relation="check", object=answer, prompt=prompt))
    return FactSet(tuple(facts), name="check")
