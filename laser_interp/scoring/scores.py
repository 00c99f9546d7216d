"""Facts and edits in, one tidy table of scores out."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from laser_interp.choices import EngineName, RankBy
from laser_interp.edits.edit import Edit
from laser_interp.facts.tasks import AnyFacts, task_of
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.scoring.answer_rules import answers_up_to, most_answer_tokens
from laser_interp.scoring.scorer import Scorer


def score(
    model: Model,
    task: AnyFacts,
    edits: Mapping[str, Edit | None] | Edit | Sequence[Edit | None] | None,
    *,
    generic: Sequence[str] | None = None,
    candidates: bool = True,
    rank_by: RankBy = "answers",
    engine: EngineName = "fast",
    memory: int | str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score facts, or a task with a rule of its own, under edits.

    Args:
        task: facts, what `li.load_facts` makes facts of, or a task of `li.tasks.load_task` or `li.tasks.own_task`.
        edits: label -> edit; None is the model as trained. One edit, or several without labels, are scored beside
            the model as trained ("base"), each labelled by its kind, and by its sites where kinds are alike.
        generic: words that count as generic; see `Scorer`.
        candidates: also rank each answer among the answers of its relation.
        rank_by: whether by whole "answers" or by their "first_tokens", which takes less time.
        engine: "fast" computes what the edits share once. "reference" runs the whole model once for each edit, with
            its hooks on; the fast engine is tested against it.
        memory: bytes that activations may take, as a number or as in "2GiB"; batches are sized by it.
            Default: 2 GiB on a CPU, 60 % of what the weights leave of a CUDA device.
        progress: show a bar.

    Returns:
        One row per (fact, prompt, edit). Of the answer: `logprob` (nats, summed over its tokens, the best of its
        aliases), `rank` in the vocabulary (from 1, ties count against it), `top1`, `top5`, `top10`,
        `n_answer_tokens` and `logprob_per_token`. By the task's rule: `prediction`, `correct` and `score`. Of the most
        probable next token: its text `top_answer`, `top_prob` and `category` (as in `li.favoured_answers`, but without
        candidates no answer is known to be of the same type). `p_generic` is the probability of all generic words, and
        `generic_logprob` the log-probability of the most probable one.
        `generic_masked_rank`, `generic_masked_top1` and `generic_masked_logprob` hold after masking these words, but
        the answer's own, where the answer begins. `first_logprob` is the log-probability of the answer's first token,
        `first_is_generic` tells whether that is a generic word, and `kind_logprob` is the log-probability of all tokens
        with which the relation's answers begin; `li.decompose` takes a change apart with them. `margin` is by how much
        the answer's logits exceed the highest of all others (nats; above 0 where it is right). `candidate_rank` and
        `candidate_top1` (1.0 or 0.0) compare the answer with those of its relation by `logprob`; without candidates,
        these and `kind_logprob` are NaN. Where facts have a `target_new`, as those of CounterFact, `target_new_logprob`
        is its log-probability, and `prefers_true` (1.0 or 0.0) tells whether the right answer is more probable.

    Raises:
        ValueError: no edits, or facts the tokenizer cannot represent.

    Example:
        >>> scores = li.score(model, test, {"base": None, "LASER": laser, "discarded": laser.discarded()})
        >>> scores.groupby("edit")["correct"].mean()
    """
    check_model(model)
    if edits is None:
        edits = {"base": None}
    if isinstance(edits, str):
        raise ValueError(f"the edit is the text {edits!r}: expected an edit, as li.laser makes")
    if not isinstance(edits, Mapping):
        several = [edits] if isinstance(edits, Edit) else [edit for edit in edits if edit is not None]
        edits = {"base": None} | _labelled(several)
    for label, edit in edits.items():
        if not isinstance(edit, Edit | None):
            raise ValueError(f"the edit {label!r} is {edit!r}: expected an edit, as li.laser makes, or None")
    if not edits:
        raise ValueError('no edits given: expected a mapping such as {"base": None, "laser": edit}')
    asked = task_of(task)
    if asked.rule == "next_token" and (most := most_answer_tokens(asked)) is not None:
        short, dropped = answers_up_to(model, asked.facts, most)
        if dropped:
            warnings.warn(
                f"{dropped} of {len(asked.facts)} facts have answers of more than one token, which the published rule "
                "cannot judge: they are left out",
                stacklevel=2,
            )
        asked = asked.keep(short)
    scorer = Scorer(model, asked, generic=generic, candidates=candidates, rank_by=rank_by)
    labelled = scorer.run(edits, engine=engine, memory=memory, progress=progress and len(edits) > 1)
    return pd.concat([frame for _, frame in labelled], ignore_index=True)


def _labelled(edits: Sequence[Edit]) -> dict[str, Edit]:
    """Edits by their kinds, or by kind, sites and rank where kinds are alike."""
    if bad := [edit for edit in edits if not isinstance(edit, Edit)]:
        raise ValueError(
            f"{bad[0]!r} is no edit: expected an edit, as li.laser makes, or a mapping from labels to edits"
        )
    labels = [edit.kind for edit in edits]
    if len(set(labels)) < len(labels):
        labels = [repr(edit) for edit in edits]
    if len(set(labels)) < len(labels):
        raise ValueError("two of the edits are alike: give them labels, as in {'first': edit, 'second': other}")
    return dict(zip(labels, edits, strict=True))


def summarise(scores: pd.DataFrame, by: Sequence[str] = ("edit",)) -> pd.DataFrame:
    """Means over facts and prompts: `n, accuracy, loss, …`; loss is −mean log-probability.

    Example:
        >>> li.summarise(li.score(model, test, {"base": None, "LASER": laser}))
    """
    frame = scores.assign(loss=-scores["logprob"], n_not_finite=~np.isfinite(scores["logprob"]))
    means = ["correct", "loss", "p_generic", "generic_masked_top1", "candidate_top1"]
    means += ["prefers_true"] * ("prefers_true" in frame) + ["score", "top1", "top5", "top10"]
    groups = frame.groupby(list(by), sort=False, dropna=False)
    out = groups[means].mean().rename(columns={"correct": "accuracy"})
    out.insert(0, "n", groups.size())
    out["n_not_finite"] = groups["n_not_finite"].sum()
    return out.reset_index()
