"""Golden numbers of scores, under edits and rules of every kind; see `golden_numbers`."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from families import loaded
from golden_numbers import check_golden, refused

import laser_interp as li
from laser_interp.discarded.attribution import _bytes_a_token
from laser_interp.edits.sites import Site
from laser_interp.scoring.answer_rules import _chosen
from laser_interp.scoring.engine import Engine, activation_bytes
from laser_interp.scoring.generic_words import generic_tokens, generic_words
from laser_interp.scoring.memory import parse_memory
from laser_interp.scoring.scorer import Scorer
from laser_interp.scoring.side_by_side import downstream, group_edits
from laser_interp.selection.cost_estimate import operations


def by_prompt(scores):
    """Everything that is said of each prompt but the fact itself."""
    known = ("subject", "relation", "object", "split", "frequency", "fact_id", "prompt_id")
    return scores.drop(columns=[name for name in known if name in scores])


def test_golden_scores(organism, facts):
    model, some = organism, facts.keep(facts.facts[::67])
    laser = li.laser(model, "3.in", rho=0.05)
    edits = {
        "base": None,
        "laser": laser,
        "discarded": laser.discarded(),
        "injected": laser.inject(0.5),
        "early": li.laser(model, "0.v", rho=0.2),
        "two": li.laser(model, ["1.out", "2.q"], rho=0.1),
        "at the last": laser.at(model, "last", some),
        "at the subject": li.laser(model, "1.in", rho=0.05).at(model, "subject_last", some),
    }
    scores = li.score(model, some, edits, progress=False)
    numbers = {"prompts": by_prompt(scores), "means": li.summarise(scores)}
    numbers["by relation"] = li.summarise(scores, ["edit", "relation"]).head(6)
    plainly = li.score(model, some, [None, laser], candidates=False, progress=False)
    numbers["without candidates"] = by_prompt(plainly).groupby("edit", sort=False).mean(numeric_only=True).reset_index()
    ranked = li.score(model, some, laser, rank_by="first_tokens", generic=["the", "of"], progress=False)
    numbers["by first tokens"] = ranked[["edit", "candidate_rank", "generic_masked_rank", "p_generic"]]
    (_, most), *_ = Scorer(model, some, top_k=3).run({"laser": laser})
    numbers["most probable"] = most[["top_answers", "top_probs"]]
    check_golden("scores", numbers, tolerance=1e-3)


def test_golden_rules(organism, facts):
    some, laser = facts.keep(facts.facts[::67]), li.laser(organism, "3.in", rho=0.05)
    numbers = {}
    for rule in ("candidates", "generation"):
        task = li.tasks.own_task(some, rule)
        scores = li.score(organism, task, [None, laser], progress=False)
        numbers[rule] = scores[["edit", "prediction", "correct", "score"]]
        numbers[f"{rule}, metrics"] = li.metrics(scores, task.rule)
    check_golden("rules", numbers, tolerance=1e-3)


def test_golden_costs_and_groups(organism):
    model = organism
    numbers = {
        f"operations of {site}": operations(model, Site.parse(site), [1, 3], [5, 7]) for site in ("0.q", "3.in", "3.v")
    }
    numbers |= {
        f"below layer {layer}": {m: sorted(below) for m, below in downstream(model, layer).items()} for layer in (0, 3)
    }
    edits = [None, *(li.laser(model, site, rank=2) for site in ("3.in", "3.out", "1.q", "3.in"))]
    numbers["groups"] = [
        [
            group.layer,
            [i for i, _ in group.edits],
            sorted(group.unchanged),
            [len(part.which) for part in group.parts(2)],
        ]
        for group in group_edits(model, edits)
    ]
    numbers["memory"] = [
        parse_memory(asked, model) for asked in (None, 2_000_000, "800MB", "2GiB", " 1.5 gb ", "3000000B")
    ]
    text = "Mira Tolen was born in Varwick. The guild of Mira Tolen is old."
    numbers["perplexity"] = li.perplexity(model, text, li.laser(model, "3.in", rho=0.05))
    numbers["generic words"] = generic_words(model)[:12]
    rows = [list(range(1, n)) for n in (3, 5, 5, 9, 12)] + [[1, 2, 3, 40 + n] for n in range(20)]
    reads = [(i, len(row) - 1) for i, row in enumerate(rows)]
    for family in ("organism", "gemma2"):  # the second stores its logits, because something follows the unembedding
        of = model if family == "organism" else loaded(family, torch.float32)[1]
        engine = Engine(of, rows, reads, memory=2**28)
        numbers[f"engine of {family}"] = {
            "bytes": [engine._bytes(*size) for size in ((1, 5, 1), (4, 7, 3))],
            "parts": [part for most in (24, 60, 2000) for part, _ in engine._parts(most)],
            "marks": sorted(engine._marks),
            "activations": [activation_bytes(of, budget, 300, 9) for budget in (10**6, 10**8, 10**12)],
            "gradients": [_bytes_a_token(of, li.laser(of, "1.in", rank=1).sites, n) for n in (3, 20)],
        }
    check_golden("costs", numbers, tolerance=1e-3)


def test_golden_refusals_of_scores(organism, facts):
    some, laser = facts.keep(facts.facts[:2]), li.laser(organism, "3.in", rho=0.05)
    calls = {
        "no edits": lambda: li.score(organism, some, {}),
        "memory in pounds": lambda: parse_memory("3 pounds", organism),
        "little memory": lambda: parse_memory(1000, organism),
        "memory without a number": lambda: parse_memory("..GB", organism),
        "another engine": lambda: li.score(organism, some, laser, engine="faster"),
        "no generic word": lambda: li.score(organism, some, laser, generic=["Xylophonist"]),
        "too many of the most probable": lambda: Scorer(organism, some, top_k=10**6),
        "a text as facts": lambda: li.score(organism, "nowhere.jsonl", laser),
        "no text": lambda: li.perplexity(organism, ""),
        "a text of one token": lambda: li.perplexity(organism, "the"),
    }
    check_golden("refused scores", {what: refused(call) for what, call in calls.items()})


def test_golden_labels(organism, facts):
    """Edits without labels are named by their kinds, or in full where kinds are alike."""
    one, other = (li.laser(organism, site, rho=0.1) for site in ("3.in", "2.in"))
    few = facts.keep(facts.facts[:1])
    for edits in ([None, one, one.discarded()], [one, other]):
        scores = li.score(organism, few, edits, progress=False)
        kinds = [edit.kind for edit in edits if edit]
        names = kinds if len(set(kinds)) == len(kinds) else [repr(edit) for edit in edits]
        assert pd.unique(scores["edit"]).tolist() == ["base", *names]


def test_progress_ends_at_the_whole(organism, facts):
    """However many edits run together, the shares of the work add up to 1."""
    few = facts.keep(facts.facts[:3])
    edits = {str(rank): li.laser(organism, "3.in", rank=rank) for rank in (1, 2, 3, 5)} | {"base": None}
    shares: list[float] = []
    list(Scorer(organism, few).run(edits, tick=shares.append))
    assert sum(shares) == pytest.approx(1.0)
    assert all(0 < share <= 1 for share in shares)


def test_facts_that_share_a_prompt_are_scored_as_each_alone(organism, facts):
    """Their reads are one, in whatever order they stand."""
    one, other = facts.facts[0], next(fact for fact in facts if fact.relation != facts.facts[0].relation)
    one = replace(one, paraphrases=(), candidates=(one.object, other.object, "the"))
    other = replace(other, paraphrases=(), candidates=(other.object, one.object))
    twin = replace(one, fact_id="twin", object=other.object, candidates=(other.object, "old", one.object))
    three = [one, other, twin]
    together = li.score(organism, facts.keep(three), None, progress=False).set_index("fact_id")
    for fact in three:
        (alone,) = li.score(organism, facts.keep([fact]), None, progress=False).to_dict("records")
        for name in ("logprob", "kind_logprob", "p_generic", "candidate_rank"):
            assert together.loc[fact.fact_id, name] == pytest.approx(alone[name], abs=1e-5), name


def test_what_is_not_finite_scores_nothing_by_any_rule():
    choices = {"continuations": [["a", "b"]], "continuation_tokens": [[1, 1]], "continuation_right": [[True, False]]}
    for rule in ("candidates", "truths"):
        task = SimpleNamespace(rule=rule)
        bad, good = (
            _chosen(task, pd.DataFrame(choices | {"continuation_logprobs": [log_p]})).iloc[0]
            for log_p in ([np.nan, -1.0], [-1.0, -2.0])
        )
        assert not bad["correct"]
        assert bad["prediction"] == ""
        assert np.isnan(bad["confidence"])
        assert np.isnan(bad["score"]) if rule == "truths" else bad["score"] == 0
        assert good["prediction"] == "a"
        assert good["score"] == pytest.approx(1 / (1 + np.exp(-1))) if rule == "truths" else good["score"] == 1


def test_generic_words_are_those_that_follow_each_ending_of_a_prompt(organism, facts):
    """Prompts that end alike share them, whatever they begin with."""
    asked = [(replace(facts.facts[0], prompt=prompt), 0) for prompt in ("Mira Tolen", ". Mira Tolen", "Mira Tolen .")]
    found = generic_tokens(organism, facts, asked, None)
    assert len(found.ids)
    assert found.form_of_item[0] == found.form_of_item[1]
