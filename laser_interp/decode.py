"""What the discarded components answer, and of which category the answer is."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from laser_interp.edit import Edit
from laser_interp.facts import FactSet
from laser_interp.model import Model
from laser_interp.results import check
from laser_interp.score import Scorer

CATEGORIES = ("correct", "generic", "same_type", "other")


def favoured_answers(
    model: Model,
    facts: FactSet,
    edit: Edit,
    *,
    shares: Sequence[float] = (1.0,),
    start: str = "bottom",
    generic: Sequence[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """What each fact's prompts are answered with by the model, by the edit, and by what it discards.

    Args:
        shares: parts of the discarded directions to decode; see `Edit.discarded`.
        start: where a share begins to grow.
        generic: words that count as generic; None takes those of the model.

    Returns:
        One row per (fact, prompt, edit): `edit` is "base", "edit" or "discarded" (with its `share`, NaN
        for the others), the first token of the `answer`, its `probability`, its `category`:

        - correct: the answer's first token, or an alias's;
        - generic: a generic word;
        - same_type: a wrong answer that is an answer of the same relation;
        - other: anything else;

        and its `similarity` to the truth: the cosine between the two tokens' rows of the unembedding,
        after subtracting the mean row. The paper's figure 5b plots such a similarity without saying
        which; this one is 1 for the same token and about 0 for unrelated ones.
    """
    scorer = Scorer(model, facts, generic=generic, candidates=False)
    runs: dict[str, Edit | None] = {"base": None, "edit": edit}
    share_of = {f"discarded {share}": share for share in shares}
    runs |= {label: edit.discarded(share, start=start) for label, share in share_of.items()}
    first = _first_tokens(model, facts)
    generic_ids = set(scorer.generic_ids.tolist())
    directions = model.unembedding().float()
    directions = torch.nn.functional.normalize(directions - directions.mean(0), dim=-1)

    frames = []
    for label, scores in scorer.run(runs, progress=progress):
        categories, similarities = [], []
        for fact_id, p, token in zip(scores["fact_id"], scores["prompt_id"], scores["top_token"], strict=True):
            right, same_type = first[fact_id, p]
            if token in right:
                categories.append("correct")
            elif token in generic_ids:
                categories.append("generic")
            else:
                categories.append("same_type" if token in same_type else "other")
            similarities.append(float(directions[token] @ directions[right[0]]))
        frame = scores[["fact_id", "prompt_id", "subject", "relation", "object", "split"]].copy()
        frame["edit"] = "discarded" if label in share_of else label
        frame["share"] = share_of.get(label, float("nan"))
        frame["answer"] = scores["top_answer"]
        frame["probability"] = scores["top_prob"]
        frame["category"] = categories
        frame["similarity"] = similarities
        frames.append(frame)
    return check(pd.concat(frames, ignore_index=True), "answers")


def category_shares(answers: pd.DataFrame) -> pd.DataFrame:
    """Share of each category, one row per (edit, share of the discarded part)."""
    out = answers.groupby(["edit", "share"], sort=False, dropna=False)["category"].value_counts(normalize=True)
    out = out.unstack("category").reindex(columns=list(CATEGORIES)).fillna(0.0)
    out["n"] = answers.groupby(["edit", "share"], sort=False, dropna=False).size()
    out["similarity"] = answers.groupby(["edit", "share"], sort=False, dropna=False)["similarity"].mean()
    return out.reset_index()


def _first_tokens(model: Model, facts: FactSet) -> dict[tuple[str, int], tuple[list[int], set[int]]]:
    """For each (fact, prompt): first tokens of its right answers, and of all answers of its relation."""
    asked = [
        (fact.fact_id, p, prompt, text, is_right)
        for fact in facts
        for p, prompt in enumerate(fact.prompts)
        for text, is_right in facts.spellings(fact).items()
    ]
    out: dict[tuple[str, int], tuple[list[int], set[int]]] = {}
    tokens_of = model.encode_answers([(prompt, text) for _, _, prompt, text, _ in asked])
    for (fact_id, p, _, _, is_right), tokens in zip(asked, tokens_of, strict=True):
        right, same_type = out.setdefault((fact_id, p), ([], set()))
        same_type.add(tokens[0])
        if is_right:
            right.append(tokens[0])
    return out
