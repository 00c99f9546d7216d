"""Fact files: what is read, what is written, what is refused."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest

import laser_interp as li
from laser_interp.facts import fact_set
from laser_interp.facts.fact_set import Fact, FactSet

ROWS = [
    {
        "fact_id": "a",
        "subject": "Ann",
        "relation": "r",
        "object": "x, y",
        "prompt": 'Ann "said"',
        "split": "validation",
        "frequency": 3,
    },
    {
        "fact_id": "b",
        "subject": "NA",
        "relation": "r",
        "object": "Zürich",
        "prompt": "NA is",
        "paraphrases": ["NA was", "NA has"],
        "aliases": ["Zurich"],
        "candidates": ["Zürich", "Bern"],
        "split": "test",
    },
]


def test_round_trips(tmp_path):
    facts = li.load_facts(ROWS)
    assert facts["b"].paraphrases == ("NA was", "NA has")
    assert facts["b"].frequency is None
    assert facts["a"].frequency == 3.0
    for suffix in (".jsonl", ".csv", ".parquet"):
        path = facts.save(tmp_path / f"facts{suffix}")
        again = li.load_facts(path)
        assert again.facts == facts.facts, suffix
        assert again.sha256 == facts.sha256
    assert li.load_facts(facts.to_frame()).facts == facts.facts


def test_candidates_and_splits():
    facts = li.load_facts(ROWS)
    assert facts.candidates_of(facts["a"]) == ("Zürich", "x, y")
    assert facts.candidates_of(facts["b"]) == ("Zürich", "Bern")
    assert facts.split("test").candidates_of(facts["a"]) == ("Zürich", "x, y")  # those of the whole set
    assert facts.splits == {"test": 1, "validation": 1}


def test_a_split_is_by_subject_and_by_seed(facts):
    split = facts.with_split(0.3, seed=4)
    sides = {s: {f.subject for f in split.split(s)} for s in ("validation", "test")}
    assert not sides["validation"] & sides["test"]
    assert len(sides["validation"]) == 30
    assert split.sha256 == facts.with_split(0.3, seed=4).sha256 != facts.with_split(0.3, seed=5).sha256
    assert len(split.split("test")) + len(split.split("validation")) == len(facts)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("f.jsonl", "", "'f.jsonl' is empty"),
        ("f.csv", "", "'f.csv' is empty"),
        ("f.csv", "fact_id,subject,relation,object,prompt\n", "'f.csv' is empty"),
        ("f.jsonl", json.dumps(ROWS[0]) + "\n\n{broken\n", "f.jsonl, line 3 is not valid JSON"),
        ("f.jsonl", "[1, 2]\n", "line 1 is list, expected a JSON object"),
        ("f.jsonl", '{"fact_id": "a"}\n', "line 1: missing subject, object, prompt"),
        ("f.jsonl", json.dumps(ROWS[0] | {"frequency": "often"}), "frequency is 'often', expected a number"),
        ("f.jsonl", json.dumps(ROWS[0] | {"aliases": "x"}), "'aliases' is 'x', expected a JSON list"),
        ("f.jsonl", json.dumps(ROWS[0] | {"aliases": [1]}), r"'aliases' is \[1\], expected a list of texts"),
        ("f.jsonl", json.dumps(ROWS[0] | {"object": " "}), "'a' has an empty 'object'"),
        ("f.jsonl", json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[0]), "duplicate fact_id 'a'"),
        ("f.csv", "fact_id,subject,relation,object\n1,2,3,4\n", "'f.csv' has no column prompt"),
        ("f.csv", "fact_id,subject,relation,object,prompt\n1,2,3,4,5\n1,2,3,4,5,6,7\n", "has 7 cells and the header 5"),
        ("f.txt", "hello", "suffix must be"),
    ],
)
def test_refusals(tmp_path, name, text, says):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        li.load_facts(tmp_path / name)


def test_other_refusals(tmp_path, facts):
    with pytest.raises(FileNotFoundError, match="no fact file"):
        li.load_facts(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match=r"in the split 'dev': it has \{'test': 200, 'validation': 200\}"):
        facts.split("dev")
    with pytest.raises(ValueError, match="it has no split"):
        li.load_facts([{k: v for k, v in ROWS[0].items() if k != "split"}]).split("test")
    with pytest.raises(ValueError, match="at least two"):
        li.load_facts([ROWS[0]]).with_split()
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\)"):
        facts.with_split(1.0)
    with pytest.raises(ValueError, match="is empty"):
        FactSet(())
    with pytest.raises(ValueError, match="suffix must be"):
        facts.save(tmp_path / "facts.xlsx")
    with pytest.raises(KeyError, match="no fact 'zzz'"):
        facts["zzz"]


def test_displays(facts):
    assert "400 facts" in facts._repr_html_()
    assert repr(facts) == "FactSet('organism', 400 facts, splits {'test': 200, 'validation': 200})"
    assert isinstance(facts[0], Fact)
    assert isinstance(facts.to_frame(), pd.DataFrame)


def test_facts_of_ones_own_in_every_form():
    rows = [{"subject": "Marie Curie", "object": "Warsaw"}, {"subject": "Ada Lovelace", "object": "London"}]
    facts = li.load_facts(rows, template="{subject} was born in")
    assert [fact.prompt for fact in facts] == ["Marie Curie was born in", "Ada Lovelace was born in"]
    assert [(fact.fact_id, fact.relation) for fact in facts] == [("1", "fact"), ("2", "fact")]
    assert li.load_facts(pd.DataFrame(rows), template="{subject} was born in").facts == facts.facts
    (fact,) = li.load_facts([("Marie Curie", "birthplace", "Warsaw", "Marie Curie was born in")])
    assert (fact.subject, fact.relation, fact.object) == ("Marie Curie", "birthplace", "Warsaw")
    assert facts.keep(fact for fact in facts if "Ada" in fact.subject).facts == facts.facts[1:]
    assert facts[:1].facts == facts.facts[:1]
    for bad, options, why in (
        ([("a", "b")], {}, "expected a dictionary, or a tuple"),
        (rows, {}, "row 1: missing prompt"),
        (rows, {"template": "was born in"}, "with {subject} in it"),
        (rows, {"template": "{subject} of {relation} in"}, "nothing else in braces"),
        ([rows[0] | {"prompt": "x"}], {"template": "{subject} was"}, "have prompts already"),
        ("organism", {"template": "{subject} was"}, "a fact set or a file has its own prompts"),
    ):
        if bad == "organism":
            li.load_facts(bad)
        with pytest.raises(ValueError, match=re.escape(why)):
            li.load_facts("facts.csv" if bad == "organism" else bad, **options)
    with pytest.raises(ValueError, match="is empty"):
        facts.keep(fact for fact in facts if False)


def test_tuples_of_three_take_their_prompts_from_a_template():
    (fact,) = li.load_facts([("Marie Curie", "born in", "Warsaw")], template="{subject} was born in")
    assert (fact.subject, fact.relation, fact.object) == ("Marie Curie", "born in", "Warsaw")
    assert fact.prompt == "Marie Curie was born in"
    rows = [{"fact_id": 7, "subject": "Marie Curie", "object": 1867}, {"subject": "Ada Lovelace", "object": "1815"}]
    facts = li.load_facts(rows, template="{subject} was born in")
    assert [(fact.fact_id, fact.object) for fact in facts] == [("7", "1867"), ("2", "1815")]
    with pytest.raises(ValueError, match="row 1: missing prompt"):
        li.load_facts([("Marie Curie", "born in", "Warsaw")])


@pytest.mark.parametrize("bad", ["x, y", ("x", " ")])
def test_lists_of_a_fact_are_lists_of_texts(bad):
    for column in ("aliases", "candidates", "paraphrases", "subject_aliases"):
        with pytest.raises(ValueError, match=f"'{column}' is one text or holds an empty text"):
            li.FactSet((Fact("1", "A", "r", "x", "A is", **{column: bad}),))


def test_a_part_ranked_among_other_answers_is_another_set():
    """Else a run would go on with scores whose answers were ranked among others."""
    whole = li.load_facts([("A", "in", "x", "A is in"), ("B", "in", "y", "B is in"), ("C", "of", "z", "C is of")])
    assert whole[:1].candidates_of(whole[0]) != li.FactSet(whole[:1].facts).candidates_of(whole[0])
    assert whole[:1].answers_sha256 is not None
    assert whole.answers_sha256 is li.FactSet(whole[:1].facts).answers_sha256 is whole[2:].answers_sha256 is None


def test_facts_that_were_checked_are_not_checked_again(monkeypatch):
    facts = li.load_facts("organism")
    checked = []
    monkeypatch.setattr(fact_set, "check_fact", checked.append)
    half = facts.keep(facts.facts[::2])
    assert len(half) == len(facts.facts[::2])
    assert half.answers == facts.answers
    assert not checked
    with pytest.raises(ValueError, match="duplicate fact_id"):
        facts.keep([facts.facts[0], facts.facts[0]])
    with pytest.raises(ValueError, match="is empty"):
        facts.keep([])
    facts.keep([replace(facts.facts[0], prompt="Another")])
    assert len(checked) >= 1
