"""What the discarded components answer, and the category of each answer; which tokens are as near to an answer as
answers of one relation are to each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.choices import UNIT_PROMPTS, seed_of_63_bits
from laser_interp.cluster_intervals import Clusters, with_interval
from laser_interp.edits.edit import Edit
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.models.tokens import encode_answers
from laser_interp.progress import by_fractions, progress_bar
from laser_interp.scoring.categories import CATEGORIES
from laser_interp.scoring.scorer import Scorer
from laser_interp.storage.schemas import check

_PROMPT = ["fact_id", "prompt_id", "subject", "relation", "object", "split", "edit"]


def favoured_answers(
    model: Model,
    facts: AnyFacts,
    edit: Edit,
    *,
    shares: Sequence[float] = (1.0,),
    start: str = "bottom",
    generic: Sequence[str] | None = None,
    top_k: int = 5,
    false_positives: float = 0.01,
    progress: bool = True,
) -> pd.DataFrame:
    """The answers to each fact's prompts: of the model, with the edit, and with only what the edit discards.

    Args:
        shares: parts of the discarded directions to decode; see `Edit.discarded`.
        start: which directions a share takes first: "bottom" or "top"; see `Edit.discarded`.
        generic: words that count as generic, as `laser_interp.frequency.frequent_words` finds them in a corpus;
            None takes those of the model.
        top_k: how many of the most probable answers to list.
        false_positives: the share that sets the threshold of similarity for "same_type"; see below.

    Returns:
        One row per (fact, prompt, edit): `edit` is "base", "edit" or "discarded" (with its `share`, NaN
        for the others), the first token of the `answer`, its `probability`, its `category`:

        - correct: the answer's first token, or an alias's;
        - generic: a generic word;
        - same_type: a wrong answer that is an answer of the same relation. If the set has no other answer of the
          relation: a token with a `similarity` to the right one that only a share of `false_positives` of random
          tokens reaches; `frame.attrs["neighbours"]` has this threshold, and the share of pairs of answers of one
          relation that reach it;
        - other: anything else;

        and its `similarity` to the truth: the cosine between the two tokens' rows of the unembedding,
        after subtracting the mean row. The paper's figure 5b plots such a similarity without saying
        which; this one is 1 for the same token and about 0 for unrelated ones. `top_answers` and `top_probs`
        list the most probable answers.

    Example:
        >>> answers = li.favoured_answers(model, test, laser)
        >>> answers.groupby("edit")["category"].value_counts(normalize=True)
    """
    check_model(model)
    facts = facts_of(facts)
    edit.check(model)
    share_of = {f"discarded {share}": share for share in shares}
    runs: dict[str, Edit | None] = {"base": None, "edit": edit}
    runs |= {label: edit.discarded(share, start=start) for label, share in share_of.items()}
    answers = answers_under(
        model, facts, runs, generic=generic, top_k=top_k, false_positives=false_positives, progress=progress
    )
    answers["share"] = [share_of.get(label, float("nan")) for label in answers["edit"]]
    answers["edit"] = answers["edit"].where(~answers["edit"].isin(list(share_of)), "discarded")
    return check(answers, "answers")


def answers_under(
    model: Model,
    facts: FactSet,
    runs: Mapping[str, Edit | None],
    *,
    generic: Sequence[str] | None = None,
    top_k: int = 5,
    false_positives: float = 0.01,
    progress: bool = True,
) -> pd.DataFrame:
    """Answers and their categories under any edits; the columns of `favoured_answers`, with the runs' labels.

    Args:
        runs: label -> edit; None is the model as trained.
    """
    # In the parts in which searches and studies score, so that their residual streams serve again
    parts = facts.in_parts(UNIT_PROMPTS)
    scorers = [Scorer(model, part, generic=generic, rank_by="first_tokens", top_k=top_k) for part in parts]
    n_prompts = [len(scorer.items) for scorer in scorers]
    directions = token_directions(model)
    neighbours = neighbour_threshold(model, facts, false_positives)
    n_alone = 0
    answered: dict[str, list[pd.DataFrame]] = {label: [] for label in runs}
    total = sum(n_prompts) * len(runs)
    with progress_bar(total=total, desc="answers", unit=" prompts", disable=not progress) as bar:
        advance = by_fractions(bar)
        for scorer, n in zip(scorers, n_prompts, strict=True):
            # First tokens of the right answers, and of all answers of the relation, by item
            first = scorer.lookups.first_tokens()
            right = first[first[:, 2] == 1, :2]
            right_of = np.split(right[:, 1], np.searchsorted(right[:, 0], np.arange(1, n)))
            is_wrong = ~np.isin(first[:, 0] * model.d_vocab + first[:, 1], right[:, 0] * model.d_vocab + right[:, 1])
            alone = np.setdiff1d(np.arange(n), first[is_wrong, 0])  # of whose relation no other answer is known
            n_alone += len(alone)
            truth = torch.tensor([int(tokens[0]) for tokens in right_of])
            for label, scores in scorer.run(runs, tick=lambda share, n=n: advance(share * n * len(runs))):
                tokens, category = scores["top_token"].to_numpy(), scores["category"].to_numpy(object)
                for i in alone:
                    nearness = float((directions[tokens[i]] @ directions[right_of[i]].T).max())
                    if category[i] == "other" and nearness >= neighbours["threshold"]:
                        category[i] = "same_type"
                similarity = (directions[torch.tensor(tokens)] * directions[truth]).sum(-1).double().numpy()
                told = {"share": float("nan"), "answer": scores["top_answer"], "probability": scores["top_prob"]}
                told |= {"category": category, "similarity": similarity}
                told |= {name: scores[name] for name in ("top_answers", "top_probs") if top_k}
                answered[label].append(scores[_PROMPT].assign(**told))
    frames = [frame for of_parts in answered.values() for frame in of_parts]
    answers = check(pd.concat(frames, ignore_index=True), "answers")
    answers.attrs["neighbours"] = neighbours | {"n_prompts": n_alone}
    return answers


def category_shares(answers: pd.DataFrame) -> pd.DataFrame:
    """Share of each category, one row per (edit, share of the discarded part).

    Each category has also `_lo` and `_hi`: a 95 % interval over subjects.
    """
    rows = []
    for (label, share), some in answers.groupby(["edit", "share"], sort=False, dropna=False):
        clusters = Clusters(some["subject"])
        category, everything = some["category"].to_numpy(str), np.ones(len(some), dtype=bool)
        row: dict[str, Any] = {"edit": label, "share": share}
        for name in CATEGORIES:
            row |= with_interval(name, clusters.rate(category == name, everything))
        rows.append(row | {"n": len(some), "similarity": float(some["similarity"].mean())})
    return pd.DataFrame(rows)


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
    others = torch.from_numpy(np.setdiff1d(np.arange(len(directions)), right))
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
