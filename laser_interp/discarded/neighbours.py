"""Which tokens are as near to an answer as answers of one relation are to each other."""

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.choices import seed_of_63_bits
from laser_interp.facts.fact_set import FactSet
from laser_interp.models.model import Model
from laser_interp.models.tokens import encode_answers


def token_directions(model: Model) -> Float[Tensor, "d_vocab d_model"]:
    """Rows of the unembedding, centred, of unit norm. The dot product of two rows is the tokens' `similarity`."""
    rows = model.unembedding().float().cpu()
    return torch.nn.functional.normalize(rows - rows.mean(0), dim=-1)


def neighbour_threshold(
    model: Model, facts: FactSet, false_positives: float = 0.01, *, n: int = 20_000, seed: int = 0
) -> dict[str, float]:
    """How similar two tokens have to be to count as of one type, calibrated on the facts' own answers.

    Returns:
        `threshold`: the similarity to an answer that a share of `false_positives` of random tokens reaches; and
        `true_positives`: the share of pairs of different answers of one relation that do (NaN without such pairs).

    Raises:
        ValueError: a share outside (0, 1).
    """
    if not 0 < false_positives < 1:
        raise ValueError(f"false_positives is {false_positives}: expected a share in (0, 1)")
    directions = token_directions(model)
    by_relation: dict[str, set[int]] = {}
    first = facts.facts[0]
    answers = list(dict.fromkeys((fact.relation, fact.object) for fact in facts))
    written = [(first.prompt, facts.written(first, first.prompt, answer)) for _, answer in answers]
    for (relation, _), tokens in zip(answers, encode_answers(model, written), strict=True):
        by_relation.setdefault(relation, set()).add(tokens[0])
    right = torch.tensor(sorted(set().union(*by_relation.values())))
    generator = torch.Generator().manual_seed(seed_of_63_bits(seed))
    is_other = torch.ones(len(directions), dtype=torch.bool)
    is_other[right] = False
    others = is_other.nonzero().squeeze(1)
    drawn = others[torch.randint(len(others), (n,), generator=generator)]
    paired = right[torch.randint(len(right), (n,), generator=generator)]
    threshold = float((directions[drawn] * directions[paired]).sum(-1).quantile(1 - false_positives))
    same = []
    for tokens in by_relation.values():
        of = directions[sorted(tokens)]
        if len(of) > 1:
            same.append((of @ of.T)[~torch.eye(len(of), dtype=torch.bool)])
    passed = float((torch.cat(same) >= threshold).float().mean()) if same else float("nan")
    return {"threshold": threshold, "true_positives": passed, "false_positives": false_positives}
