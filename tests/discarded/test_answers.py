"""What the discarded components answer, and the category it is put in."""

import pytest
import torch

import laser_interp as li
from laser_interp.discarded.answers import category_shares
from laser_interp.scoring.categories import CATEGORIES
from laser_interp.studies.questions.discarded_part import DiscardedPart


def test_answers_and_categories_by_hand(organism, plain, facts, laser):
    hf, tokenizer = plain
    some = facts.split("test").keep(facts.split("test").facts[::25])
    answers = li.favoured_answers(organism, some, laser, shares=(0.5, 1.0))
    assert len(answers) == len(some) * 2 * 4
    generic = {tokenizer(w)["input_ids"][0] for w in organism.generic_words}
    edits = {"base": None, "edit": laser, 0.5: laser.discarded(0.5), 1.0: laser.discarded()}
    unembedding = hf.get_output_embeddings().weight.detach()
    centred = unembedding - unembedding.mean(0)
    for row in answers.itertuples():
        fact = some[row.fact_id]
        edit = edits[row.share if row.edit == "discarded" else row.edit]
        logprobs = organism.next_token_logprobs(fact.prompts[row.prompt_id], edit)[0]
        token = int(logprobs.argmax())
        assert row.answer == tokenizer.decode([token])
        assert row.probability == pytest.approx(float(logprobs.max().exp()), abs=1e-4)
        truth = tokenizer(fact.object)["input_ids"][0]
        names = {tokenizer(c)["input_ids"][0] for c in facts.answers[fact.relation]}
        expected = (
            "correct"
            if token == truth
            else "generic"
            if token in generic
            else "same_type"
            if token in names
            else "other"
        )
        assert row.category == expected
        cosine = torch.nn.functional.cosine_similarity(centred[token], centred[truth], dim=0)
        assert row.similarity == pytest.approx(float(cosine), abs=1e-5)


@pytest.mark.slow
def test_every_category_is_reached(organism, facts):
    """Strange edits answer with everything: no category is a dead branch."""
    seen = set()
    for edit in (li.laser(organism, "3.in", rank=3), li.laser(organism, "0.out", rank=20), li.zeroed(organism, "1.o")):
        seen |= set(li.favoured_answers(organism, facts, edit.inject(0))["category"])
    assert seen == set(CATEGORIES)


def test_shares_sum_to_one_and_outcomes_partition(organism, facts, laser, study_of):
    test = facts.split("test")
    tables = DiscardedPart.ask(study_of(organism, facts, laser, shares=(0.2, 1.0))).tables
    answers, categories = tables["discarded_answers"], tables["discarded_categories"]
    assert (categories[list(CATEGORIES)].sum(axis=1) - 1).abs().max() < 1e-9
    per_outcome = categories[(categories["edit"] == "base") & (categories["outcome"] != "all")]
    assert per_outcome["n"].sum() == len(test)
    fixed = answers[(answers["outcome"] == "fixed") & (answers["edit"] == "edit")]
    assert (fixed["category"] == "correct").all()
    assert (answers[(answers["outcome"] == "fixed") & (answers["edit"] == "base")]["category"] != "correct").all()
    assert category_shares(answers)["n"].tolist() == [len(test)] * 4


def test_aliases_are_correct(organism, facts):
    from dataclasses import replace

    fact = facts["master/Mira_Tolen"]
    other = organism.decode(int(organism.next_token_logprobs(fact.prompt).argmax()))
    for aliases, category in (((), None), ((other,), "correct")):
        answers = li.favoured_answers(
            organism, facts.keep([replace(fact, paraphrases=(), aliases=aliases)]), li.laser(organism, "3.in", rank=3)
        )
        if category:
            assert answers.loc[answers["edit"] == "base", "category"].item() == category
