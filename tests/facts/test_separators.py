"""What stands between a prompt and its answer, and what is done to answers, copies and odd characters."""

import warnings

import pytest

import laser_interp as li
from laser_interp.facts.separators import separator_of

FACT = {"subject": "France", "object": "Paris", "prompt": "The capital of France is"}


@pytest.mark.parametrize(
    ("prompt", "answer", "separator"),
    [
        ("The capital is", "Paris", " "),
        ("The answer is:", "B", " "),
        ("He said.", "No", " "),
        ('The capital is "', "Paris", ""),
        ('The capital is ("', "Paris", ""),
        ("The capital is “", "Paris", ""),
        ("The capital is «", "Paris", ""),
        ("'", "Paris", ""),
        ('The "capital"', "is", " "),
        ("The Beatles'", "songs", " "),
        ("It is **", "Paris", ""),
        ("It is **Paris**", "and", " "),
        ("It is `", "Paris", ""),
        ("The answer is (", "B", ""),
        ("[", "B", ""),
        ("It costs $", "5", ""),
        ("It costs 5 €", "each", " "),
        ("#", "tag", ""),
        ("2+2=", "4", ""),
        ("2 + 2 =", "4", " "),
        ("x ==", "4", " "),
        ("1939-", "45", ""),
        ("1939–", "45", ""),
        ("It is -", "Paris", " "),
        ("either/", "or", ""),
        ("snake_", "case", ""),
        ("法国的首都是", "巴黎", ""),
        ("法国的首都是", "Paris", " "),
        ("首都：", "巴黎", ""),
        ("フランスの首都は", "パリ", ""),
        ("เมืองหลวง", "ปารีส", ""),
        ("수도는", "파리", " "),  # Korean sets spaces
        ("The capital is ", "Paris", ""),
        ("The capital is\n", "Paris", ""),
        ("The capital is", " Paris", ""),
    ],
)
def test_the_rule(prompt, answer, separator):
    assert separator_of(prompt, answer) == separator


def test_a_given_separator_is_itself_but_no_second_space():
    assert separator_of("2+2=", "4", " ") == " "
    assert separator_of("2+2= ", "4", " ") == ""
    assert separator_of("The capital is", "Paris", "") == ""


def test_published_sets_keep_their_form(tmp_path):
    from published_files import made

    assert li.tasks.load_task("counterfact", made(tmp_path, "counterfact")).facts.separator == " "


@pytest.mark.parametrize("answer", ["Paris ", "Paris\n", "\tParis", "Paris\u00a0", "Cafe\u0301"])
def test_answers_are_cleaned_with_a_warning(answer):
    clean = "Café" if answer.startswith("Cafe") else "Paris"
    with pytest.warns(UserWarning, match="had white space around them or letters that are not composed"):
        (fact,) = li.load_facts([FACT | {"object": answer, "aliases": [f" {answer}"], "candidates": [answer, "Rome"]}])
    assert (fact.object, fact.aliases, fact.candidates) == (clean, (clean,), (clean, "Rome"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        li.load_facts([FACT])


def test_facts_that_are_there_twice_count_once(organism):
    rows = [FACT, {**FACT, "fact_id": "again"}, {**FACT, "object": "Lyon"}]
    with pytest.warns(UserWarning, match="1 facts of 'facts' are there twice, 'again' among them"):
        facts = li.load_facts(rows)
    assert [fact.object for fact in facts] == ["Paris", "Lyon"]


@pytest.mark.parametrize("column", ["object", "prompt", "subject", "relation"])
def test_a_nul_is_refused(column):
    with pytest.raises(ValueError, match="holds a NUL"):
        li.load_facts([{"relation": "r", **FACT, column: "a\0b"}])
    with pytest.raises(ValueError, match="holds a NUL"):
        li.load_facts([FACT | {"aliases": ["a\0b"]}])
