"""Numbers do not depend on the caller's modes, an edit notices that its hooks are gone, and generation is its own."""

import copy
import pickle
from contextlib import ExitStack

import pytest
import torch
import transformers
from families import _COMMON, HEADS, INNER, LAYERS, D, build, make, words_tokenizer

import laser_interp as li

FACTS = li.load_facts(
    [("wab", "r", "waa", "wab wac"), ("wad", "r", "wae", "wad wac wab waf"), ("x", "r", "waa", "wag")]
)


def with_dropout():
    config = transformers.GPT2Config(
        **_COMMON, n_embd=D, n_layer=LAYERS, n_head=HEADS, n_inner=INNER, n_positions=64, attn_pdrop=0.3,
        resid_pdrop=0.3, embd_pdrop=0.3,
    )  # fmt: skip
    return li.load_model((transformers.GPT2LMHeadModel(config), words_tokenizer()), device="cpu")


def numbers(model, edit, engine="fast"):
    scores = li.score(model, FACTS, {"base": None, "edit": edit}, engine=engine, progress=False)
    gradients = li.attribute(model, FACTS, "1.in", progress=False).gradients[li.Site(1, "in")]
    text = model.generate("wab wac", 4, edit=edit)
    return scores["logprob"].tolist(), gradients.tolist(), model.next_token_logprobs("wab", edit).tolist(), text


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_dropout_and_autocast_of_the_caller_change_nothing(engine):
    model = with_dropout()
    edit = li.laser(model, "1.in", rank=5)
    expected = numbers(model, edit, engine)
    model.hf_model.train()
    assert numbers(model, edit, engine) == expected
    assert model.hf_model.training  # as it was found
    assert model.hf_model.transformer.drop.training
    model.hf_model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert numbers(model, edit, engine) == expected
        assert torch.is_autocast_enabled("cpu")
    assert li.perplexity(model, "wab wac wad") == li.perplexity(model, "wab wac wad")


@pytest.mark.slow
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)])
def test_gradients_are_taken_in_every_mode(mode):
    model = build("gpt2")
    expected = li.attribute(model, FACTS, progress=False)
    before = torch.is_grad_enabled()
    with mode():
        fresh = build("gpt2")  # loaded, factored and edited in this mode too
        edit = li.laser(fresh, "2.in", rank=5)
        found = li.attribute(fresh, FACTS, progress=False)
        at_edit = li.attribute(fresh, FACTS, "1.in", edit=edit, progress=False)
        for method in ("race", "gradient"):
            li.search(fresh, FACTS, method=method, matrices="in", rhos=[0.2], progress=False)
    torch.set_grad_enabled(before)
    for site, gradients in expected.gradients.items():
        assert abs(found.gradients[site] - gradients).max() < 1e-6
    again = li.attribute(model, FACTS, "1.in", edit=li.laser(model, "2.in", rank=5), progress=False)
    assert abs(at_edit.gradients[li.Site(1, "in")] - again.gradients[li.Site(1, "in")]).max() < 1e-6


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_model_is_not_copied(copied):
    with pytest.raises(TypeError, match="cannot be copied or pickled.*li.load_model"):
        copied(build("gpt2"))


# --- hooks that were removed -----------------------------------------------------------------------

CALLS = {
    "next_token_logprobs": lambda m: m.next_token_logprobs("wab"),
    "call": lambda m: m("wab"),
    "run_with_cache": lambda m: m.run_with_cache("wab"),
    "run_with_hooks": lambda m: m.run_with_hooks("wab"),
    "generate": lambda m: m.generate("wab", 2),
    "perplexity": lambda m: li.perplexity(m, "wab wac wad"),
    "at the end": lambda m: None,
}


def without_hooks(model, edits, call):
    """A call inside edits whose hooks are removed."""
    with ExitStack() as stack:
        for edit in edits:
            stack.enter_context(edit.on(model))
        model.bridge.reset_hooks()
        call(model)
        called.append(call)


called = []


@pytest.mark.parametrize("name", CALLS)
def test_an_edit_whose_hooks_were_removed_says_so(name):
    model = build("gpt2")
    edit = li.laser(model, "1.in", rank=2)
    called.clear()
    with pytest.raises(ValueError, match="the hooks of an edit were removed while it was on"):
        without_hooks(model, [edit], CALLS[name])
    assert bool(called) == (name == "at the end")
    assert model._state.attached == []
    with edit.on(model):  # and the model is as it was
        CALLS[name](model)


def test_the_outer_of_two_nested_edits_is_looked_at_too():
    model = build("gpt2")
    outer, inner = li.laser(model, "1.in", rank=2), li.laser(model, "2.out", rank=2)

    def only_the_outer(model):
        with inner.on(model):
            model.bridge.get_submodule("blocks.1.mlp.in.hook_out").remove_hooks()
            model.next_token_logprobs("wab")

    with pytest.raises(ValueError, match="were removed"), outer.on(model):
        only_the_outer(model)


# --- generation ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gptj", "gpt_neox", "llama_gqa", "phi3", "gemma3", "opt"])
@pytest.mark.parametrize("edited", [False, True])
def test_several_prompts_continue_as_each_alone(family, edited):
    model = build(family)
    edit = li.laser(model, "1.in", rank=3) if edited else None
    prompts = ["wab wac wad wae waf", "wag", "wah wai waj", "wab wac"]
    together = model.generate(prompts, 6, edit=edit)
    assert together == [model.generate(prompt, 6, edit=edit) for prompt in prompts]
    assert isinstance(together, list)
    assert len(set(together)) > 1


def test_an_edit_at_chosen_positions_acts_in_a_padded_batch():
    model = build("gpt2")
    prompts = ["wab wac wad wae waf", "wag", "wah wai waj"]
    edit = li.zeroed(model, "1.in").at(model, "last", prompts)
    assert model.generate(prompts, 4, edit=edit) == [model.generate(p, 4, edit=edit) for p in prompts]
    assert model.generate(prompts, 4, edit=edit) != model.generate(prompts, 4)


def test_a_text_that_ends_before_others_ends_there():
    """GPT-2 and GPT-J have no token for padding, and their token 0 is a word."""
    hf, tokenizer = make("gpt2"), words_tokenizer()
    words = tokenizer.convert_ids_to_tokens(range(4, 40))
    said = li.load_model((hf, tokenizer), device="cpu").generate(words, 6)
    hf.config.pad_token_id, tokenizer.pad_token = None, "wab"
    hf.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(said[0].split()[2])
    model = li.load_model((hf, tokenizer), device="cpu")
    together = model.generate(words, 6)
    assert len({len(text.split()) for text in together}) > 1
    assert together == [model.generate(word, 6) for word in words]


def test_a_text_ends_where_the_positions_end(organism):
    """Whatever stands beside it; a prompt without room for a token is refused before anything runs."""
    most, short = organism.max_positions, "Mira Tolen was"
    words = f"{short} born in ".split() * most
    long, longer, full = (" ".join(words[: most - room]) for room in (5, 1, 0))
    assert [len(organism.encode(text)) for text in (long, longer, full)] == [most - 5, most - 1, most]
    together = organism.generate([long, short, longer], 20)
    assert together == [organism.generate(text, 20) for text in (long, short, longer)]
    assert together[2] == organism.generate(longer, 1)
    with pytest.raises(ValueError, match=f"fills all {most} positions of 'organism': shorten it"):
        organism.generate([long, full])


def test_what_the_checkpoint_says_of_generation_is_left_out():
    hf = make("llama")
    tokenizer = words_tokenizer()
    plain = li.load_model((hf, tokenizer), device="cpu").generate("wab wac", 12)
    hf.generation_config = transformers.GenerationConfig(
        repetition_penalty=9.0, top_k=1, no_repeat_ngram_size=1, min_new_tokens=3, bad_words_ids=[[5]], eos_token_id=1
    )
    model = li.load_model((hf, tokenizer), device="cpu")
    assert model.generate("wab wac", 12) == plain
    assert model.hf_model.generation_config.repetition_penalty == 9.0  # and it is as it was
    rows, ids = [], tokenizer("wab wac")["input_ids"]
    with torch.no_grad():
        for _ in range(12):
            rows.append(int(hf(torch.tensor([ids])).logits[0, -1].argmax()))
            ids = [*ids, rows[-1]]
            if rows[-1] == 1:
                break
    assert plain == tokenizer.decode(rows, skip_special_tokens=True)


@pytest.mark.parametrize("prompts", [[], [3], ["wab", None]])
def test_prompts_are_texts(prompts):
    with pytest.raises(ValueError, match="expected a text, or a list of at least one"):
        build("gpt2").generate(prompts)


def test_the_rule_of_generation_asks_all_prompts_at_once(monkeypatch):
    model = build("gpt2")
    asked = []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda prompts, *args, **more: asked.append(prompts) or generate(prompts, *args, **more)
    )
    task = li.tasks.own_task(FACTS, "generation", max_new_tokens=3)
    scores = li.score(model, task, {"base": None}, progress=False)
    assert asked == [[fact.prompt for fact in FACTS]]
    assert scores["prediction"].tolist() == [generate(fact.prompt, 3).strip() for fact in FACTS]
