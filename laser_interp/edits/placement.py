"""Where in which prompts an edit acts, and along which path its change is seen."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.choices import Position, check_choice
from laser_interp.edits.site_edit import SiteEdit
from laser_interp.edits.sites import Site
from laser_interp.facts.shipped import SHIPPED, WIKIDATA
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.models.forward import activations, score_dtype
from laser_interp.models.hooks import Rewrite, positions_in_batch
from laser_interp.models.model import Model
from laser_interp.models.tokens import ask_facts, questions, tokens_of_part

Beginning = tuple[int, ...]  # how a prompt begins, as token ids


@dataclass(frozen=True, eq=False)
class Placement:
    """Where in which prompts an edit acts.

    Attributes:
        name: what the positions are called in tables.
        positions: how a prompt begins (token ids) -> positions in it.
        added: for each site, vectors `[n_positions, d_out]` that are added there, by the same beginnings.
    """

    name: str
    positions: Mapping[Beginning, tuple[int, ...]]
    added: Mapping[Site, Mapping[Beginning, Float[Tensor, "n_positions d_out"]]] | None = None


Prompts = AnyFacts | Mapping[str, str] | Sequence[str]  # facts, {prompt: its subject}, or prompts


def _asked(model: Model, given: Prompts) -> list[tuple[str, str, tuple[list[int], int]]]:
    """(prompt, its subject or "", where it is read) for each prompt."""
    prompts: Any = given
    if isinstance(prompts, str) and prompts not in (*SHIPPED, WIKIDATA) and not os.path.isfile(prompts):
        prompts = [prompts]
    if isinstance(prompts, list | tuple) and all(isinstance(text, str) for text in prompts):
        prompts = dict.fromkeys(prompts, "")
    if isinstance(prompts, Mapping):
        reads = questions(model, list(prompts))
        return [(prompt, subject, read) for (prompt, subject), read in zip(prompts.items(), reads, strict=True)]
    facts = facts_of(prompts)
    items = [(prompt, fact.subject) for fact in facts for prompt in fact.prompts]
    return [(*item, of_item.read) for item, of_item in zip(items, ask_facts(model, facts), strict=True)]


def positions(model: Model, where: Position, prompts: Prompts) -> dict[Beginning, tuple[int, ...]]:
    """{beginning of a prompt: positions in it}. A beginning ends at the last of these positions, or before the mask."""
    check_choice("where", where, Position)
    by_beginning: dict[Beginning, tuple[int, ...]] = {}
    for prompt, subject, (row, read) in _asked(model, prompts):
        if where == "last":
            chosen, begin = (read,), row[:read] if model.masked else row[: read + 1]
        else:
            chosen = tuple(tokens_of_part(model, prompt, subject))
            chosen = chosen[-1:] if where == "subject_last" else chosen
            begin = row[: chosen[-1] + 1]
        if by_beginning.setdefault(tuple(begin), chosen) != chosen:
            raise ValueError(f"two prompts begin alike but have different positions: one of them is {prompt!r}")
    return by_beginning


def at_positions(model: Model, site: Site, rewrite: Rewrite, placement: Placement | None) -> Rewrite:
    """A rewrite that acts only at the given positions."""
    if placement is None:
        return rewrite
    added = None if placement.added is None else placement.added[site]

    def apply(x: Tensor, y: Tensor) -> Tensor:
        here = positions_in_batch(model, site, placement.positions)
        if not here:
            return y
        rows = torch.tensor([row for row, _, _, _ in here], device=y.device)
        at = torch.tensor([position for _, position, _, _ in here], device=y.device)
        new = rewrite(x[rows, at], y[rows, at])
        if added is not None:
            new = new + torch.stack([added[key][number] for _, _, number, key in here]).to(new)
        placed = y.clone()
        placed[rows, at] = new
        return placed

    return apply


def patched_placement(
    model: Model,
    parts: Mapping[Site, SiteEdit],
    sources: Mapping[str, str],
    where: Position,
    subjects: Mapping[str, str],
) -> Placement:
    """Placement of the targets, with the discarded parts that each site computes on the source prompts added there; see
    `Edit.patched`."""
    if where not in ("last", "subject_last"):
        raise ValueError(f"where is {where!r}: expected 'last' or 'subject_last'")
    if model.masked:
        raise ValueError(f"{model.name!r} reads whole prompts at once: only causal models are patched")
    named = {text: subjects.get(text, "") for pair in sources.items() for text in pair}
    # Prompts that begin alike, as paraphrases may, have one beginning
    begin_of: dict[str, Beginning] = {}
    positions_of: dict[Beginning, tuple[int, ...]] = {}
    for prompt, subject in named.items():
        ((begin_of[prompt], chosen),) = positions(model, where, {prompt: subject}).items()
        positions_of[begin_of[prompt]] = chosen
    source_of: dict[Beginning, Beginning] = {}
    for target, source in sources.items():
        if source_of.setdefault(begin_of[target], begin_of[source]) != begin_of[source]:
            raise ValueError(f"two prompts begin alike and have other sources: one of them is {target!r}")
    rows = [list(begin) for begin in dict.fromkeys(source_of.values())]
    dtype = score_dtype(model.dtype)
    tails = {site: (part.spectrum.matrix() - part.weight).to(dtype) for site, part in parts.items()}
    vectors: dict[Site, dict[Beginning, Tensor]] = {site: {} for site in parts}
    for indices, _, at_site in activations(model, rows, None, [(site.layer, site.matrix) for site in parts]):
        for site, tail in tails.items():
            x, _ = at_site((site.layer, site.matrix))
            for n, i in enumerate(indices):
                begin = tuple(rows[i])
                (position,) = positions_of[begin]
                vectors[site][begin] = x[n, position].to(dtype) @ tail.to(x.device)
    added = {site: {key: vectors[site][source_of[key]][None] for key in source_of} for site in parts}
    return Placement(where, {key: positions_of[key] for key in source_of}, added)
