"""Which experts of a mixture compute the tokens of each prompt."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.models.experts import ExpertMap
from laser_interp.models.forward import batches, forward
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model

BATCH_TOKENS = 4096


def expert_shares(model: Model, facts: AnyFacts) -> pd.DataFrame:
    """Which experts compute the tokens of each prompt, in the model with whatever edits are on.

    Returns:
        One row per (fact, prompt, layer, expert) that gets a token: `fact_id, prompt_id, layer, expert`; `tokens`, the
        share of the prompt's tokens that the expert gets (with two experts a token these sum to 2); `weight`, the
        router's mean weight on them; and `last`, whether it gets the token after which the answer is read.

    Raises:
        ValueError: a model without experts.

    Example:
        >>> shares = li.expert_shares(model, facts)  # doctest: +SKIP
        >>> shares.groupby(["layer", "expert"])["tokens"].sum() / shares["fact_id"].nunique()  # doctest: +SKIP
    """
    check_model(model)
    experts = {
        layer: own.experts for (layer, _), at in model.maps.items() if isinstance(own := at.of_mixture, ExpertMap)
    }
    if not experts:
        raise ValueError(f"{model.name!r} has no experts: expected a mixture of experts")
    facts = facts_of(facts)
    items = [(fact.fact_id, p, text) for fact in facts for p, text in enumerate(fact.prompts)]
    rows = [model.encode(text) for _, _, text in items]
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    out = []
    with ExitStack() as stack:
        for layer, module in experts.items():

            def note(module: Any, args: Any, *, layer: int = layer) -> None:
                index, weights = (part.detach().float().cpu().numpy() for part in args[1:3])
                seen[layer] = index.astype(int), weights

            stack.callback(module.register_forward_pre_hook(note, prepend=True).remove)
        for batch in batches(model, rows, range(len(rows)), BATCH_TOKENS):
            chosen = [rows[i] for i in batch]
            forward(model, chosen, range(len(batch)), [len(row) - 1 for row in chosen])
            for layer, (index, weights) in seen.items():
                n = len(index) // len(batch)
                for place, item in enumerate(batch):
                    own = slice(place * n, place * n + len(rows[item]))
                    for expert in np.unique(index[own]):
                        here = index[own] == expert
                        row = {"fact_id": items[item][0], "prompt_id": items[item][1], "layer": layer}
                        row |= {"expert": int(expert), "tokens": float(here.any(1).mean())}
                        row |= {"weight": float(weights[own][here].mean()), "last": bool(here[-1].any())}
                        out.append(row)
    return pd.DataFrame(out).sort_values(["layer", "expert"], kind="stable", ignore_index=True)
