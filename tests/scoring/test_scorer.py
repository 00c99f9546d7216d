"""Scores against the slow obvious computation: one prompt at a time through plain transformers."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import laser_interp as li
from laser_interp.facts.files import facts_from_rows
from laser_interp.scoring.generic_words import generic_words
from laser_interp.scoring.lookups import TokenLookups
from laser_interp.scoring.scorer import Scorer
from laser_interp.storage.schemas import SCHEMAS, check


@pytest.fixture(scope="module")
def byte_level():
    """A tiny random GPT-2 with a byte-level tokenizer that splits most words: answers of several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        ["The capital of France is Paris. The capital of Italy is Rome. the the of of"] * 3, trainer
    )
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(wrapped), n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    hf = transformers.GPT2LMHeadModel(config).eval()
    for parameter in hf.parameters():  # far from the symmetric initialisation
        parameter.data += 0.3 * torch.randn_like(parameter)
    return hf, wrapped


FACTS = facts_from_rows(
    [
        {
            "fact_id": "fr",
            "subject": "France",
            "relation": "capital",
            "object": "Paris",
            "prompt": "The capital of France is",
            "paraphrases": ["France has the capital"],
            "aliases": ["Lutetia"],
        },
        {
            "fact_id": "it",
            "subject": "Italy",
            "relation": "capital",
            "object": "Rome",
            "prompt": "The capital of Italy is",
        },
        {
            "fact_id": "es",
            "subject": "Spain",
            "relation": "capital",
            "object": "Madrid",
            "prompt": "The capital of Spain is",
        },
    ]
)


def answer_logprob(hf, tokenizer, prompt, answer):
    """Sum of log-probabilities, the worst rank, and the first logits, token by token."""
    ids, answer_ids = tokenizer(prompt)["input_ids"], tokenizer(" " + answer)["input_ids"]
    total, worst, first = 0.0, 0, None
    for token in answer_ids:
        with torch.no_grad():
            logits = hf(torch.tensor([ids])).logits[0, -1]
        first = logits if first is None else first
        total += float(logits.log_softmax(-1)[token])
        worst = max(worst, int((logits >= logits[token]).sum()))
        ids = [*ids, token]
    return total, worst, first


@pytest.mark.parametrize("edit_rank", [None, 4])
@pytest.mark.parametrize(
    "options", [{}, {"memory": "1MB"}, {"engine": "reference"}], ids=["fast", "small", "reference"]
)
def test_answers_of_several_tokens(byte_level, edit_rank, options):
    hf, tokenizer = byte_level
    model = li.load_model(byte_level, device="cpu")
    edit = None if edit_rank is None else li.laser(model, "1.in", rank=edit_rank)
    if edit is not None:
        import copy

        hf = copy.deepcopy(hf)
        hf.transformer.h[1].mlp.c_fc.weight.data = edit.parts[li.Site(1, "in")].weight.float()
    scores = li.score(model, FACTS, {"x": edit}, generic=["the", "of"], **options)
    assert list(scores["fact_id"]) == ["fr", "fr", "it", "es"]
    generic = [tokenizer(" the")["input_ids"][0], tokenizer(" of")["input_ids"][0]]
    for row in scores.itertuples():
        fact = FACTS[row.fact_id]
        prompt = fact.prompts[row.prompt_id]
        found = {a: answer_logprob(hf, tokenizer, prompt, a) for a in (fact.object, *fact.aliases)}
        assert row.logprob == pytest.approx(max(v[0] for v in found.values()), abs=1e-4)
        assert row.rank == min(v[1] for v in found.values())
        logits = next(iter(found.values()))[2]
        assert row.top_token == int(logits.argmax())
        assert row.top_answer == tokenizer.decode([int(logits.argmax())]).strip()
        probabilities = logits.softmax(-1)
        assert row.p_generic == pytest.approx(float(probabilities[generic].sum()), abs=1e-5)
        assert row.top_prob == pytest.approx(float(probabilities.max()), abs=1e-5)
        rivals = [a for a in ("Paris", "Rome", "Madrid") if a not in (fact.object, *fact.aliases)]
        better = sum(answer_logprob(hf, tokenizer, prompt, a)[0] >= row.logprob for a in rivals)
        assert row.candidate_rank == 1 + better
        spelled = max(found, key=lambda a: found[a][0])
        assert row.n_answer_tokens == len(tokenizer(" " + spelled)["input_ids"])
        assert row.logprob_per_token == pytest.approx(row.logprob / row.n_answer_tokens)
    assert scores["n_answer_tokens"].max() > 1


def test_organism_scores_are_the_obvious_ones(organism, plain, facts):
    hf, tokenizer = plain
    some = facts.keep(facts.facts[::40])
    scores = li.score(organism, some, {"base": None})
    generic = [tokenizer(w)["input_ids"][0] for w in generic_words(organism)]
    for row in scores.itertuples():
        ids = tokenizer(some[row.fact_id].prompts[row.prompt_id])["input_ids"]
        with torch.no_grad():
            logits = hf(torch.tensor([ids])).logits[0, -1]
        answer = tokenizer(row.object)["input_ids"][0]
        assert row.logprob == pytest.approx(float(logits.log_softmax(-1)[answer]), abs=1e-4)
        assert row.rank == int((logits >= logits[answer]).sum())
        assert row.top1 == row.correct == (int(logits.argmax()) == answer)
        assert row.p_generic == pytest.approx(float(logits.softmax(-1)[generic].sum()), abs=1e-5)
        masked = logits.clone()
        masked[generic] = -torch.inf
        assert row.generic_masked_rank == int((masked >= masked[answer]).sum())
        candidates = [tokenizer(c)["input_ids"][0] for c in some.candidates_of(some[row.fact_id])]
        assert row.candidate_rank == sum(float(logits[c]) >= float(logits[answer]) for c in candidates)


def test_batches_make_no_difference(organism, facts, laser):
    some = facts.keep(facts.facts[:50])
    whole = li.score(organism, some, {"laser": laser})
    for memory in ("1MB", 3_000_000, "1GiB"):
        parts = li.score(organism, some, {"laser": laser}, memory=memory)
        exact = [c for c in whole.columns if whole[c].dtype.kind not in "f"]
        pd.testing.assert_frame_equal(whole[exact], parts[exact])
        assert np.allclose(whole["logprob"], parts["logprob"], atol=1e-4)


@pytest.mark.slow
def test_equal_inputs_give_equal_outputs(organism, facts, laser):
    a = li.score(organism, facts, {"laser": laser})
    pd.testing.assert_frame_equal(a, li.score(organism, facts, {"laser": laser}))


def test_constant_and_nan_outputs_are_never_right(organism, facts):
    """Every token ties when the model says nothing; NaN compares with nothing at all."""
    some = facts.keep(facts.facts[:5])
    scorer = Scorer(organism, some)

    for value in (0.0, float("nan")):
        spoil = ("unembed.hook_out", lambda x, hook, value=value: torch.full_like(x, value))
        with organism.bridge.hooks(fwd_hooks=[spoil]):  # a hook of somebody else's: whole forwards run
            ((_, scores),) = scorer.run({"spoiled": None})
        assert not scores["top10"].any()
        assert (scores["candidate_top1"] == 0).all()
        assert (scores["rank"] == organism.d_vocab).all()
        assert scores["logprob"].isna().all() == np.isnan(value)
        assert li.summarise(scores)["n_not_finite"].iloc[0] == (10 if np.isnan(value) else 0)


def test_a_printed_summary_shows_what_is_looked_for_first(organism, facts):
    """pandas leaves out the middle columns where a table is wider than a terminal."""
    means = li.summarise(li.score(organism, facts.keep(facts.facts[:2]), {"base": None}, progress=False))
    with pd.option_context("display.width", 80, "display.max_columns", 0):
        head = str(means).splitlines()[0].split()
    assert head[:4] == ["edit", "n", "accuracy", "loss"]
    assert "top10" in head


def test_an_answer_that_is_a_generic_word_is_not_masked_with_the_others(organism, facts):
    """The answer's own token stays where the generic words before it are masked."""
    some = facts.split("test")[:40]
    generic = sorted({fact.object for fact in some})  # every answer is a generic word here
    rows = li.score(organism, some, {"base": None}, generic=generic, candidates=False, progress=False)
    ids = [organism.tokenizer(word)["input_ids"][-1] for word in generic]
    for row in rows.itertuples():
        prompt = some[row.fact_id].prompts[row.prompt_id]
        logits = organism.next_token_logprobs(prompt)[0]
        own = organism.tokenizer(row.object)["input_ids"][-1]
        others = torch.tensor([token for token in ids if token != own])
        expected = logits.clone()
        expected[others] = -torch.inf
        assert row.generic_masked_rank == 1 + int((expected > expected[own]).sum())
        assert row.generic_masked_logprob == pytest.approx(float(expected.log_softmax(-1)[own]), abs=1e-4)


def test_a_masked_model_reads_a_place_in_its_whole_row():
    """Rows that begin alike and end otherwise are two: a masked model sees what follows."""
    from families import build

    model = build("bert")
    lookups = TokenLookups(
        model,
        li.load_facts([("s", "r", "waa", "wab [mask] wac"), ("t", "r", "waa", "wab [mask] wad")]),
        candidates=False,
        first_tokens=False,
    )
    assert len(lookups.reads) == len(lookups.rows) == 2
    causal = TokenLookups(
        build("gpt2"),
        li.load_facts([("s", "r", "waa", "wab"), ("t", "r", "waa", "wab waa")]),
        candidates=False,
        first_tokens=False,
    )
    assert len(causal.reads) == 2


def test_refusals(organism, facts):
    with pytest.raises(ValueError, match="no edits given"):
        li.score(organism, facts, {})
    unknown = facts_from_rows(
        [{"fact_id": "x", "subject": "s", "relation": "r", "object": "Paris", "prompt": "Mira Tolen was taught by"}]
    )
    with pytest.raises(ValueError, match=r"the answer 'Paris' cannot be written .*<\|unknown\|>"):
        li.score(organism, unknown, {"base": None})
    with pytest.raises(ValueError, match="'Paris' cannot be written"):
        li.score(organism, facts, {"base": None}, generic=["Paris"])
    long = facts_from_rows(
        [{"fact_id": "x", "subject": "s", "relation": "r", "object": "Yoreth", "prompt": "the " * 40}]
    )
    with pytest.raises(ValueError, match="40 tokens, and 'organism' has 32 positions"):
        li.score(organism, long, {"base": None})
    with pytest.raises(ValueError, match="must not be empty"):
        organism.next_token_logprobs("")


def test_schema_is_checked():
    frame = pd.DataFrame({column: ["x"] for column in SCHEMAS["counts"]})
    with pytest.raises(ValueError, match="column 'n_docs' of 'counts' is .*, expected int"):
        check(frame, "counts")
    with pytest.raises(ValueError, match="needs the column 'fact_id'"):
        check(frame.drop(columns="fact_id"), "counts")


def test_models_from_memory_are_not_touched(byte_level):
    hf, tokenizer = byte_level
    before = {k: v.clone() for k, v in hf.state_dict().items()}
    li.load_model((hf, tokenizer), device="cpu").next_token_logprobs("The capital")
    assert list(hf.state_dict()) == list(before)
    assert all(torch.equal(v, before[k]) for k, v in hf.state_dict().items())


def test_local_folders_and_what_is_missing(byte_level, tmp_path):
    hf, tokenizer = byte_level
    hf.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="no tokenizer comes with"):
        li.load_model(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model = li.load_model(tmp_path / "model", device="cpu")
    memory = li.load_model((hf, tokenizer), device="cpu")
    assert model.name == "model"
    assert model.weights_sha256 == memory.weights_sha256
    prompt = ["The capital of France is"]
    assert torch.allclose(model.next_token_logprobs(prompt), memory.next_token_logprobs(prompt), atol=1e-5)
    with pytest.raises(FileNotFoundError, match="no model folder"):
        li.load_model(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="cannot load the model 'nobody/nothing'"):
        li.load_model("nobody/nothing")
    with pytest.raises(ValueError, match="no tokenizer for"):
        li.load_model((hf, None))


def test_sampling_is_seeded(organism):
    state = torch.random.get_rng_state()
    texts = [organism.generate("Mira Tolen was taught by", seed=s) for s in (1, 1, 2, 3, 4)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_ranks_by_first_tokens_are_those_of_the_next_token(family):
    """Written out: of the relation's answers, how many begin with a more probable token than the right one does."""
    from families import build

    model = build(family)
    answers = ["wba wbb", "wba wbc", "wcd", "wce wcf wcg", "wch", "wci wcj"]
    rows = [
        {"fact_id": f"{i}", "subject": f"s{i}", "relation": "r", "object": answer, "prompt": f"waa wab wa{'cdefgh'[i]}"}
        for i, answer in enumerate(answers)
    ]
    facts = li.load_facts(rows)
    scores = li.score(model, facts, {"base": None}, rank_by="first_tokens", progress=False)
    whole = li.score(model, facts, {"base": None}, progress=False)
    assert scores["logprob"].to_numpy() == pytest.approx(whole["logprob"].to_numpy(), abs=1e-6)
    for row, fact in zip(scores.to_dict("records"), facts, strict=True):
        if family == "bert":  # how many masks an answer has is part of its question
            assert 1 <= row["candidate_rank"] <= len(answers)
            continue
        logprobs = model.next_token_logprobs([fact.prompt])[0]
        first = {answer: model.encode(f"{fact.prompt} {answer}")[len(model.encode(fact.prompt))] for answer in answers}
        own = first[fact.object]
        rivals = [token for token in map(first.get, answers) if token != own]
        assert row["candidate_rank"] == 1 + sum(float(logprobs[token]) >= float(logprobs[own]) for token in rivals)
    with pytest.raises(ValueError, match="rank_by is 'x'"):
        li.score(model, facts, {"base": None}, rank_by="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="looks at whole answers"):
        li.score(model, li.tasks.own_task(facts, "candidates"), {"base": None}, rank_by="first_tokens")


def test_generic_words_are_looked_for_once_after_each_kind_of_ending(organism, monkeypatch):
    """Letters are one kind; signs, and letters of scripts without spaces, are one each."""
    from laser_interp.scoring import generic_words as module

    asked = []
    monkeypatch.setattr(module, "_one_token", lambda model, pairs, leave_out: asked.append(pairs[0][0]) or (1,))
    prompts = ["ab", "a?", "b?", " ?", "\u4e1cb", "c\u4e1c"]
    facts = li.load_facts([("s", "r", "x", prompt) for prompt in prompts])
    module.generic_tokens(organism, facts, [(fact, 0) for fact in facts], ["the"])
    assert asked == ["ab", "a?", "c\u4e1c"]
