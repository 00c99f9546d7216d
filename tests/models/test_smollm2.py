"""SmolLM2, the real model that a package carries: our edits against weights edited in plain transformers."""

import copy

import pytest
import torch
import transformers

import laser_interp as li
from laser_interp.models.named_models import NAMED_MODELS, packaged_file

SMOLLM2 = packaged_file(NAMED_MODELS["smollm2"])
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.slow,
    pytest.mark.skipif(SMOLLM2 is None, reason="SmolLM2 is not installed: make smollm2-model"),
]
PROJECTIONS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "in": "mlp.up_proj",
    "gate": "mlp.gate_proj",
    "out": "mlp.down_proj",
}
SITES = [(4 * i % 30, name) for i, name in enumerate([*PROJECTIONS] * 3)][:20]


@pytest.fixture(scope="module")
def model():
    return li.load_model("smollm2")


@pytest.fixture(scope="module")
def plain():
    assert SMOLLM2 is not None
    where = {"gguf_file": SMOLLM2.name}
    hf = transformers.AutoModelForCausalLM.from_pretrained(SMOLLM2.parent, dtype=torch.float32, **where).eval()
    return hf, transformers.AutoTokenizer.from_pretrained(SMOLLM2.parent, **where)


def test_what_it_is(model):
    assert (model.n_layers, model.d_model, model.n_heads) == (30, 576, 9)
    assert "Q4_1" in model.quantisation
    assert "Q4_1" in repr(model)
    logprobs = model.next_token_logprobs(["The capital of France is"])[0]
    assert model.decode(int(logprobs.argmax())).strip() == "Paris"


def test_twenty_sites_against_weights_edited_in_plain_transformers(model, plain):
    """1e-4 in every log-probability of the last position."""
    hf, tokenizer = plain
    prompts = ["The capital of France is", "At home, Victor Hugo grew up speaking"]
    worst = 0.0
    for layer, matrix in SITES:
        edited = copy.deepcopy(hf)
        linear = edited.model.layers[layer].get_submodule(PROJECTIONS[matrix])
        U, S, Vh = torch.linalg.svd(linear.weight.data.double(), full_matrices=False)
        rank = max(len(S) // 20, 1)
        linear.weight.data = ((U[:, :rank] * S[:rank]) @ Vh[:rank]).float()
        with torch.no_grad():
            expected = torch.stack(
                [edited(**tokenizer(text, return_tensors="pt")).logits[0, -1].log_softmax(-1) for text in prompts]
            )
        edit = li.laser(model, li.Site(layer, matrix), rank=rank)
        with edit.on(model):
            found = model.next_token_logprobs(prompts)
        worst = max(worst, float((found - expected).abs().max()))
    assert worst < 1e-4


def test_a_small_study_twice_gives_equal_tables(model, tmp_path):
    import pandas as pd

    facts = li.load_facts("wikidata")
    some = facts.keep([fact for i, fact in enumerate(facts) if i % 100 == 0])
    settings = li.types.StudySettings(
        matrices=("in",), layers=(27, 28), rhos=(0.2, 0.05), n_draws=1, prompts="first", rank_by="first_tokens",
        strengths=(), n_permutations=99, compose=False, attribute=False,
    )  # fmt: skip
    runs = [li.study(model, some, li.load_counts("wikidata"), settings=settings, progress=False) for _ in range(2)]
    assert runs[0].tables.keys() == runs[1].tables.keys()
    for name, table in runs[0].tables.items():
        pd.testing.assert_frame_equal(table, runs[1].tables[name])
    assert "dequantised from" in runs[0].report
    assert "## Where the gain comes from" in runs[0].report
