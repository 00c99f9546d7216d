"""Answers judged: four kinds of scoring, the metrics that stand beside accuracy, and what an edit costs elsewhere.

Each kind has a corrected rule, the default, and the published one (`protocol="paper"`), with its faults, for
reproducing the paper's rows:

- next_token: every token of the answer is the most probable one. Paper: the most probable token, stripped and in
  lower case, is the answer.
- candidates: the label of highest summed log p. Paper: the same.
- truths: Σ p(true choices) / Σ p(all choices), mc2. Paper: each choice is judged "true" or "false", which is
  another reading of the set.
- generation: the answer's words occur in the first line generated. Paper: the answer's letters occur in prompt and
  generated text together.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.edits.edit import Edit
from laser_interp.facts.published import Task
from laser_interp.models.model import Model
from laser_interp.scoring.scorer import Scorer, edit_columns
from laser_interp.statistics.association import SubjectBootstrap

KEYS = ["fact_id", "prompt_id", "subject", "relation", "object", "split"]
DEGENERATE = 0.99  # share of one label among the predictions, from which on there is no classifier
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, articles and double spaces (Rajpurkar et al. 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of word precision and recall after `normalise_answer`."""
    found, wanted = normalise_answer(prediction).split(), normalise_answer(answer).split()
    same = sum((Counter(found) & Counter(wanted)).values())
    return 2 * same / (len(found) + len(wanted)) if same else float(not found and not wanted)


def _contains(text: str, answer: str) -> bool:
    return f" {normalise_answer(answer)} " in f" {normalise_answer(text)} "


def judge(
    model: Model,
    task: Task,
    edits: Mapping[str, Edit | None],
    *,
    memory: int | str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Ask a task's questions under each edit, and judge the answers.

    Returns:
        One row per (fact, prompt, edit): the fact's columns and the edit's; `prediction`; `correct`; `score` (1 or 0,
        of "truths" the probability on true choices); `logprob` of the answer; `confidence` in the prediction;
        `p_candidates`, the probability that all candidates have together (NaN where there are none);
        `prediction_per_token` (of "candidates", by log p per token); of "generation" also `exact` and `f1`.

    Raises:
        ValueError: no edits, or facts that the tokenizer cannot represent.
    """
    if not edits:
        raise ValueError('no edits given: expected a mapping such as {"base": None, "laser": edit}')
    listed = task.kind in ("candidates", "truths")
    scorer = Scorer(model, task.facts, candidates=listed, details=listed)
    frames = []
    for label, scores in scorer.run(edits, memory=memory, progress=progress):
        frame = scores[[*KEYS, "edit", *edit_columns(None)]].copy()
        frame["logprob"] = scores["logprob"]
        if task.kind == "generation":
            frame = _generated(model, task, frame, edits[label])
        elif listed:
            frame = _chosen(task, frame, scores)
        else:
            frame["prediction"] = scores["top_answer"]
            frame["correct"] = scores["top1"]
            if task.protocol == "paper":
                said = scores["top_answer"].str.strip().str.lower()
                frame["correct"] = said == scores["object"].str.strip().str.lower()
            frame["confidence"] = scores["top_prob"]
            frame["p_candidates"] = np.nan
        if "score" not in frame.columns:
            frame["score"] = frame["correct"].astype(float)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _chosen(task: Task, frame: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    chosen: list[dict[str, Any]] = []
    columns = ("continuations", "continuation_logprobs", "continuation_tokens", "continuation_right")
    for texts, logprobs, sizes, right in zip(*(scores[c] for c in columns), strict=True):
        log_p, n = np.array(logprobs), np.array(sizes)
        p = np.exp(log_p)
        best = int(np.argmax(log_p)) if np.isfinite(log_p).all() else -1
        total = p.sum()
        chosen.append(
            {
                "prediction": texts[best] if best >= 0 else "",
                "prediction_per_token": texts[int(np.argmax(log_p / n))] if best >= 0 else "",
                "correct": bool(best >= 0 and right[best]),
                "confidence": float(p[best] / total) if best >= 0 and total > 0 else np.nan,
                "p_candidates": float(total),
                "truth": float(p[np.array(right)].sum() / total) if total > 0 else np.nan,
            }
        )
    told = pd.DataFrame(chosen, index=frame.index)
    truth = told.pop("truth")
    frame = pd.concat([frame, told], axis=1)
    if task.kind == "truths":
        frame["score"] = truth
    return frame


def _generated(model: Model, task: Task, frame: pd.DataFrame, edit: Edit | None) -> pd.DataFrame:
    facts = {fact.fact_id: fact for fact in task.facts}
    rows = []
    for fact_id, p in zip(frame["fact_id"], frame["prompt_id"], strict=True):
        fact = facts[fact_id]
        prompt = fact.prompts[p]
        # Only what is new, up to the end of its line: an answer that stands in the question is none
        text = model.generate(prompt, task.max_new_tokens, edit=edit)
        line = text.strip().split("\n")[0]
        names = (fact.object, *fact.aliases)
        if task.protocol == "paper":
            correct = any(name.strip().lower() in (prompt + text).lower() for name in names)
        else:
            correct = any(_contains(line, name) for name in names)
        exact = any(normalise_answer(line) == normalise_answer(name) for name in names)
        rows.append(
            {
                "prediction": line,
                "correct": correct,
                "exact": exact,
                "f1": max(f1(line, name) for name in names),
                "confidence": np.nan,
                "p_candidates": np.nan,
            }
        )
    return pd.concat([frame, pd.DataFrame(rows, index=frame.index)], axis=1)


def metrics(
    rows: pd.DataFrame, kind: str, *, baseline: str = "base", n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """What stands beside accuracy, always.

    Returns:
        One row an edit: `n`, `accuracy` and `score` with 95 % intervals from a bootstrap over subjects, `loss`,
        `majority_baseline` (of always giving the commonest right answer), `balanced_accuracy` (mean over the right
        answers), `commonest_prediction` and `share_commonest`, `degenerate` (one label only), `p_candidates` (mean),
        `calibration_error` (10 bins of confidence), and against the baseline `n_fixed`, `n_broken` and `mcnemar_p`
        (exact); of generation also `exact` and `f1`.

    Raises:
        ValueError: no baseline among the edits.
    """
    if baseline not in set(rows["edit"]):
        raise ValueError(f"no rows of the baseline {baseline!r}: the table has {sorted(set(rows['edit']))}")
    keys = ["fact_id", "prompt_id"]
    before = rows[rows["edit"] == baseline].set_index(keys)["correct"].astype(bool)
    out = []
    for label, some in rows.groupby("edit", sort=False):
        boot = SubjectBootstrap(some["subject"], n_boot, seed)
        row: dict[str, Any] = {"edit": label, "n": len(some)}
        for name, told in (("correct", "accuracy"), ("score", "score")):
            row |= _with_interval(told, boot.mean(some[name].to_numpy(float)))
        row["loss"] = -float(some["logprob"].mean())
        row["majority_baseline"] = float(some["object"].value_counts(normalize=True).iloc[0])
        row["balanced_accuracy"] = float(some.groupby("object")["correct"].mean().mean())
        said = some["prediction"].value_counts(normalize=True)
        row["commonest_prediction"], row["share_commonest"] = str(said.index[0]), float(said.iloc[0])
        row["degenerate"] = kind == "candidates" and some["object"].nunique() > 1 and float(said.iloc[0]) >= DEGENERATE
        row["p_candidates"] = float(some["p_candidates"].mean())
        row["calibration_error"] = _calibration(some["confidence"].to_numpy(float), some["correct"].to_numpy(float))
        after = some.set_index(keys)["correct"].astype(bool).reindex(before.index)
        fixed, broken = int((~before & after).sum()), int((before & ~after).sum())
        row |= {"n_fixed": fixed, "n_broken": broken, "mcnemar_p": _mcnemar(fixed, broken)}
        for name in ("exact", "f1"):
            if name in some.columns:
                row[name] = float(some[name].astype(float).mean())
        out.append(row)
    return pd.DataFrame(out)


def _mcnemar(fixed: int, broken: int) -> float:
    from statsmodels.stats.contingency_tables import mcnemar

    if fixed + broken == 0:
        return 1.0
    found: Any = mcnemar([[0, broken], [fixed, 0]], exact=True)
    return float(found.pvalue)


def _calibration(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over ten equal bins of confidence, weighted by their size."""
    known = np.isfinite(confidence)
    if not known.any():
        return float("nan")
    confidence, correct = confidence[known], correct[known]
    number = np.minimum((confidence * 10).astype(int), 9)
    gaps = [
        abs(confidence[number == b].mean() - correct[number == b].mean()) * (number == b).mean()
        for b in np.unique(number)
    ]
    return float(sum(gaps))


def _with_interval(name: str, told: tuple[float, float, float]) -> dict[str, float]:
    value, lo, hi = told
    return {name: value, f"{name}_lo": lo, f"{name}_hi": hi}


def robustness(rows: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Facts over their paraphrases; facts with a single prompt are left out.

    Args:
        rows: of `judge`, or any with `fact_id, subject, edit, prediction, correct`.

    Returns:
        One row an edit: `n_facts`, `accuracy`, `all_right` (share of facts right on every prompt), `any_right`, and
        `agreement` (share of pairs of a fact's prompts answered alike, right or wrong); each also as `_lo` and `_hi`, a
        95 % interval from a bootstrap over subjects.
    """
    out = []
    for label, some in rows.groupby("edit", sort=False):
        by_fact = some.groupby("fact_id").filter(lambda g: len(g) > 1).groupby("fact_id")
        if not by_fact.ngroups:
            continue
        boot = SubjectBootstrap(by_fact["subject"].first(), n_boot, seed)
        correct = by_fact["correct"]
        shares = {
            "accuracy": correct.mean(),
            "all_right": correct.all(),
            "any_right": correct.any(),
            "agreement": by_fact["prediction"].agg(_agreement),
        }
        row: dict[str, Any] = {"edit": label, "n_facts": by_fact.ngroups}
        for name, values in shares.items():
            row |= _with_interval(name, boot.mean(values.to_numpy(float)))
        out.append(row)
    return pd.DataFrame(out)


def _agreement(predictions: pd.Series) -> float:
    n = len(predictions)
    same = sum(k * (k - 1) for k in Counter(predictions).values())
    return same / (n * (n - 1))


def perplexity(
    model: Model, text: str, edit: Edit | None = None, *, window: int | None = None, stride: int = 512
) -> dict[str, float]:
    """exp of the mean negative log p of a text's tokens, in windows that overlap by all but `stride` tokens.

    Each token but the first is predicted once, from at least `window − stride` tokens before it where there are so
    many.

    Args:
        window: tokens; None takes the model's positions, at most 2048.

    Returns:
        `perplexity`, `loss` (nats a token) and `n_tokens`.

    Raises:
        ValueError: a masked model, a text of fewer than two tokens, or a stride that is not in [1, window].
    """
    from contextlib import nullcontext

    if model.masked:
        raise ValueError(f"{model.name!r} is a masked language model: it has no perplexity")
    ids = list(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    longest = min(window or 2048, model.max_positions or 2048)
    stride = min(stride, longest - 1)
    if len(ids) < 2:
        raise ValueError(f"the text has {len(ids)} tokens: at least two are needed")
    if not 1 <= stride < longest:
        raise ValueError(f"stride is {stride}: expected 1 to {longest - 1}")
    total, n = 0.0, 0
    with edit.on(model) if edit is not None else nullcontext():
        predicted = 1
        while predicted < len(ids):
            stop = min(max(predicted + stride, min(longest, len(ids))), len(ids))
            start = max(stop - longest, 0)
            row = ids[start:stop]
            places = [i - 1 - start for i in range(predicted, stop)]
            for indices, logits in model.logits_at([row], [(0, place) for place in places]):
                logprobs = logits.log_softmax(-1)
                wanted = [row[places[i] + 1] for i in indices]
                total -= float(logprobs[range(len(wanted)), wanted].double().sum())
            n += stop - predicted
            predicted = stop
    return {"perplexity": float(np.exp(total / n)), "loss": total / n, "n_tokens": float(n)}


def transfer(
    model: Model,
    tasks: Sequence[Task],
    edits: Mapping[str, Edit],
    *,
    n_boot: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """What each edit, chosen for one task, does to the others.

    Returns:
        One row per (edit, task): `edit, task, n, before, after, change` (of the mean score, on the test split if there
        is one), and `change_lo, change_hi`, a 95 % interval from a bootstrap over subjects.
    """
    out = []
    for task in tasks:
        facts = task.facts.split("test") if "test" in task.facts.splits else task.facts
        rows = judge(model, task.keep(facts), {"base": None, **edits}, progress=progress)
        base = rows[rows["edit"] == "base"]
        boot = SubjectBootstrap(base["subject"], n_boot, seed)
        before = base["score"].to_numpy(float)
        for name in edits:
            after = rows.loc[rows["edit"] == name, "score"].to_numpy(float)  # in the order of the base's rows
            out.append(
                {"edit": name, "task": task.name, "n": len(after), "before": before.mean(), "after": after.mean()}
                | _with_interval("change", boot.mean(after - before))
            )
    return pd.DataFrame(out)
