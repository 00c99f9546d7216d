"""The rules by which an answer counts as right.

Each rule has a corrected form, which is the default, and the published form (`protocol="paper"`). The published form
keeps its faults, so that the paper's rows can be reproduced:

- next_token: every token of the answer is the most probable one. Paper: the most probable token, stripped and in
  lower case, is the answer. So only answers of one token can be right, and the published code asserts that they are;
  `answers_up_to` leaves the others out.
- candidates: the candidate with the highest summed log p is a right one. Paper: the same.
- truths: the score is mc2, Σ p(true choices) / Σ p(all choices). Paper: the model judges each choice "true" or "false",
  which is another task.
- generation: the answer's words occur in the first line that is generated. Paper: the answer's letters occur anywhere
  in the prompt or the generated text.
"""

import re
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import regex

from laser_interp.choices import AnswerRule
from laser_interp.edits.edit import Edit
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.separators import WITHOUT_SPACES
from laser_interp.facts.tasks import Task
from laser_interp.models.model import Model
from laser_interp.models.tokens import encode_answers

DETAILED_RULES: tuple[AnswerRule, ...] = ("candidates", "truths")  # they look at every continuation
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = regex.compile(r"[\p{P}$+<=>^`|~]")  # string.punctuation, and that of other scripts, as in «Paris»


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, articles and double spaces (Rajpurkar et al. 2016); articles alone stay."""
    words = _PUNCTUATION.sub("", text.lower())
    return " ".join(_ARTICLES.sub(" ", words).split() or words.split())


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of word precision and recall after `normalise_answer`."""
    predicted, wanted = normalise_answer(prediction).split(), normalise_answer(answer).split()
    same = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * same / (len(predicted) + len(wanted)) if same else float(not predicted and not wanted)


def _contains(text: str, answer: str) -> bool:
    """Whether an answer's words stand in a text; those of scripts without spaces stand between any others."""
    text, answer = normalise_answer(text), normalise_answer(answer)
    return answer in text if WITHOUT_SPACES.search(answer) else f" {answer} " in f" {text} "


def most_answer_tokens(task: Task) -> int | None:
    """The longest answer that the task's rule can judge, in tokens; None where there is no limit."""
    if task.rule == "generation":
        return task.max_new_tokens
    return 1 if task.rule == "next_token" and task.protocol == "paper" else None


def answers_up_to(model: Model, facts: FactSet, most: int) -> tuple[FactSet, int]:
    """The facts whose answers have at most so many tokens, and how many others there are.

    Raises:
        ValueError: no fact is left.
    """
    answers = encode_answers(model, [(fact.prompt, facts.written(fact, fact.prompt, fact.object)) for fact in facts])
    short = [fact for fact, ids in zip(facts, answers, strict=True) if len(ids) <= most]
    if not short:
        raise ValueError(f"every answer of {facts.name} has more than {most} tokens of {model.name!r}")
    return facts.keep(short), len(facts) - len(short)


def apply_rule(model: Model, task: Task, scores: pd.DataFrame, edit: Edit | None) -> pd.DataFrame:
    """Add to scores whether each answer is right by the task's rule.

    Args:
        scores: one row per (fact, prompt), as a `Scorer` reads them off the logits.
        edit: the edit of these scores; it acts again when text is generated.

    Returns:
        The scores with `prediction`, `correct`, and `score` (1 or 0; for "truths" the share of the probability that is
        on true choices). The rules with candidates add three columns: `confidence` in the prediction, `p_candidates`
        (the probability of all candidates together), and `prediction_per_token` (the best by log p per token).
        "generation" adds `exact` and `f1`.
    """
    if task.rule == "generation":
        return _generated(model, task, scores, edit)
    if task.rule in DETAILED_RULES:
        return _chosen(task, scores)
    correct = scores["top1"]
    if task.protocol == "paper":
        said = scores["top_answer"].str.strip().str.lower()
        correct = said == scores["object"].str.strip().str.lower()
    return scores.assign(prediction=scores["top_answer"], correct=correct, score=correct.astype(float))


def _chosen(task: Task, scores: pd.DataFrame) -> pd.DataFrame:
    choices: list[dict[str, Any]] = []
    columns = ["continuations", "continuation_logprobs", "continuation_tokens", "continuation_right"]
    for texts, logprobs, sizes, right in zip(*(scores[c] for c in columns), strict=True):
        log_p, n = np.array(logprobs), np.array(sizes)
        all_of_them = float(np.logaddexp.reduce(log_p))  # a sum of probabilities would be 0 for long answers
        best = int(np.argmax(log_p)) if np.isfinite(log_p).all() else -1
        correct = bool(best >= 0 and right[best])
        choices.append(
            {
                "prediction": texts[best] if best >= 0 else "",
                "prediction_per_token": texts[int(np.argmax(log_p / n))] if best >= 0 else "",
                "correct": correct,
                "score": float(correct),
                "confidence": float(np.exp(log_p[best] - all_of_them)) if best >= 0 else np.nan,
                "p_candidates": float(np.exp(all_of_them)),
            }
        )
        if task.rule == "truths":
            true = float(np.logaddexp.reduce(log_p[np.array(right)]))
            choices[-1]["score"] = float(np.exp(true - all_of_them)) if best >= 0 else np.nan
    return pd.concat([scores.drop(columns=columns), pd.DataFrame(choices, index=scores.index)], axis=1)


def _generated(model: Model, task: Task, scores: pd.DataFrame, edit: Edit | None) -> pd.DataFrame:
    facts = {fact.fact_id: fact for fact in task.facts}
    asked = [(facts[fact_id], p) for fact_id, p in zip(scores["fact_id"], scores["prompt_id"], strict=True)]
    texts = model.generate([fact.prompts[p] for fact, p in asked], task.max_new_tokens, edit=edit)
    judged: list[dict[str, Any]] = []
    for (fact, p), text in zip(asked, texts, strict=True):
        prompt = fact.prompts[p]
        # Only what is new, up to the end of its line: an answer that stands in the question does not count.
        line = text.strip().split("\n")[0]
        names = (fact.object, *fact.aliases)
        if task.protocol == "paper":
            correct = any(name.strip().lower() in (prompt + text).lower() for name in names)
        else:
            correct = any(_contains(line, name) for name in names)
        judged.append(
            {
                "prediction": line,
                "correct": correct,
                "score": float(correct),
                "exact": any(normalise_answer(line) == normalise_answer(name) for name in names),
                "f1": max(f1(line, name) for name in names),
                "confidence": np.nan,
            }
        )
    return pd.concat([scores, pd.DataFrame(judged, index=scores.index)], axis=1)
