"""Is it the same edit for all relations? Against the obvious way: choose by hand, for each relation."""

import pandas as pd
import pytest

import laser_interp as li
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.facts.shipped import shipped_text
from laser_interp.studies.questions import relations
from laser_interp.studies.questions.relations import by_relation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def some(facts):
    return facts.keep(facts.facts[::2])


def by_hand(scores, cells):
    """The cell with the best top-1, then log-probability, over the rows."""
    means = {cell: scores[scores["edit"] == cell][["top1", "logprob"]].mean().tolist() for cell in cells}
    return max(means, key=means.get)


def test_choices_are_those_made_by_hand(organism, some, study_of):
    context = study_of(organism, some, matrices=["in"], layers=[1, 3], rhos=[0.4, 0.05])
    table = by_relation(context).set_index("relation")
    cells = context.search.cells.query("split == 'validation' and kind == 'laser'")["cell"].tolist()
    validation = context.facts.split("validation")
    edits = {"": None} | {cell: EditSpec.parse(cell).edit(organism) for cell in cells}
    scores = li.score(organism, validation, edits, candidates=False, progress=False)
    test = li.score(organism, context.facts.split("test"), edits, candidates=False, progress=False)
    assert set(table.index) == {fact.relation for fact in some}
    for relation, row in table.iterrows():
        mine = scores["relation"] == relation
        assert row["own_choice"] == by_hand(scores[mine], edits)
        assert row["others_choice"] == by_hand(scores[~mine], edits)
        here = test[test["relation"] == relation]
        for column, cell in (("as_trained", ""), ("chosen", str(context.cell)), ("held_out", row["others_choice"])):
            assert row[column] == pytest.approx(here[here["edit"] == cell]["top1"].mean())
        assert row["n_fixed"] - row["n_broken"] == round((row["chosen"] - row["as_trained"]) * row["n_test"])
        assert row["n_test"] == (here["edit"] == "").sum()


def test_the_choice_of_others_is_tested_where_it_is_another(organism, some, study_of, monkeypatch):
    """Each relation is told to take the worst: that edit is then run on its test facts."""
    context = study_of(organism, some, matrices=["in"], layers=[1, 3], rhos=[0.4, 0.05])
    monkeypatch.setattr(
        relations, "_best", lambda sums: str(sums.drop(str(context.cell)).sort_values("logprob").index[0])
    )
    table = by_relation(context)
    assert (table["others_choice"] != str(context.cell)).all()
    assert table["held_out"].notna().all()


def test_one_relation_has_no_others(organism, facts, study_of):
    one = facts.keep([fact for fact in facts if fact.relation == facts.facts[0].relation][::3])
    context = study_of(organism, one, li.laser(organism, "3.in", 0.05), matrices=["in"], layers=[3], rhos=[0.4, 0.05])
    assert by_relation(context).empty


def test_a_study_says_it(organism, some):
    found = li.study(
        organism, some, matrices=["in"], layers=[3], rhos=[0.2, 0.05], n_draws=1, n_permutations=199,
        compose=False, attribute=False, text=shipped_text(), progress=False,
    )  # fmt: skip
    assert "## Is it the same edit for all relations?" in found.report
    told = found.summary["relations"]
    table = found.tables["relations"]
    assert told["n"] == len(table)
    change = (table["n_test"] * (table["held_out"] - table["as_trained"])).sum() / table["n_test"].sum()
    assert told["change_held_out"] == pytest.approx(change)
    assert f"{100 * change:+.1f} points" in found.report
    before, after = found.summary["perplexity"]
    assert pd.notna(before["perplexity"])
    assert before["perplexity"] != after["perplexity"]


def test_the_shipped_text_is_prose():
    text = shipped_text()
    assert 600 < len(text.split()) < 1200
    assert text.isascii()
