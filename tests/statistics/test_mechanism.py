"""The parts of a change, and what they explain: each is found where it was put in, and not elsewhere."""

import numpy as np
import pandas as pd
import pytest

import laser_interp as li
from laser_interp.statistics.decomposition import PARTS, parts_of
from laser_interp.statistics.mechanism import explain

N = 300
KEYS = ["fact_id", "prompt_id"]


def scores_of(seed=0, *, generic=0.0, kind=0.0, rivals=0.0, zeroed=None, noise=0.05):
    """Scores of a model whose prompts have shares of generic words, of the kind, and of the answer within the kind, and
    of edits that change the log-odds of each by so many nats."""
    rng = np.random.default_rng(seed)
    logit = {"generic": rng.normal(0, 1, N), "kind": rng.normal(0, 1, N), "rivals": rng.normal(0, 1, N)}

    def rows(edit, **moved):
        moves = {name: moved.get(name, 0.0) + noise * rng.normal(0, 1, N) * (edit != "base") for name in logit}
        not_generic, of_kind, right = (1 / (1 + np.exp(-(logit[name] + moves[name]))) for name in logit)
        first = not_generic * of_kind * right
        wrong_of_kind, other = not_generic * of_kind * (1 - right), not_generic * (1 - of_kind) / 3
        correct = (first > 1 - not_generic) & (first > wrong_of_kind) & (first > other)
        return pd.DataFrame(
            {
                "fact_id": [f"f{i}" for i in range(N)], "prompt_id": 0, "subject": [f"s{i}" for i in range(N)],
                "relation": "r", "split": "test", "edit": edit, "correct": correct, "top1": correct,
                "score": correct.astype(float), "logprob": np.log(first), "rank": np.where(correct, 1, 2),
                "top10": True, "first_logprob": np.log(first), "kind_logprob": np.log(not_generic * of_kind),
                "generic_masked_logprob": np.log(of_kind * right), "first_is_generic": False,
                "generic_masked_top1": (first > wrong_of_kind) & (first > other),
                "candidate_top1": (right > 0.5).astype(float), "candidate_rank": np.where(right > 0.5, 1.0, 2.0),
                "p_generic": 1 - not_generic, "generic_logprob": np.log(1 - not_generic),
            }
        )  # fmt: skip

    parts = [rows("base"), rows("laser", generic=generic, kind=kind, rivals=rivals)]
    if zeroed is not None:
        parts.append(rows("zeroed", **zeroed))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("name", ["generic", "kind", "rivals"])
def test_each_part_is_found_where_it_was_put_in(name):
    scores = scores_of(**{name: 1.0})
    found = explain(scores)
    assert found.parts.is_most(name)
    assert [other for other in ("generic", "kind", "rivals") if found.parts.is_most(other)] == [name]
    assert (found.suppression, found.rivals, found.kind) == tuple(name == n for n in ("generic", "rivals", "kind"))
    assert found.verdict.startswith("Most of the gain")
    assert PARTS[name] in found.verdict
    table = found.parts.table.set_index("part")
    assert table.loc[["generic", "kind", "rivals", "rest"], "change"].sum() == pytest.approx(
        table.loc["whole", "change"]
    )


def test_an_edit_that_raises_the_answer_alone_is_no_suppression():
    """Generic words fall where the answer rises; that is the answer's gain on its rivals, and on all other words."""
    rng = np.random.default_rng(0)
    scores = scores_of(noise=0.0)
    after = scores["edit"] == "laser"
    base = scores[~after].reset_index(drop=True)
    grown = np.exp(base["first_logprob"]) * np.exp(1 + 0.1 * rng.normal(0, 1, N))
    total = 1 - np.exp(base["first_logprob"]) + grown
    laser = base.assign(edit="laser", logprob=np.log(grown / total), first_logprob=np.log(grown / total))
    laser["p_generic"] = base["p_generic"] / total
    laser["generic_logprob"] = np.log(laser["p_generic"])
    laser["generic_masked_logprob"] = np.log(grown / total) - np.log1p(-laser["p_generic"])
    kind = np.exp(base["kind_logprob"]) - np.exp(base["first_logprob"]) + grown
    laser["kind_logprob"] = np.log(kind / total)
    found = explain(pd.concat([base, laser], ignore_index=True))
    assert found.rivals
    assert not found.suppression


def test_parts_that_also_gain():
    """One gains, two gain."""
    assert "; kind of answer also gains" in explain(scores_of(generic=1.0, kind=0.2)).verdict
    several = explain(scores_of(generic=1.0, kind=0.2, rivals=0.2)).verdict
    assert "; kind of answer and rivals of the same kind also gain." in f"{several.partition('. ')[0]}."


@pytest.mark.slow
def test_noise_is_chance():
    """Nothing was put in: in most draws no part is said to gain."""
    verdicts = [explain(scores_of(seed, noise=0.05)).verdict for seed in range(20)]
    assert sum("Most of the gain" in verdict for verdict in verdicts) <= 4
    assert sum(verdict.startswith("Chance is enough") for verdict in verdicts) >= 10


def test_a_loss():
    found = explain(scores_of(generic=-1.0))
    assert not found.chance
    assert found.verdict.startswith("The answers lose log-probability, as generic words (")


def test_the_matrix_deleted():
    """Deleting it costs the answers' kind: the edit is worth more, and the verdict says by how much."""
    found = explain(scores_of(generic=1.0, zeroed={"generic": 1.0, "kind": -1.0}))
    assert found.low_rank_matters
    assert "over deleting it" in found.verdict
    assert found.over_zeroed.lo > 0
    same = explain(scores_of(generic=1.0, zeroed={"generic": 1.05}))
    assert not same.low_rank_matters
    assert "shows no worth over deleting it" in same.verdict


def test_the_dose_gives_the_probability_that_the_edit_gives():
    scores = scores_of(generic=1.0, noise=0.0)
    found = explain(scores)
    assert found.dose_nats == pytest.approx(1.0, abs=1e-6)  # each prompt's log-odds were moved by so much
    assert found.dose.change == pytest.approx(found.edit.change)
    assert found.overlap[0] == found.overlap[1]
    assert explain(scores_of(generic=-1.0)).dose is None  # nothing has to be lowered


def test_without_ranks_of_answers():
    scores = scores_of(rivals=1.0)
    scores["candidate_rank"] = scores["kind_logprob"] = np.nan
    found = explain(scores)
    assert found.among_answers is None
    assert "relation's answers" not in str(found)
    assert found.parts.names == ["generic", "others", "rest"]
    assert found.rivals


def test_the_parts_are_those_of_a_plain_model(organism, facts, plain, laser):
    """Each part from all logits of plain transformers, for the model as trained; and the sum, for every edit."""
    import torch

    model, tokenizer = plain
    test = facts.split("test")
    scores = li.score(
        organism, test, {"base": None, "laser": laser, "out": li.zeroed(organism, "3.out")}, progress=False
    )
    parts = parts_of(scores)
    assert parts.sum(axis=1).to_numpy() == pytest.approx(scores["logprob"].to_numpy(), abs=1e-12)
    base = scores[scores["edit"] == "base"].reset_index(drop=True)
    generic = {tokenizer(f" {word}", add_special_tokens=False).input_ids[0] for word in organism.generic_words}
    for i in range(0, len(base), 37):
        fact = test[base.loc[i, "fact_id"]]
        prompt = fact.prompts[base.loc[i, "prompt_id"]]
        with torch.no_grad():
            p = model(torch.tensor([tokenizer(prompt).input_ids])).logits[0, -1].double().softmax(-1)
        own = tokenizer(f" {fact.object}", add_special_tokens=False).input_ids[0]
        words = generic - {own}
        kind = {tokenizer(f" {a}", add_special_tokens=False).input_ids[0] for a in test.candidates_of(fact)} - words
        not_generic = 1 - float(p[list(words)].sum())
        of_kind = float(p[list(kind)].sum())
        row = parts.loc[i]
        assert row["generic"] == pytest.approx(np.log(not_generic), abs=1e-5)
        assert row["kind"] == pytest.approx(np.log(of_kind / not_generic), abs=1e-5)
        assert row["rivals"] == pytest.approx(np.log(float(p[own]) / of_kind), abs=1e-5)
        others = p.clone()
        others[own] = 0
        assert base.loc[i, "margin"] == pytest.approx(float((p[own] / others.max()).log()), abs=1e-5)
    assert ((scores["margin"] > 0) == scores["top1"]).all()


def test_both_engines_give_the_same_parts(organism, facts, laser):
    some = facts.keep(facts.facts[:30])
    fast, slow = (
        li.score(organism, some, {"base": None, "x": laser}, engine=engine, progress=False)
        for engine in ("fast", "reference")
    )
    for column in ("kind_logprob", "first_logprob", "generic_logprob", "margin"):
        assert fast[column].to_numpy() == pytest.approx(slow[column].to_numpy(), abs=1e-4)


def test_the_organism(organism, facts):
    """On the organism generic words were put in on purpose, and LASER's gain is what they lose."""
    edits = {"base": None, "laser": li.laser(organism, "3.in", rank=1), "zeroed": li.zeroed(organism, "3.in")}
    found = explain(li.score(organism, facts.split("test"), edits, progress=False))
    assert found.suppression
    assert not found.rivals
    assert found.edit.change == pytest.approx(0.25, abs=0.02)
    assert found.parts.part("generic")["change"] == pytest.approx(0.425, abs=0.01)
    assert found.overlap == (97, 100)
    assert found.low_rank_matters


def test_an_edit_that_changes_nothing_has_no_shares(organism, facts):
    base = li.score(organism, facts.split("test")[:20], {"base": None}, progress=False)
    table = li.decompose(pd.concat([base, base.assign(edit="laser")], ignore_index=True)).table
    assert (table["change"] == 0).all()
    assert table["share"].isna().all()
