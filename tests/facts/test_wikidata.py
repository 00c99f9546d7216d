"""The shipped facts of Wikidata: what is promised of them, and that they are what their sources make."""

from pathlib import Path

import pandas as pd
import pytest

import laser_interp as li
from analyses.build_wikidata import A_RELATION, AN_ANSWER, build
from laser_interp.facts.giveaways import giveaways, gives_away
from laser_interp.facts.wikidata import RELATIONS, read_table

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def wikidata():
    return li.load_facts("wikidata")


def test_what_is_promised(wikidata):
    assert 2000 <= len(wikidata) <= 4000
    assert wikidata.name == "wikidata"
    for fact in wikidata:
        assert len(fact.prompts) == 3
        assert all(fact.subject in prompt and prompt == prompt.strip() for prompt in fact.prompts)
        assert fact.object not in fact.aliases
    table = wikidata.to_frame()
    assert table["relation"].value_counts().max() <= A_RELATION
    assert table.groupby("relation")["object"].value_counts().max() <= AN_ANSWER
    assert set(table["relation"]) == {relation.name for relation in RELATIONS}
    validation, test = (set(table.loc[table["split"] == name, "subject"]) for name in ("validation", "test"))
    assert not validation & test
    assert all({"validation", "test"} == set(rows["split"]) for _, rows in table.groupby("relation"))


def test_counts_belong_to_the_facts(wikidata):
    counts = li.load_counts("wikidata")
    ids = {fact.fact_id: fact for fact in wikidata}
    assert set(counts["fact_id"]) <= set(ids)
    assert counts["fact_id"].is_unique
    assert 0.7 < len(counts) / len(wikidata) < 0.9
    assert (counts[["n_both", "n_subject", "n_object"]] >= 1).all(axis=None)
    for row in counts.sample(50, random_state=0).itertuples():
        assert ids[row.fact_id].frequency == row.n_both
    uncounted = set(ids) - set(counts["fact_id"])
    assert all(ids[name].frequency is None for name in uncounted)


def test_giveaways_are_marked_and_found(wikidata):
    table = read_table()
    marked = set((table["property"] + "/" + table["subject"])[table["giveaway"]])
    assert giveaways(wikidata) == marked
    assert 0.05 < len(marked) / len(wikidata) < 0.15
    assert gives_away("BBC Three", ["BBC"])
    assert gives_away("Bank of Canada", ["Canada"])
    assert gives_away("Toyota Stout", ["Toyota"])
    assert not gives_away("The Diplomat", ["Japan"])
    assert not gives_away("University of Oslo", ["City of Bergen"])


def test_they_are_what_their_sources_make():
    if not (SHARED / "pararel").is_dir():
        pytest.skip("the sources of the facts (ParaRel, Wikipedia counts) are not here")
    made = build(SHARED / "pararel", SHARED / "wikipedia_counts" / "counts.parquet")
    there = read_table()
    assert made["subject"].tolist() == there["subject"].tolist()
    pd.testing.assert_frame_equal(made.drop(columns="also_right"), there.drop(columns="also_right"), check_dtype=False)


def test_a_table_of_counts_is_read_too(organism, facts, tmp_path):
    counts = li.count(facts.keep(facts.facts[:5]), "organism", progress=False)
    from laser_interp.storage.tables import write_table

    path = write_table(counts, tmp_path / "counts.parquet", "counts", {})
    pd.testing.assert_frame_equal(li.load_counts(path), counts, check_like=True)
    with pytest.raises(FileNotFoundError, match="no table"):
        li.load_counts(tmp_path / "no.parquet")
