"""Which singular directions help or harm which facts: the gradients of log p(answer) with respect to the gains.

A matrix's output is Σ_i g_i S_i (x·U_i) Vh_i, so ∂ log p / ∂ g_i = Σ_positions S_i (x·U_i) (Vh_i · ∂ log p / ∂ y).
One forward and one backward pass a batch give it for every direction of every matrix (compare *Compress to Impress*,
arXiv 2510.20800, which does so for whole matrices). Removing a direction changes log p by about minus its gradient at
gain 1. `Attribution.against_ablation` measures how well this approximation holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from laser_interp.choices import RHOS, whole_number
from laser_interp.display import Drawable
from laser_interp.edits.blocks import AnyBlocks, Blocks
from laser_interp.edits.constructors import band, rank_of
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site, Where, resolve
from laser_interp.edits.spectra import spectrum
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.models.bfloat16 import in_own_numbers
from laser_interp.models.forward import activations, score_dtype
from laser_interp.models.in_use import refuse_inside_edit
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.models.tokens import ask_facts
from laser_interp.progress import progress_bar
from laser_interp.scoring.memory import parse_memory
from laser_interp.scoring.scorer import Scorer
from laser_interp.statistics.rank_correlation import spearman


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Drawable):
    """Gradients of log p(answer) by the gains.

    Attributes:
        prompts: one row per (fact, prompt): `fact_id, prompt_id, subject, relation, object, split, frequency`, and the
            `logprob` of the answer (nats, summed over its tokens).
        gradients: for each site `[n_prompts, r]`: ∂ log p / ∂ gain, in nats. Above 0: the direction helps.
        blocks, places: how the matrices were divided, if they were, and the number of each direction in its block.
    """

    prompts: pd.DataFrame
    gradients: Mapping[Site, Float[np.ndarray, "n_prompts r"]]
    blocks: Blocks | None = None
    places: Mapping[Site, Int[np.ndarray, " r"]] = field(default_factory=dict)

    figure_name = "attribution_map"

    @property
    def figure_tables(self) -> dict[str, pd.DataFrame]:
        return {"directions_gradients": self.summary()}

    def __repr__(self) -> str:
        n, sites = len(self.prompts), len(self.gradients)
        return f"Attribution({n} prompts, {sites} sites; summary() is its table, plot() its figure)"

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(self.gradients)

    def of(self, site: Site) -> Float[np.ndarray, "n_prompts r"]:
        """The gradients of one site.

        Raises:
            ValueError: the attribution has no such site.
        """
        if site not in self.gradients:
            raise ValueError(f"the attribution has no site {site}: it has {', '.join(map(str, self.sites))}")
        return self.gradients[site]

    def keep(self, rows: np.ndarray) -> Attribution:
        """Some of the prompts, by a mask or by numbers."""
        prompts = self.prompts.iloc[rows].reset_index(drop=True)
        return replace(self, prompts=prompts, gradients={site: of[rows] for site, of in self.gradients.items()})

    def summary(self, by: str | Sequence[object] | None = None) -> pd.DataFrame:
        """Mean gradient of each direction, over all prompts or over groups of them.

        Args:
            by: a column of `prompts` ("relation"), or one label a prompt (frequency bins, categories of answers).

        Returns:
            One row per (group, site, direction): `group, site, direction, gradient, se` (standard error over the
            subjects' means), `share_harmed` (of prompts with a gradient below 0), `share_reached` (of prompts whose
            answer depends on the site; below 1 for an expert that the router does not always ask), `n`.
        """
        labels = ["all"] * len(self.prompts) if by is None else self.prompts[by] if isinstance(by, str) else by
        labels = np.array([str(label) for label in labels])
        if len(labels) != len(self.prompts):
            raise ValueError(f"{len(labels)} labels for {len(self.prompts)} prompts: expected one each")
        out = []
        for label in sorted(set(labels)):
            inside = labels == label
            subjects = self.prompts["subject"].to_numpy()[inside]
            for site, values in self.gradients.items():
                chosen = pd.DataFrame(values[inside], dtype=np.float64)
                out.append(
                    pd.DataFrame(
                        {
                            "group": label,
                            "site": str(site),
                            "direction": chosen.columns,
                            "gradient": chosen.mean(skipna=False),
                            "se": chosen.groupby(subjects).mean().sem(),
                            "share_harmed": (chosen < 0).mean(),
                            "share_reached": float(chosen.any(axis=1).mean()),
                            "n": len(chosen),
                        }
                    )
                )
        return pd.concat(out, ignore_index=True)

    def propose(self, *, rhos: Sequence[float] = RHOS) -> pd.DataFrame:
        """By how much each LASER would change log p if effects were linear. It screens edits before a sweep.

        Returns:
            One row per (site, ρ), the most promising first: `site, rho, rank, predicted` (change of mean log p, nats).
            A ρ that rounds to rank 0 is lifted to 1.

        Example:
            >>> li.attribute(model, facts, "3.mlp").propose(rhos=[0.2, 0.05]).head(3)
        """
        out = []
        for site, values in self.gradients.items():
            mean = values.mean(0, dtype=np.float64)
            place = self.places.get(site, np.arange(len(mean)))
            r = int(place.max()) + 1
            ranks = {max(rank_of(rho, r), 1): rho for rho in sorted(rhos)}
            for rank, rho in ranks.items():
                if rank < r:
                    out.append(
                        {"site": str(site), "rho": rho, "rank": rank, "predicted": float(-mean[place >= rank].sum())}
                    )
        table = pd.DataFrame(out, columns=["site", "rho", "rank", "predicted"])
        return table.sort_values("predicted", ascending=False, kind="stable", ignore_index=True)

    def against_ablation(
        self,
        model: Model,
        facts: AnyFacts,
        where: Where | None = None,
        *,
        block: int = 1,
        n_blocks: int | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """How well the gradients predict what removing directions really does.

        Args:
            facts: those the attribution was made from.
            block: directions removed together.
            n_blocks: blocks a site, spread evenly over its directions; None: all.

        Returns:
            One row a site: `spearman` between minus the summed gradient and the real change of log p, over blocks
            (means over prompts), and `spearman_prompts`, over all (block, prompt) pairs; `ratio`, the regression of
            real changes on predicted ones through 0 (1 if effects were linear); `block, n_blocks, n_prompts`.

        Raises:
            ValueError: other facts or sites than the attribution's, or a block of no direction.

        Example:
            >>> attribution = li.attribute(model, facts, "3.in")
            >>> attribution.against_ablation(model, facts, block=16)
        """
        whole_number("block", block, at_least=1, more="more directions")
        facts = facts_of(facts)
        if self.prompts["fact_id"].tolist() != [fact.fact_id for fact in facts for _ in fact.prompts]:
            raise ValueError("the attribution was made from other facts: give the same set, in the same order")
        sites = self.sites if where is None else resolve(model, where)
        scorer = Scorer(model, facts, candidates=False)
        edits: dict[str, Edit | None] = {"": None}
        spans: dict[Site, list[tuple[int, int]]] = {}
        for site in sites:
            r = self.of(site).shape[1]
            starts = list(range(0, r, block))
            if n_blocks is not None and n_blocks < len(starts):
                starts = [starts[i] for i in np.linspace(0, len(starts) - 1, n_blocks).round().astype(int)]
            spans[site] = [(start, min(start + block, r)) for start in starts]
            for start, stop in spans[site]:
                edits[f"{site} {start}"] = band(model, site, start, stop, keep=False, blocks=self.blocks)
        logprob = {name: frame["logprob"].to_numpy() for name, frame in scorer.run(edits, progress=progress)}
        out = []
        for site, of_site in spans.items():
            a = np.array([-self.gradients[site][:, start:stop].sum(1, dtype=np.float64) for start, stop in of_site])
            b = np.array([logprob[f"{site} {start}"] - logprob[""] for start, _ in of_site])
            out.append(
                {
                    "site": str(site),
                    "spearman": spearman(a.mean(1), b.mean(1)),
                    "spearman_prompts": spearman(a.ravel(), b.ravel()),
                    "ratio": float((a * b).sum() / max((a * a).sum(), 1e-300)),
                    "block": block,
                    "n_blocks": len(a),
                    "n_prompts": a.shape[1],
                }
            )
        return pd.DataFrame(out)

    def _repr_html_(self) -> str:
        table = self.summary()
        worst = table.sort_values("gradient").groupby("site", sort=False).head(1).head(10)
        return f"<p>{len(self.prompts)} prompts, {len(self.sites)} sites; the most harmful directions:</p>" + (
            worst.round(4).to_html(index=False)
        )


def attribute(
    model: Model,
    facts: AnyFacts,
    where: Where | None = None,
    *,
    edit: Edit | None = None,
    blocks: AnyBlocks = None,
    memory: int | str | None = None,
    progress: bool = True,
) -> Attribution:
    """The gradients of each prompt's log p(answer) with respect to the gains, at gain 1 or at the gains of an edit.

    Args:
        where: sites; None takes every matrix of every layer.
        edit: the edit that is active while gradients are taken; None is the model as trained.
        blocks: divide each matrix, and take the directions of its parts; see `li.Blocks`.
        memory: bytes that activations may take, as in `li.score`. Those of all sites are kept for one batch, so batches
            are sized by it.

    Raises:
        ValueError: unknown sites, facts that the tokenizer cannot represent, too little memory for one prompt, or a
            model inside `with edit.on(model)`.

    Example:
        >>> attribution = li.attribute(model, facts, "3.in")
        >>> attribution.summary().nsmallest(3, "gradient")  # the most harmful directions
    """
    check_model(model)
    facts = facts_of(facts)
    refuse_inside_edit(model, "attribution")
    sites = resolve(model, "*.all" if where is None else where)
    asked = [of_item.lookups[0] for of_item in ask_facts(model, facts)]
    # A masked model reads each token of an answer in a row of its own.
    rows: list[list[int]] = []
    targets: list[list[tuple[int, int]]] = []
    owners: list[int] = []
    for owner, triples in enumerate(asked):
        of_row: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for row, position, token in triples:
            of_row.setdefault(tuple(row), []).append((position, token))
        rows += map(list, of_row)
        targets += of_row.values()
        owners += [owner] * len(of_row)
    dtype = score_dtype(model.dtype)
    keep = np.float64 if dtype == torch.float64 else np.float32
    divided = Blocks.parse(blocks)
    places = {site: spectrum(model, site, blocks=divided).place_in_block.numpy() for site in sites}
    gradients = {site: np.zeros((len(asked), len(place)), keep) for site, place in places.items()}
    logprob = np.zeros(len(asked))
    at = [(site.layer, site.matrix) for site in sites]
    longest = max(map(len, rows))
    batch_tokens = parse_memory(memory, model) // _bytes_a_token(model, sites, longest)
    if batch_tokens < longest:
        raise ValueError(
            f"a prompt of {longest} tokens does not fit in this memory: allow more, or ask for fewer sites"
        )
    with (
        nullcontext() if edit is None else edit.on(model),
        in_own_numbers(model.device),
        progress_bar(total=len(rows), desc="attributing", unit="prompt", disable=not progress) as bar,
    ):
        for indices, total, of in activations(model, rows, targets, at, batch_tokens=batch_tokens):
            owner = np.array([owners[i] for i in indices])
            np.add.at(logprob, owner, total.numpy())
            for site in sites:
                x, dy = of((site.layer, site.matrix))
                known = spectrum(model, site, blocks=divided)
                U, S, Vh = (part.to(x.device, dtype) for part in (known.U, known.S, known.Vh))
                each = (x.to(dtype) @ U) * (dy.to(dtype) @ Vh.T)
                # Padding after a row's end has no gradient, but its input may hold any number, even NaN
                of_rows = (torch.nan_to_num(each).sum(1) * S).cpu().numpy()
                np.add.at(gradients[site], owner, of_rows)
            bar.update(len(indices))
    prompts = facts.prompts_frame().assign(logprob=logprob)
    return Attribution(prompts, gradients, divided, places)


def _bytes_a_token(model: Model, sites: Sequence[Site], longest: int) -> int:
    """What one token takes while gradients flow: inputs and output gradients of the sites, what autograd keeps of every
    layer, attention weights, and logits (of one place in a row at least)."""
    of_sites = sum(d_in + 3 * d_out for d_in, d_out in (model.weight(s.layer, s.matrix).shape for s in sites))
    of_layers = model.n_layers * (16 * model.d_model + 6 * model.d_mlp + 3 * model.n_heads * longest)
    return model.dtype.itemsize * (of_sites + of_layers) + 16 * model.d_vocab // longest
