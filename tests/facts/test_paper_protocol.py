"""CounterFact by its published rule: answers of one token, and the wrong answer that each fact carries."""

import json

import pytest
from published_files import made

import laser_interp as li


def counterfact(organism, facts, folder):
    """Facts of the organism in the published form; one has an answer of several tokens."""
    some = [*facts.split("test")][:6]
    rows = [
        {
            "case_id": number,
            "requested_rewrite": {
                "subject": fact.subject,
                "prompt": fact.prompt.replace(fact.subject, "{}"),
                "relation_id": fact.relation,
                "target_true": {"str": fact.object if number else f"{fact.object} {fact.object}"},
                "target_new": {"str": some[number - 1].object},
            },
            "paraphrase_prompts": [],
        }
        for number, fact in enumerate(some)
    ]
    path = folder / "counterfact.json"
    path.write_text(json.dumps(rows))
    return path


def test_answers_of_several_tokens_are_left_out_and_counted(organism, facts, tmp_path):
    path = counterfact(organism, facts, tmp_path)
    published = li.tasks.load_task("counterfact", path, protocol="paper")
    with pytest.warns(UserWarning, match="1 of 6 facts have answers of more than one token"):
        scores = li.score(organism, published, {"base": None}, progress=False)
    assert len(scores) == 5
    assert set(scores["n_answer_tokens"]) == {1}
    corrected = li.score(organism, li.tasks.load_task("counterfact", path), {"base": None}, progress=False)
    assert len(corrected) == 6
    task = published.keep(published.facts.with_split(0.5))
    search = li.search(organism, task, matrices="in", layers=[3], rhos=[0.1], method="grid", progress=False)
    assert "1 facts have answers of more than 1 tokens: dropped" in search.notes


def test_the_wrong_answer_is_kept_and_compared(organism, facts, tmp_path):
    task = li.tasks.load_task("counterfact", counterfact(organism, facts, tmp_path))
    objects = [fact.object for fact in task.facts]
    assert [fact.target_new for fact in task.facts][2:] == objects[1:-1]
    for options in ({}, {"candidates": False}, {"rank_by": "first_tokens"}):
        scores = li.score(organism, task, {"base": None}, progress=False, **options)
        for row in scores.itertuples():
            fact = task.facts[row.fact_id]
            other = li.load_facts([(fact.subject, "r", fact.target_new, fact.prompt)], separator=" ")
            (alone,) = li.score(organism, other, {"base": None}, progress=False)["logprob"]
            assert row.target_new_logprob == pytest.approx(alone, abs=1e-5)
            assert row.prefers_true == float(row.logprob > row.target_new_logprob)
    plain = li.score(organism, task.facts.keep(map(without_new, task.facts)), {"base": None}, progress=False)
    with_new = li.score(organism, task, {"base": None}, progress=False)
    for column in ("candidate_rank", "category", "logprob", "rank"):  # it competes with nothing
        assert with_new[column].tolist() == plain[column].tolist()
    summary = li.summarise(with_new)
    assert summary["prefers_true"][0] == with_new["prefers_true"].mean()
    assert "prefers_true" not in li.summarise(plain).columns


def without_new(fact):
    from dataclasses import replace

    return replace(fact, target_new=None)


def test_the_published_file_has_it(tmp_path):
    task = li.tasks.load_task("counterfact", made(tmp_path, "counterfact"))
    assert all(fact.target_new for fact in task.facts)
    again = li.load_facts(task.facts.save(tmp_path / "f.csv"))
    assert [fact.target_new for fact in again] == [fact.target_new for fact in task.facts]
