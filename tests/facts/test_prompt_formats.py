"""Other ways to ask the same facts: what stands before a prompt, and what must not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

import laser_interp as li
from laser_interp.facts.prompt_formats import with_examples


@pytest.mark.parametrize("name", ["organism", "wikidata"])
@pytest.mark.parametrize("seed", [0, 1])
def test_examples_never_hold_the_asked_subject_or_answer(name, seed):
    facts = li.load_facts(name)
    asked = with_examples(facts.split("test"), 3, seed=seed, source=facts.split("validation"))
    solved = {fact.prompt + facts.written(fact, fact.prompt, fact.object): fact for fact in facts.split("validation")}
    for fact, plain in zip(asked, facts.split("test"), strict=True):
        assert len(fact.prompts) == len(plain.prompts)
        for prompt, own in zip(fact.prompts, plain.prompts, strict=True):
            *examples, last = prompt.split("\n")
            assert last == own
            assert len(set(examples)) == 3
            for example in examples:
                assert solved[example].relation == fact.relation
                folded = example.casefold()
                for forbidden in (fact.subject, *fact.subject_aliases, fact.object, *fact.aliases):
                    assert forbidden.casefold() not in folded
        assert replace(fact, prompt=plain.prompt, paraphrases=plain.paraphrases) == plain
    beginnings = {fact.prompt.rpartition("\n")[0] for fact in asked}
    assert len(beginnings) < len(asked) / 3  # most facts of a relation begin alike


def test_seeds_and_splits():
    facts = li.load_facts("organism")
    assert facts.with_examples(2).sha256 == facts.with_examples(2).sha256
    assert facts.with_examples(2).sha256 != facts.with_examples(2, seed=1).sha256
    assert facts.with_examples(1, from_split="test").sha256 != facts.with_examples(1).sha256
    assert facts.with_examples(1).splits == facts.splits


def test_refusals():
    facts = li.load_facts("organism")
    few = facts.keep([*facts.split("validation")[:2], *facts.split("test")[:2]])
    with pytest.raises(ValueError, match="examples of its relation .* 3 are asked for"):
        few.with_examples(3)
    with pytest.raises(ValueError, match="n is 0: expected 1 or more"):
        facts.with_examples(0)
    with pytest.raises(ValueError, match="no chat template"):
        facts.as_chat(SimpleNamespace(chat_template=None))


def test_a_prefix_stands_before_every_prompt():
    facts = li.load_facts("organism")
    asked = facts.with_prefix("Now: ")
    assert [fact.prompts for fact in asked] == [tuple(f"Now: {p}" for p in fact.prompts) for fact in facts]
    assert asked.candidates_of(asked[0]) == facts.candidates_of(facts[0])


@pytest.mark.parametrize("adds_first", [True, False])
def test_a_chat_template_is_the_tokenizers_own(adds_first):
    """The first token is written once, whether the template or the tokenizer writes it."""

    class Tokenizer:
        chat_template, bos_token, bos_token_id = "…", "<s>", 1

        def __call__(self, text):
            return SimpleNamespace(input_ids=[1] if adds_first else [])

        def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
            assert not tokenize
            assert add_generation_prompt
            return f"<s>[{messages[0]['role']}] {messages[0]['content']} [assistant]\n"

    fact = li.load_facts("organism")[:1]
    asked = fact.as_chat(Tokenizer())[0]
    before = "" if adds_first else "<s>"
    assert asked.prompts == tuple(f"{before}[user] {prompt} [assistant]\n" for prompt in fact[0].prompts)
    assert fact.as_chat(Tokenizer()).written(asked, asked.prompt, asked.object) == asked.object
