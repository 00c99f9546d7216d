"""Estimates the time and the memory of a search, from a measured part of its first site."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from laser_interp.edits.edit_spec import EditSpec
from laser_interp.edits.factorisation import factorise
from laser_interp.edits.sites import Site
from laser_interp.facts.tasks import AnyFacts
from laser_interp.models.model import Model
from laser_interp.scoring.engine import activation_bytes
from laser_interp.scoring.memory import parse_memory
from laser_interp.scoring.side_by_side import downstream
from laser_interp.selection.execution import Unit, Worker
from laser_interp.selection.plan import Plan, divided_task
from laser_interp.selection.settings import SearchSettings
from laser_interp.signatures import with_settings

_LENGTHS = [8]  # tokens of a prompt, for the ratio of operations between sites
_FEW_PROMPTS = 64


@dataclass(frozen=True, repr=False)
class Estimate:
    """The time and the memory that the grid of a search would take.

    Attributes:
        n_cells, n_prompts: how many cells, without the model as trained, and how many prompts each of them runs.
        seconds: for scoring and for factorising every matrix, also those whose factors are on disk already.
        memory: bytes for the weights, the factors of a layer, and the activations; what the libraries themselves take,
            about half a gigabyte, is not in it.
        method: how the search would look for the edit, which may be less than the whole grid.
    """

    n_cells: int
    n_prompts: int
    seconds: float
    memory: int
    method: str

    def __repr__(self) -> str:
        hours, rest = divmod(round(self.seconds), 3600)
        duration = f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
        memory = f"{self.memory / 1e9:.2f} GB of memory"
        return f"{self.n_cells} cells x {self.n_prompts} prompts: about {duration}, {memory}"


@with_settings(SearchSettings)
def estimate(model: Model, task: AnyFacts, settings: SearchSettings | None = None, **changes: Any) -> Estimate:
    """How long the whole grid of a search would take, and how much memory. Other methods run a part of the grid.

    The cells of the first site are timed on up to 64 prompts, and its factorisation is timed too. Both times are then
    scaled by the number of operations that each site needs.

    Args:
        task, settings, changes: see `li.search`.

    Example:
        >>> print(li.estimate(model, facts, matrices="mlp"))
    """
    asked = SearchSettings.of(settings, changes)
    divided, _ = divided_task(model, task, asked.split, asked.seed)
    plan = Plan(model, divided, replace(asked, method="grid"))
    method = asked.method_for(plan.task.rule, plan.n_cells)
    site, cells = next(iter(plan.by_site.items()))
    start = time.perf_counter()
    factorise(model.weight(site.layer, site.matrix))
    per_svd_operation = (time.perf_counter() - start) / _svd_operations(model, site)

    few = plan.facts.draw(_FEW_PROMPTS, seed=0)
    worker = Worker(model, plan.task, [few], plan.settings)
    worker.run(Unit("warm", 0, tuple(cells[:1])))  # tokenised and warm
    start = time.perf_counter()
    worker.run(Unit("measured", 0, tuple(cells)))
    per_operation = (time.perf_counter() - start) / operations(model, site, _ranks(cells), _LENGTHS)
    n_few = sum(len(fact.prompts) for fact in few)
    n_prompts = sum(plan.prompts) if plan.settings.test == "all" else plan.n_prompts(validation=True)
    seconds = sum(
        per_operation * operations(model, at, _ranks(of_site), _LENGTHS) * n_prompts / n_few
        + per_svd_operation * _svd_operations(model, at)
        for at, of_site in plan.by_site.items()
    )
    shapes = [model.weight(at.layer, m).shape for at in plan.by_site for m in model.matrices_of(at.layer)]
    n_matrices = max(len(model.matrices_of(at.layer)) for at in plan.by_site)
    factors = 2 * 4 * max(sum(shape) * min(shape) for shape in shapes) * n_matrices
    prompts = [prompt for fact in plan.facts.facts[:_FEW_PROMPTS] for prompt in fact.prompts]
    length = max(len(model.encode(prompt)) for prompt in prompts) + 1
    budget = parse_memory(plan.settings.memory, model)
    memory = model.n_bytes + factors + activation_bytes(model, budget, sum(plan.prompts), length)
    return Estimate(plan.n_cells, n_prompts, seconds, memory, method)


def operations(model: Model, site: Site, ranks: Sequence[int], lengths: Sequence[int]) -> float:
    """Floating-point operations that scoring LASER at one site really needs, for all its ranks together.

    Only matrix products count; a multiplication and an addition are two operations. A prompt has n tokens, of which the
    last is read, and P(m) is the size of the weight of m. For each prompt, each rank r needs:

    - `2 n ΣP + 2 n² d_attn` in each layer above the site. The second term is for attention's scores and values: causal
      attention looks at half of n² pairs. In the last layer, `2 n P` for k and v, `2 P` for other matrices, and
      `4 n d_attn`;
    - in the site's own layer, the same for the matrices that its output reaches;
    - `2 n r d_out` for the site itself (`2 r d_out` in the last layer, except for k and v);
    - `2 d_model d_vocab` for one row of the unembedding.

    All ranks together need `2 n r_max d_in` for `x U`. Prompts with equal beginnings need less than this.
    """
    last = model.n_layers - 1
    below = downstream(model, site.layer)[site.matrix]
    own = model.matrices_of(site.layer)  # other kinds of layers, where there are any, are counted as this one
    size = {m: model.weight(site.layer, m).numel() for m in own}
    d_attn = model.weight(site.layer, "o").shape[0] if "o" in own else model.d_model
    d_in, d_out = model.weight(site.layer, site.matrix).shape

    def layer(n: int, matrices: set[str], is_last: bool, attention: bool) -> float:
        n_computed = {m: n if m in ("k", "v") or not is_last else 1 for m in own}
        products = sum(2.0 * n_computed[m] * size[m] for m in own if m in matrices)
        return products + (2.0 * n * d_attn * (2 if is_last else n) if attention else 0.0)

    total = 0.0
    for n in lengths:
        each = 2.0 * model.d_model * model.d_vocab
        if site.layer < last:
            each += (last - 1 - site.layer) * layer(n, set(size), False, True) + layer(n, set(size), True, True)
        each += layer(n, below, site.layer == last, site.matrix in ("q", "k", "v"))
        at = n if site.layer < last or site.matrix in ("k", "v") else 1
        total += len(ranks) * each + 2.0 * at * (sum(ranks) * d_out + max(ranks) * d_in)
    return total


def _ranks(cells: Sequence[EditSpec]) -> list[int]:
    return [cell.rank or 1 for cell in cells]


def _svd_operations(model: Model, site: Site) -> float:
    d_in, d_out = model.weight(site.layer, site.matrix).shape
    return min(d_in, d_out) ** 2 * float(max(d_in, d_out))
