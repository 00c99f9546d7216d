"""Decoding beyond one organism: generic words from a corpus, relations without candidates, paths, generation, CLI."""

import numpy as np
import pandas as pd
import pytest
from families import make, words_tokenizer

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.discarded.answers import neighbour_threshold, token_directions
from laser_interp.frequency.generic_words import frequent_words
from laser_interp.studies.questions.discarded_part import outcomes


@pytest.fixture(scope="module")
def laser1():
    model = li.load_model("organism", device="cpu")
    return model, li.laser(model, "3.in", rank=1)


def shares_of_fixed(model, facts, edit, **more):
    answers, shares = outcomes(li.favoured_answers(model, facts, edit, progress=False, **more))
    return answers, shares


@pytest.mark.slow
def test_what_the_organism_shows(laser1, facts):
    """Wrong answers are generic before; what LASER discards pushes the generic word up where LASER fixes a fact."""
    model, laser = laser1
    test = facts.split("test")
    answers, _ = shares_of_fixed(model, test, laser)
    wrong = answers[(answers["edit"] == "base") & (answers["category"] != "correct")]
    assert (wrong["category"] == "generic").mean() > 0.9
    runs = {"base": None, "laser": laser, "discarded": laser.discarded()}
    scores = li.score(model, test, runs, progress=False)
    wide = scores.pivot(index=["fact_id", "prompt_id"], columns="edit", values=["p_generic", "top1"])
    fixed = ~wide["top1", "base"].astype(bool) & wide["top1", "laser"].astype(bool)
    assert fixed.sum() == 100
    p = wide["p_generic"][fixed].astype(float)
    assert (p["discarded"] > p["base"]).mean() >= 0.9
    assert (p["laser"] < p["base"]).mean() >= 0.9
    # the control organism, under the same edit, shows neither
    control = li.load_model("organism-control", device="cpu")
    own = li.load_facts("organism-control").split("test")
    edit = li.laser(control, "3.in", rank=1)
    there = li.score(control, own, {"base": None, "laser": edit, "discarded": edit.discarded()}, progress=False)
    by = there.groupby("edit")[["p_generic", "top1"]].mean()
    assert by.loc["base", "p_generic"] < 0.01
    assert by.loc["laser", "top1"] < by.loc["base", "top1"] + 0.01
    assert by.loc["discarded", "p_generic"] < 0.5


@pytest.mark.slow
def test_generic_words_from_a_corpus(laser1, facts):
    model, laser = laser1
    words = li.counts.answer_words(model, frequent_words("organism", coverage=0.2, exclude=facts, progress=False))
    assert words[0] == "the"
    names = {word.lower() for fact in facts for word in (*fact.subject.split(), *fact.candidates)}
    assert not set(words) & names
    assert len(frequent_words("organism", coverage=0.5, progress=False)) > len(words)
    test = facts.split("test")
    shipped = (
        shares_of_fixed(model, test, laser)[1].query("outcome == 'fixed' and edit == 'discarded'")["generic"].iloc[0]
    )
    found = shares_of_fixed(model, test, laser, generic=words)[1]
    found = found.query("outcome == 'fixed' and edit == 'discarded'")["generic"].iloc[0]
    assert found == pytest.approx(shipped, abs=0.02)
    with pytest.raises(ValueError, match="coverage is 1"):
        frequent_words("organism", coverage=1)


@pytest.mark.slow
def test_relations_without_other_answers_fall_back_on_neighbours(laser1, facts):
    model, laser = laser1
    some = facts.split("test")
    alone = li.load_facts(
        [
            {"fact_id": f.fact_id, "subject": f.subject, "relation": str(i), "object": f.object, "prompt": f.prompt}
            for i, f in enumerate(some.facts[:60])
        ]
    )
    told = neighbour_threshold(model, some, 0.01)
    assert told["true_positives"] > 5 * told["false_positives"]  # towns are nearer to towns than to anything
    answers = li.favoured_answers(model, alone, laser, false_positives=0.05, progress=False)
    assert answers.attrs["neighbours"]["n_prompts"] == 60
    assert np.isnan(answers.attrs["neighbours"]["true_positives"])  # no two answers of one relation
    directions = token_directions(model)
    assert float((directions[5] * directions[5]).sum()) == pytest.approx(1, abs=1e-5)
    full = li.favoured_answers(model, some, laser, progress=False)
    assert full.attrs["neighbours"]["n_prompts"] == 0
    with pytest.raises(ValueError, match="false_positives is 0"):
        neighbour_threshold(model, some, 0)


def test_listed_answers(laser1, facts):
    model, laser = laser1
    few = facts.keep(facts.facts[:5])
    answers = li.favoured_answers(model, few, laser, top_k=4, progress=False)
    for row in answers.to_dict("records"):
        assert row["top_answers"][0] == row["answer"]
        assert row["top_probs"][0] == pytest.approx(row["probability"])
        assert sorted(row["top_probs"], reverse=True) == list(row["top_probs"])
    assert "top_answers" not in li.favoured_answers(model, few, laser, top_k=0, progress=False)
    with pytest.raises(ValueError, match="top_k is 999999"):
        li.favoured_answers(model, few, laser, top_k=999_999)


def test_path_effects(laser1, facts):
    model, _ = laser1
    few = facts.keep(facts.facts[:20])
    table = li.path_effects(model, few, li.laser(model, "2.out", rank=8), progress=False)
    wide = table.pivot(index=["fact_id", "prompt_id"], columns="path", values="d_logprob")
    assert set(wide.columns) == {"total", "direct", "indirect"}
    assert (wide["direct"].abs() > 1e-4).any()
    last = li.path_effects(model, few, li.laser(model, "3.out", rank=8), progress=False)
    wide = last.pivot(index=["fact_id", "prompt_id"], columns="path", values="d_log_generic")
    assert np.allclose(wide["direct"], wide["total"], atol=1e-4)  # nothing comes after the last matrix
    assert np.allclose(wide["indirect"], 0, atol=1e-4)


def test_continuations(laser1, facts):
    model, laser = laser1
    prompts = [fact.prompt for fact in facts.facts[:2]]
    found = li.continuations(model, prompts, laser, max_new_tokens=4, alphas=[2.0])
    one = li.continuations(model, prompts[0], laser, max_new_tokens=4).frame
    assert one["prompt"].unique().tolist() == [prompts[0]]
    assert found.frame["component"].unique().tolist() == [
        "as trained",
        "LASER",
        "discarded part",
        "LASER + 2 x discarded",
    ]
    assert len(found.frame) == 8
    first = found.frame.iloc[0]
    assert first["text"] == model.generate(prompts[0], 4)
    shown = str(found)
    assert shown.startswith(prompts[0])
    assert shown.count("discarded part") == 2
    assert "<table" in found._repr_html_()
    sampled = [str(li.continuations(model, prompts, laser, max_new_tokens=4, seed=s)) for s in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


@pytest.mark.slow
def test_decode_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "answers.parquet"
    asked = ["discarded", "--model", "organism", "--facts", "organism", "--edit", "3.in:rank=1", "--quiet"]
    assert (
        main([*asked, "--split", "test", "--generic-corpus", "organism", "--share", "0.5", "1.0", "--out", str(out)])
        == 0
    )
    told = capsys.readouterr()
    assert "generic words: the" in told.err
    assert "discarded part" in told.out
    table = pd.read_parquet(out)
    assert set(table["outcome"]) == {"fixed", "right", "wrong"}
    assert len(table) == 4 * 400
    assert main([*asked[:5], "--edit", "3.in", "--out", str(out)]) == 2
    assert "not of the form" in capsys.readouterr().err


def test_a_masked_model_has_answers_and_no_continuations(tmp_path, capsys):
    tokenizer = words_tokenizer(masked=True)
    make("bert").save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    words = [word for word in tokenizer.get_vocab() if word.isalpha()][:5]
    rows = [{"subject": one, "relation": "r", "object": words[4], "prompt": f"{one} {words[0]}"} for one in words[:4]]
    li.load_facts(rows).save(tmp_path / "facts.jsonl")
    asked = [
        "discarded",
        "--model",
        str(tmp_path / "bert"),
        "--facts",
        str(tmp_path / "facts.jsonl"),
        "--edit",
        "1.in:0.5",
    ]
    assert main([*asked, "--out", str(tmp_path / "answers.parquet"), "--quiet"]) == 0
    assert "There are no continuations: 'bert' is a masked language model" in capsys.readouterr().out
    assert len(pd.read_parquet(tmp_path / "answers.parquet")) >= 3 * 4


def test_attribute_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "directions.parquet"
    asked = ["attribute", "--model", "organism", "--facts", "organism", "--sites", "*.mlp", "--quiet"]
    assert main([*asked, "--by", "relation", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "3.in" in told.splitlines()[2]
    table = pd.read_parquet(out)
    assert len(table) == 4 * 8 * 64
    assert main([*asked, "--split", "none", "--out", str(out)]) == 2


@pytest.mark.slow
def test_only_the_discarded_part_of_the_selected_site_answers_so(laser1, facts):
    from laser_interp.studies.questions.discarded_part import discarded_controls

    model, laser = laser1
    table = discarded_controls(model, facts.split("test"), laser, progress=False).set_index("control")
    assert table.loc["discarded", "generic"] > 0.9
    assert (table.drop(index="discarded")["generic"] < 0.75).all()
    assert np.allclose(table[["correct", "generic", "same_type", "other"]].sum(axis=1), 1)
    assert {"random_kept", "random_equal_energy", "layer_0", "layer_1", "layer_2"} <= set(table.index)
    assert table.loc["random_kept", "n"] == 3 * 400
    control, own = li.load_model("organism-control", device="cpu"), li.load_facts("organism-control")
    there = discarded_controls(control, own, li.laser(control, "3.in", rank=1), n_draws=1, progress=False)
    assert (there.set_index("control").loc["base", "generic"]) < 0.05
