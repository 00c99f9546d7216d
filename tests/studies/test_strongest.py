"""What validation prefers is studied: one edit or the composition, with its subsets and beside better prompts."""

from dataclasses import replace

import pytest
import torch
from families import edited, prefix

import laser_interp as li
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.storage.run_folder import read_tables
from laser_interp.studies.questions.composition import dealt
from laser_interp.studies.questions.contributions import subsets

pytestmark = pytest.mark.slow

QUICK = {
    "prompts": "all",
    "rhos": [0.2, 0.05],
    "n_draws": 1,
    "n_permutations": 99,
    "shares": (1.0,),
    "strengths": (),
    "attribute": False,
}


@pytest.fixture(scope="module")
def some(facts):
    return facts.keep(facts.facts[:160])


@pytest.fixture(scope="module")
def strongest(organism, some, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strongest")
    return li.study(
        organism, some, **QUICK, matrices="mlp", subject="both", text="A master of ships. " * 20, out=folder,
        progress=False,
    )  # fmt: skip


def test_the_composition_is_studied_where_validation_prefers_it(strongest):
    composed = strongest.summary["composed"]
    assert composed["is_studied"]
    assert composed["edit"] == str(strongest.cell) == strongest.summary["selected"]["cell"]
    assert len(strongest.cell.sites) >= 2
    steps = strongest.tables["composition_by_step"]
    assert steps["validation_score"].is_monotonic_increasing
    table = strongest.tables["controls"].set_index("control")["accuracy"]
    assert table["laser"] == pytest.approx(composed["accuracy"]) == steps["test_score"].iloc[-1]
    assert table["single"] == pytest.approx(composed["single_accuracy"]) == steps["test_score"].iloc[1]
    assert strongest.summary["selected"]["validation"]["laser"]["score"] == steps["validation_score"].iloc[-1]
    assert strongest.summary["decomposition"]["whole"]["change"] == pytest.approx(
        strongest.summary["test"]["base"]["loss"] - strongest.summary["test"]["laser"]["loss"]
    )
    assert [row["edit"] for row in strongest.summary["perplexity"]] == ["base", "laser", "single"]
    assert "Validation prefers the composition" in strongest.report


def test_its_scores_are_those_of_edited_weights_in_a_plain_model(strongest, some, plain):
    """The composed edit by the engine, and all its matrices replaced in transformers, one prompt at a time."""
    hf, tokenizer = plain
    kept = zip(strongest.cell.sites, strongest.cell.ranks, strict=True)
    with torch.no_grad():
        model = edited("gpt2", hf, {(s.layer, s.matrix): lambda r, k=rank: prefix(r, k) for s, rank in kept})
    scores = strongest.tables["scores"]
    scores = scores[scores["edit"] == "laser"].set_index(["fact_id", "prompt_id"])
    for fact in some.split("test").facts[:20]:
        for number, prompt in enumerate(fact.prompts):
            ids = tokenizer(prompt)["input_ids"]
            whole = tokenizer(prompt + some.written(fact, prompt, fact.object))["input_ids"]
            with torch.no_grad():
                found = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            expected = sum(float(found[at - 1, whole[at]]) for at in range(len(ids), len(whole)))
            assert scores.loc[(fact.fact_id, number), "logprob"] == pytest.approx(expected, abs=1e-4)


def test_every_subset_is_there_and_adds_up(strongest, organism, some):
    table = strongest.tables["subsets"].set_index("edits")
    n = len(strongest.cell.sites)
    assert len(table) == 2**n
    whole = table[table["n_edits"] == n].iloc[0]
    assert whole["accuracy"] == pytest.approx(strongest.summary["test"]["laser"]["accuracy"])
    first = strongest.cell.of_sites(strongest.cell.sites[:1])
    scores = li.score(organism, some.split("test"), {"one": first.edit(organism)}, progress=False)
    assert table.loc[str(first.site), "accuracy"] == pytest.approx(scores["correct"].mean())
    for row in strongest.tables["contributions"].to_dict("records"):
        without = table[(table["n_edits"] == n - 1) & ~table.index.str.contains(row["edit"], regex=False)].iloc[0]
        assert row["accuracy"] == pytest.approx(whole["accuracy"] - without["accuracy"])
        assert row["nats"] == pytest.approx(without["loss"] - whole["loss"])
        assert row["accuracy_lo"] <= row["accuracy"] <= row["accuracy_hi"]


def test_more_than_four_edits_have_each_alone_and_all_but_each():
    sites = [li.Site(layer, "in") for layer in range(5)]
    assert [len(chosen) for chosen in subsets(sites)] == [1] * 5 + [4] * 5 + [5]
    assert len(subsets(sites[:4])) == 15


def test_both_studies_the_single_edit_as_well(strongest):
    own = li.compare_runs([strongest.out, strongest.out / "single"]).table
    assert own["edit"].tolist() == [str(strongest.cell), str(strongest.selection.cell)]
    composed = strongest.summary["composed"]
    assert own["edited"].tolist() == [composed["accuracy"], composed["single_accuracy"]]
    tables = read_tables(strongest.out / "single")
    assert "subsets" not in tables
    assert "single" not in set(tables["controls"]["control"])


def test_prompts_stand_beside_the_edit(strongest, some, organism):
    rows = strongest.tables["prompts"].set_index(["prompts", "edit"])
    asked = some.keep(some.split("test").facts)
    first = li.score(organism, asked, {"laser": strongest.edit(organism)}, progress=False)
    first = first[first["prompt_id"] == 0]
    assert rows.loc[("as asked", "laser"), "accuracy"] == pytest.approx(first["correct"].mean())
    assert rows["n"].nunique() == 1
    named = {row["prompts"]: row for row in strongest.summary["prompts"]}
    assert set(named) == {"as asked", "3 examples before"}
    few = named["3 examples before"]
    assert few["edit_change"]["change"] == pytest.approx(few["laser"]["accuracy"] - few["base"]["accuracy"])
    change = few["base"]["accuracy"] - named["as asked"]["base"]["accuracy"]
    assert few["prompt_change"]["change"] == pytest.approx(change)
    assert few["edit_nats"] == pytest.approx(few["base"]["loss"] - few["laser"]["loss"])


def test_the_single_edit_is_studied_where_it_is_asked_for_or_better(organism, some):
    how = QUICK | {"matrices": "mlp", "examples": 0, "progress": False}
    single = li.study(organism, some, **how, subject="single")
    assert len(single.cell.sites) == 1
    assert "prompts" not in single.summary
    assert "contributions" not in single.summary
    assert not single.summary["composed"]["is_studied"]
    alone = li.study(organism, some, **how, most_edits=1)
    assert alone.cell == alone.selection.cell == single.cell


def test_answers_dealt_anew_keep_the_kind(facts):
    mixed = dealt(facts, 0)
    assert mixed.sha256 == dealt(facts, 0).sha256 != dealt(facts, 1).sha256
    for relation in {fact.relation for fact in facts}:
        for split in facts.splits:
            own, other = (
                sorted(f.object for f in of if (f.relation, f.split) == (relation, split)) for of in (facts, mixed)
            )
            assert own == other
    assert sum(a.object != b.object for a, b in zip(facts, mixed, strict=True)) > len(facts) / 2


def test_what_a_composition_gains_by_chance(organism, some):
    how = QUICK | {"matrices": "in", "layers": [2, 3], "examples": 0, "progress": False}
    found = li.study(organism, some, **how, subject="single", chance=2).summary["composed"]
    assert [row["seed"] for row in found["by_chance"]] == [0, 1]
    for row in found["by_chance"]:
        assert row["validation"] >= 0
        assert -1 <= row["test"] <= 1


def test_an_edit_at_some_of_its_sites():
    spec = EditSpec((li.Site(1, "in"), li.Site(3, "in")), rho=0.1, ranks=(2, 5))
    assert str(spec.of_sites([li.Site(3, "in")])) == "3.in laser rank=5"
    assert spec.of_sites(spec.sites) == spec
    learned = EditSpec((li.Site(1, "in"), li.Site(3, "in")), "gains", gains=((1.0, 0.5), (0.0, 1.0)))
    assert learned.of_sites([li.Site(1, "in")]).gains == ((1.0, 0.5),)


def test_shipped_counts_are_taken_where_none_are_given(study_of):
    wikidata = li.load_facts("wikidata")
    organism = li.load_model("organism")
    context = study_of(organism, wikidata.keep(wikidata.facts[:100]))
    assert context.counts is not None
    assert any("load_counts('wikidata')" in note for note in context.notes)
    other = li.load_facts(wikidata.to_frame().head(100).assign(subject="x", subject_aliases=None))
    assert study_of(organism, other).counts is None


def test_runs_without_a_study_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no finished study"):
        li.compare_runs([tmp_path])
    with pytest.raises(ValueError, match="no runs are given"):
        li.compare_runs([])


def test_the_page_is_of_the_edit_that_was_studied(strongest, tmp_path):
    from laser_interp.report.run_reader import read_run
    from laser_interp.report.two_runs import side_by_side

    run, single = read_run(strongest.out), read_run(strongest.out / "single")
    assert (run.selected, single.selected) == (str(strongest.cell), str(strongest.selection.cell))
    means = run.cells.set_index(["cell", "split"]).loc[run.selected]
    assert means.loc["test", "top1"] == pytest.approx(strongest.summary["test"]["laser"]["accuracy"])
    assert means.loc["validation", "top1"] == strongest.tables["composition_by_step"]["validation_score"].iloc[-1]
    assert (run.right[run.selected] == 1).sum() == strongest.tables["scores"].query("edit == 'laser'")["correct"].sum()
    assert run.answers(run.selected).category.astype(bool).sum() == strongest.summary["test"]["base"]["n"]
    for folder in (strongest.out, strongest.out / "single"):
        li.write_report(folder, tmp_path / "page.html", progress=False)
    both = side_by_side([strongest.out, strongest.out / "single"], [run, single], ["several", "single"])
    rows = {row[0]: row[1:] for row in both[0]["rows"]}
    assert rows["test, under the edit"][0] == pytest.approx(strongest.summary["composed"]["accuracy"], abs=1e-4)
    assert not any("single edit" in name for name in rows)


def test_a_page_leaves_facts_without_a_count_out(organism, facts, tmp_path):
    some = facts.keep(facts.facts[:80])
    counts = li.count(some, "organism", progress=False).iloc[:-7]
    li.study(
        organism, some, counts, matrices="in", layers=[3], rhos=[0.05], n_draws=1, n_permutations=99, examples=0,
        shares=(1.0,), strengths=(), compose=False, attribute=False, out=tmp_path, progress=False,
    )  # fmt: skip
    li.write_report(tmp_path, tmp_path / "page.html", progress=False)
    with pytest.raises(ValueError, match="no count for 7 facts"):
        li.write_report(tmp_path, tmp_path / "page.html", counts=counts, progress=False)


def test_prompts_that_tell_the_answer_or_do_not_fit_are_not_asked(study_of, organism, facts):
    """Relations with few answers, facts without enough examples, and prompts that are longer than the model allows."""
    from laser_interp.studies.questions.better_prompts import BetterPrompts, formats

    some = facts.keep(facts.facts[:160])
    context = study_of(organism, some, examples=3)
    assert len(formats(context)["as asked"]) == len(formats(context)["3 examples before"]) == len(context.test)
    alone = replace(context.test[0], relation="alone", fact_id="alone")
    context = study_of(organism, some.keep([*some, alone]))
    assert "alone" not in {fact.fact_id for fact in formats(context)["as asked"]}
    assert "1 test facts have no 3 examples that could stand before their prompts" in context.notes
    two = [replace(fact, object=("Ranarik", "Vostin")[i % 2], aliases=()) for i, fact in enumerate(some)]
    assert formats(study_of(organism, some.keep(two))) == {}
    long = study_of(organism, some.with_prefix("It seems It seems It seems "), li.laser(organism, "3.in", rank=3))
    assert BetterPrompts.ask(long) is None
    assert any("prompts with 3 examples before were not asked: " in note for note in long.notes)


def test_names_of_a_few_letters_are_looked_for_as_words():
    def fact(number, answer):
        return li.Fact(f"f{number}", f"subject {number}", "r", answer, f"In 1{number} the number was")

    facts = li.FactSet((fact("x", "1"), fact("y", "2"), fact("z", "31")))
    (asked, *_) = facts.with_examples(2)
    assert asked.prompt.count("\n") == 2
    with pytest.raises(ValueError, match="has 0 examples"):
        li.FactSet((fact("x", "1"), fact("y", "1"))).with_examples(1)


def test_dealt_answers_keep_their_choices(facts):
    some = facts.keep(replace(f, candidates=(f.object, f"not {f.object}")) for f in facts.facts[:40])
    assert all(fact.object in fact.candidates for fact in dealt(some, 3))


def test_counts_are_of_the_same_facts_or_not_taken():
    from laser_interp.frequency.shipped_counts import counts_of

    wikidata = li.load_facts("wikidata").keep(li.load_facts("wikidata").facts[:5])
    assert counts_of(wikidata) is not None
    assert counts_of(wikidata.keep(replace(fact, object="Nonsense") for fact in wikidata)) is None


def test_slopes_that_are_not_known_are_not_drawn():
    import pandas as pd

    row = {"of": "whole", "unit": "nats", "slope": float("nan"), "lo": float("nan"), "hi": float("nan")}
    table = pd.DataFrame([row | {"p": float("nan"), "n_facts": float("nan"), "n_relations": float("nan")}])
    figure = li.plots.FIGURES["frequency_slopes"]
    assert not figure.can_draw({"rare_facts_slopes": table})
    assert figure.can_draw({"rare_facts_slopes": table.assign(slope=0.1, lo=0.0, hi=0.2)})
