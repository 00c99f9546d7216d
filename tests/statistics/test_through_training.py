"""When each prompt is first answered, and how often it had been read by then."""

import numpy as np
import pandas as pd
import pytest

import laser_interp as li
from laser_interp.statistics.through_training import _means, _recall


def scores_at(base, laser):
    rows = [
        {"fact_id": str(i), "prompt_id": 0, "subject": f"s{i}", "relation": "r", "edit": edit, "correct": bool(right)}
        for edit, of_edit in (("base", base), ("laser", laser))
        for i, right in enumerate(of_edit)
    ]
    return pd.DataFrame(rows)


def test_a_generic_word_is_compared_with_the_first_token_of_an_answer(organism, facts):
    """An answer of several tokens is less probable than its first, and a generic word is one token."""
    scores = li.score(organism, facts.split("test")[:40], {"base": None}, progress=False).assign(category="generic")
    prompts = {"all": scores.set_index(["fact_id", "prompt_id"]).index}
    (told,) = _means(scores, prompts)["generic_ahead"]
    assert told == (scores["generic_logprob"] > scores["first_logprob"]).mean()
    (longer,) = _means(scores.assign(logprob=scores["logprob"] - 5), prompts)["generic_ahead"]
    assert longer == told


def test_the_first_step_and_the_count_by_then():
    scored = {10: scores_at([0, 0, 1], [0, 1, 1]), 20: scores_at([1, 0, 0], [1, 1, 0])}
    counts = {
        step: pd.DataFrame({"fact_id": list("012"), "n_both": np.array([1, 2, 3]) * step}) for step in scored
    }  # fmt: skip
    found = _recall(scored, counts).set_index("fact_id")
    assert found["base"].tolist() == pytest.approx([20, np.nan, 10], nan_ok=True)
    assert found["base_read"].tolist() == pytest.approx([20, np.nan, 30], nan_ok=True)
    assert found["laser"].tolist() == [20, 10, 10]
    assert found["laser_read"].tolist() == [20, 20, 30]
    assert found["laser_at_end"].tolist() == [True, True, False]
    assert found["frequency"].tolist() == [20, 40, 60]
    assert "base_read" not in _recall(scored, None)
