"""The check: right on every family, and it notices a model that is wrong on purpose."""

import json

import pytest
import torch
import transformers
from families import FAMILIES, make, numbers_tokenizer

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.models.hooks import rewriting


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_right(family):
    found = li.check(li.load_model((make(family), numbers_tokenizer()), device="cpu"), layers=[1], progress=False)
    assert found.right, found.verdict
    assert len(found.table) == 3 + len(FAMILIES[family][3]) * 5
    assert found.about["tested_family"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    found = li.check(
        li.load_model((make("llama", dtype), numbers_tokenizer()), device="cpu"), layers=[1], progress=False
    )
    assert found.right, found.verdict
    assert found.table["difference"].max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_fp64_agrees_whichever_attention_the_model_was_loaded_with(family):
    hf = make(family, torch.float64)
    hf.set_attn_implementation("sdpa")
    found = li.check(li.load_model((hf, numbers_tokenizer()), device="cpu"), layers=[1], progress=False)
    assert found.right, found.verdict


@pytest.mark.slow
def test_a_model_that_is_wrong_on_purpose():
    """A hook of somebody else's moves what one matrix gives, so that the model is not what its weights say."""
    model = li.load_model((make("llama"), numbers_tokenizer()), device="cpu")
    with rewriting(model, {(1, "out"): lambda x, y: 1.05 * y}):
        found = li.check(model, layers=[1], progress=False)
    assert not found.right
    assert found.verdict.startswith("WRONG: on LlamaForCausalLM")
    first = found.table[~found.table["right"]].iloc[0]
    assert first["compared"] == "the model with plain transformers"
    assert li.check(model, layers=[1], progress=False).right  # the hook is gone


def test_a_spectrum_of_other_weights_is_noticed():
    model = li.load_model((make("gpt2"), numbers_tokenizer()), device="cpu")
    weight = model.weight(1, "in")
    spectrum = li.spectrum(model, "1.in")
    spectrum.S.mul_(1.1)  # as a damaged cache would have it
    found = li.check(model, layers=[1], progress=False)
    wrong = found.table[~found.table["right"]]
    assert set(wrong["where"]) == {"1.in LASER", "1.in discarded part"}
    assert weight.isfinite().all()


@pytest.mark.slow
def test_the_command(capsys, monkeypatch):
    assert main(["check", "--model", "organism", "--layers", "3", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "Right: on organism (GPT2LMHeadModel) on cpu in float32 all" in out.splitlines()[-1]
    assert main(["check", "--model", "organism", "--layers", "3", "--quiet", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["right"]
    assert said["speed"]["ratio"] > 0
    assert main(["check", "--model", "organism", "--layers", "9", "--quiet"]) == 2
    assert "9" in capsys.readouterr().err
    monkeypatch.setattr("laser_interp.verification.model_check.ALLOWED", {torch.float32: 0.0})
    assert main(["check", "--model", "organism", "--layers", "3", "--quiet"]) == 2
    said = capsys.readouterr()
    assert "WRONG" in said.out
    assert "the check failed" in said.err


def untested(name):
    config = getattr(transformers, f"{name}Config")(
        vocab_size=96, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=48, max_position_embeddings=64, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Falcon", "Jais2"])
def test_an_architecture_that_is_not_in_the_table_is_checked_when_it_is_loaded(name):
    with pytest.warns(UserWarning, match=f"{name}ForCausalLM is not in the table of tested architectures"):
        model = li.load_model((untested(name), numbers_tokenizer()), device="cpu")
    found = li.check(model, layers=[1], progress=False)
    assert found.right, found.verdict
    assert not found.about["tested_family"]
