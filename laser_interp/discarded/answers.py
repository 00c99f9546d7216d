"""What the discarded components answer, and of which category the answer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.edit import Edit
from laser_interp.facts.fact_set import FactSet
from laser_interp.models.model import Model
from laser_interp.scoring.scorer import CATEGORIES, Categories, Scorer
from laser_interp.statistics.association import SubjectBootstrap
from laser_interp.storage.tables import check


def favoured_answers(
    model: Model,
    facts: FactSet,
    edit: Edit,
    *,
    shares: Sequence[float] = (1.0,),
    start: str = "bottom",
    generic: Sequence[str] | None = None,
    top_k: int = 5,
    false_positives: float = 0.01,
    progress: bool = True,
) -> pd.DataFrame:
    """What each fact's prompts are answered with by the model, by the edit, and by what it discards.

    Args:
        shares: parts of the discarded directions to decode; see `Edit.discarded`.
        start: where a share begins to grow.
        generic: words that count as generic, as `laser_interp.frequency.frequent_words` finds them in a corpus;
            None takes those of the model.
        top_k: how many of the most probable answers to list.
        false_positives: of the fallback for relations without other answers; see below.

    Returns:
        One row per (fact, prompt, edit): `edit` is "base", "edit" or "discarded" (with its `share`, NaN
        for the others), the first token of the `answer`, its `probability`, its `category`:

        - correct: the answer's first token, or an alias's;
        - generic: a generic word;
        - same_type: a wrong answer that is an answer of the same relation, or, where a relation has no other answer
          in the set, a token as near to the right one (in `similarity`) as only a share of `false_positives` of
          random tokens is; `frame.attrs["neighbours"]` has that threshold, and how many pairs of answers of one
          relation pass it, where there are some;
        - other: anything else;

        and its `similarity` to the truth: the cosine between the two tokens' rows of the unembedding,
        after subtracting the mean row. The paper's figure 5b plots such a similarity without saying
        which; this one is 1 for the same token and about 0 for unrelated ones. `top_answers` and `top_probs`
        list the most probable answers.
    """
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
    scorer = Scorer(model, facts, generic=generic, candidates=False, top_k=top_k)
    first = _first_tokens(model, facts)
    directions = token_directions(model)
    neighbours = neighbour_threshold(model, facts, false_positives)
    keys = [(fact.fact_id, p) for fact, p in scorer.items]
    categories = Categories(
        np.array([(i, token) for i, key in enumerate(keys) for token in first[key][0]]),
        np.array([(i, token) for i, key in enumerate(keys) for token in first[key][1]]),
        scorer.generic_ids.tolist(),
        model.d_vocab,
    )
    alone = [i for i, key in enumerate(keys) if first[key][1] <= set(first[key][0])]

    frames = []
    for label, scores in scorer.run(runs, progress=progress):
        tokens = scores["top_token"].to_numpy()
        of = categories.of(np.arange(len(keys)), tokens)
        for i in alone:
            near = float((directions[tokens[i]] @ directions[first[keys[i]][0]].T).max())
            if of[i] == "other" and near >= neighbours["threshold"]:
                of[i] = "same_type"
        truth = torch.tensor([first[key][0][0] for key in keys])
        similarity = (directions[torch.tensor(tokens)] * directions[truth]).sum(-1)
        frame = scores[["fact_id", "prompt_id", "subject", "relation", "object", "split"]].copy()
        frame["edit"] = label
        frame["share"] = float("nan")
        frame["answer"] = scores["top_answer"]
        frame["probability"] = scores["top_prob"]
        frame["category"] = of
        frame["similarity"] = similarity.double().numpy()
        if top_k:
            frame["top_answers"], frame["top_probs"] = scores["top_answers"], scores["top_probs"]
        frames.append(frame)
    answers = check(pd.concat(frames, ignore_index=True), "answers")
    answers.attrs["neighbours"] = neighbours | {"n_prompts": len(alone)}
    return answers


def token_directions(model: Model) -> Float[Tensor, "d_vocab d_model"]:
    """Rows of the unembedding, less their mean, of unit norm: their products are the `similarity` of two tokens."""
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
    prompt = facts.facts[0].prompt
    answers = list(dict.fromkeys((fact.relation, fact.object) for fact in facts))
    for (relation, _), tokens in zip(answers, model.encode_answers([(prompt, o) for _, o in answers]), strict=True):
        by_relation.setdefault(relation, set()).add(tokens[0])
    right = torch.tensor(sorted(set().union(*by_relation.values())))
    generator = torch.Generator().manual_seed(seed)
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


def path_effects(model: Model, facts: FactSet, edit: Edit, *, progress: bool = True) -> pd.DataFrame:
    """What an edit changes directly, and what it changes through the rest of the model.

    Returns:
        One row per (fact, prompt, path), `path` in "total", "direct", "indirect" (see `Edit.via`): the change of
        log p(answer), `d_logprob`, and of log p(a generic word), `d_log_generic`. In the final residual stream the
        last two add up to the first; after the final norm and the softmax they need not.

    Raises:
        ValueError: a site without a direct path.
    """
    runs: dict[str, Edit | None] = {"base": None, "total": edit}
    runs |= {path: edit.via(path) for path in ("direct", "indirect")}
    found = dict(Scorer(model, facts, candidates=False).run(runs, progress=progress))
    base = found.pop("base")
    keys = ["fact_id", "prompt_id", "subject", "relation", "object", "split"]
    return pd.concat(
        [
            frame[keys].assign(
                path=path,
                d_logprob=frame["logprob"] - base["logprob"],
                d_log_generic=np.log(frame["p_generic"]) - np.log(base["p_generic"]),
            )
            for path, frame in found.items()
        ],
        ignore_index=True,
    )


def continuations(
    model: Model,
    prompts: Sequence[str],
    edit: Edit,
    *,
    max_new_tokens: int = 20,
    alphas: Sequence[float] = (),
    seed: int | None = None,
) -> Continuations:
    """How the model goes on under each component: as trained, LASER, what it discards, and mixtures.

    Args:
        alphas: also LASER with the discarded part injected so strongly.
        seed: None for the most probable continuation; otherwise sampled, from the same seed under each component.

    Raises:
        ValueError: a model that cannot generate.
    """
    runs: dict[str, Edit | None] = {"as trained": None, "LASER": edit, "discarded part": edit.discarded()}
    runs |= {f"LASER + {alpha:g} x discarded": edit.inject(alpha) for alpha in alphas}
    rows = [
        {"prompt": prompt, "component": name, "text": model.generate(prompt, max_new_tokens, edit=one, seed=seed)}
        for prompt in prompts
        for name, one in runs.items()
    ]
    return Continuations(pd.DataFrame(rows))


@dataclass(frozen=True)
class Continuations:
    """Continuations side by side.

    Attributes:
        frame: one row per (prompt, component): `prompt, component, text`.
    """

    frame: pd.DataFrame

    def __str__(self) -> str:
        width = max(map(len, self.frame["component"]))
        parts = []
        for prompt, rows in self.frame.groupby("prompt", sort=False):
            shown = (
                f"  {name:<{width}}  {text.strip()}" for name, text in zip(rows["component"], rows["text"], strict=True)
            )
            parts.append("\n".join([str(prompt), *shown]))
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        wide = self.frame.pivot(index="prompt", columns="component", values="text")
        return wide[list(dict.fromkeys(self.frame["component"]))].to_html()


def category_shares(answers: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Share of each category, one row per (edit, share of the discarded part).

    Each category has also `_lo` and `_hi`: a 95 % interval from a bootstrap over subjects (the exact binomial bound on
    subjects where the share is 0 or 1).
    """
    out = []
    for (label, share), some in answers.groupby(["edit", "share"], sort=False, dropna=False):
        boot = SubjectBootstrap(some["subject"], n_boot, seed)
        category, everything = some["category"].to_numpy(str), np.ones(len(some), dtype=bool)
        row: dict[str, Any] = {"edit": label, "share": share}
        told = boot.rates([(category == name, everything) for name in CATEGORIES])
        for name, (value, lo, hi) in zip(CATEGORIES, told, strict=True):
            row |= {name: value, f"{name}_lo": lo, f"{name}_hi": hi}
        out.append(row | {"n": len(some), "similarity": float(some["similarity"].mean())})
    return pd.DataFrame(out)


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
