"""What users of TransformerLens expect of a model: calls on text, caches, hooks, and a bridge they already have."""

import copy

import pytest
import torch
from families import Tokens, make
from transformer_lens.model_bridge import TransformerBridge

import laser_interp as li
from laser_interp.facts.shipped import shipped_dir
from laser_interp.models.library_internals import build_bridge

TEXT = "Mira Tolen was taught by"


def last(logits):
    return logits[0, -1].log_softmax(-1).detach()


def test_calls_on_text_see_the_edits_that_are_on(organism, laser):
    expected = organism.next_token_logprobs(TEXT, edit=laser)[0]
    seen = []
    with laser.on(organism):
        cached, cache = organism.run_with_cache(TEXT)
        hooked = organism.run_with_hooks(TEXT, fwd_hooks=[("blocks.0.hook_out", lambda x, hook: seen.append(x.shape))])
        for logits in (organism(TEXT), organism(organism.to_tokens(TEXT)), organism.bridge(TEXT), cached, hooked):
            assert (last(logits) - expected).abs().max() < 1e-5
    assert (last(organism(TEXT)) - expected).abs().max() > 0.1  # the edit is gone, and was left by none of the calls
    x, y = cache["blocks.3.mlp.in.hook_in"], cache["blocks.3.mlp.in.hook_out"]
    U, S, Vh = torch.linalg.svd(organism.weight(3, "in").double(), full_matrices=False)
    rank = round(0.05 * len(S))
    truncated = ((U[:, :rank] * S[:rank]) @ Vh[:rank]).float()
    assert torch.allclose(y, x @ truncated + organism.bias(3, "in"), atol=1e-4)  # the cache holds what the edit made
    assert seen == [(1, 5, organism.d_model)]


def test_names_that_users_of_transformer_lens_look_for(organism):
    assert organism.cfg is organism.bridge.cfg
    pieces = organism.to_str_tokens(TEXT)
    assert " ".join(pieces) == TEXT
    assert len(pieces) == len(organism.encode(TEXT))
    answer = organism.tokenizer(" by", add_special_tokens=False)["input_ids"]
    assert [organism.to_single_token(" by")] == answer
    with pytest.raises(ValueError, match=r"'Mira Tolen was' is 3 tokens of 'organism' .*: expected one"):
        organism.to_single_token("Mira Tolen was")
    with pytest.raises(AttributeError, match=r"no W_E: use model\.bridge\.W_E"):
        _ = organism.W_E
    with pytest.raises(AttributeError, match=r"no weather$"):
        _ = organism.weather
    assert not hasattr(organism, "W_Q")


def test_an_edit_at_chosen_positions_knows_what_it_runs_on(organism, facts, laser):
    some = facts.keep(facts.facts[:2])
    last_only = laser.at(organism, "last", some)
    prompt = some.facts[0].prompt
    with last_only.on(organism):
        assert torch.allclose(last(organism(prompt)), organism.next_token_logprobs(prompt)[0], atol=1e-5)
        with pytest.raises(ValueError, match="its bridge does not tell which prompts it runs on"):
            organism.bridge(prompt)


def test_texts_of_several_lengths(organism):
    both = organism([TEXT, "Mira Tolen was"])
    assert organism.to_tokens([TEXT, "Mira Tolen was"]).shape == (2, 5)
    assert torch.allclose(both[0], organism(TEXT)[0], atol=1e-5)
    assert torch.allclose(both[1, :3], organism("Mira Tolen was")[0], atol=1e-5)


@pytest.mark.parametrize("wrong", ["", [], [3], torch.zeros(2, 3), torch.zeros(0, dtype=torch.long)])
def test_what_is_no_text_and_no_tokens_is_refused(organism, wrong):
    with pytest.raises(ValueError, match="expected texts, or token ids|must not be empty"):
        organism(wrong)


def test_a_sample_is_drawn_as_asked(organism):
    greedy = organism.generate(TEXT, 4)
    assert organism.generate(TEXT, 4, seed=0, top_k=1) == greedy
    assert organism.generate(TEXT, 4, seed=0, temperature=1e-4) == greedy
    drawn = {organism.generate(TEXT, 4, seed=seed, temperature=3.0) for seed in range(5)}
    assert len(drawn) > 1
    assert {organism.generate(TEXT, 4, seed=seed, temperature=3.0) for seed in range(5)} == drawn


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 0.5}, "there is no seed: expected seed=0"),
        ({"seed": 0, "temperature": 0.0}, "a temperature above 0"),
        ({"seed": 0, "top_k": 0}, "a whole number of 1 or more"),
        ({"seed": 0, "top_p": 1.5}, r"a probability in \(0, 1\]"),
    ],
)
def test_options_of_a_sample_are_checked(organism, options, says):
    with pytest.raises(ValueError, match=says):
        organism.generate(TEXT, 4, **options)


def test_a_transformers_model_beside_its_tokenizer(plain):
    hf, tokenizer = plain
    model = li.load_model(hf, tokenizer=tokenizer)
    assert model.hf_model is not hf  # a copy: wrapping changes a model for good
    assert model.weights_sha256 == li.load_model("organism").weights_sha256
    with pytest.raises(ValueError, match="no tokenizer for 'GPT2LMHeadModel'"):
        li.load_model(hf)


def test_a_bridge_is_used_as_it_is(organism, laser):
    bridge = TransformerBridge.boot_transformers(str(shipped_dir("organism")))
    model = li.load_model(bridge)
    assert model.bridge is bridge
    assert model.name == "organism"
    # TransformerLens puts a token before every text, which the checkpoint's tokenizer does not.
    assert bridge.to_tokens(TEXT).shape[1] == len(model.encode(TEXT)) + 1
    assert torch.equal(
        model.next_token_logprobs(TEXT, edit=li.laser(model, "3.in", rho=0.05)),
        organism.next_token_logprobs(TEXT, edit=laser),
    )
    with pytest.raises(ValueError, match="device and dtype are the bridge's own"):
        li.load_model(bridge, dtype="float64")
    bridge.enable_compatibility_mode()
    with pytest.raises(ValueError, match="compatibility mode, which folds norms into weights"):
        li.load_model(bridge)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi3", "llama_gqa", "gemma3", "bert"])
def test_a_bridges_parameters_have_the_checkpoints_names(family):
    hf, tokenizer = make(family), Tokens()
    tokenizer.mask_token_id = 2  # for BERT
    plain = li.load_model((copy.deepcopy(hf), tokenizer))
    bridged = li.load_model(build_bridge(hf), tokenizer=tokenizer)
    assert bridged.weights_sha256 == plain.weights_sha256
    assert bridged.n_params == plain.n_params


def test_padding_is_no_word_of_a_masked_model():
    """Tokens of several texts are padded to one length, and a masked model looks at what follows too."""
    tokenizer = Tokens()
    tokenizer.mask_token_id = 2
    model = li.load_model((make("bert"), tokenizer))
    texts = ["5 6 7 8 9", "5 6"]
    assert torch.equal(model(model.to_tokens(texts)), model(texts))
    assert torch.allclose(model(model.to_tokens(texts))[1, :2], model(texts[1])[0], atol=1e-5)


def test_a_bridge_without_a_tokenizer_is_refused(plain):
    with pytest.raises(ValueError, match=r"pass load_model\(bridge, tokenizer=...\)"):
        li.load_model(build_bridge(copy.deepcopy(plain[0])))
