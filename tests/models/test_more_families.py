"""More families, in fp32: every kind of layer and matrix against edited weights.

Hybrids, whose layers mix tokens by attention or by something else; latent attention; shared keys; biases of positions;
and families that are built as those of test_families.py are.
"""

import copy
import os
import re
import warnings

import pytest
import torch
import transformers as tf
from families import FAMILIES as TESTED_IN_FP64
from families import HEADS, INNER, VOCAB, D, by_engine, numbers_tokenizer, ours, reference

import laser_interp as li
from laser_interp.models.families import FAMILIES, is_tested
from laser_interp.models.weights import stored_at
from laser_interp.scoring.engine import Engine

N = 4
COMMON = {
    "hidden_size": D,
    "num_hidden_layers": N,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "intermediate_size": INNER,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4, "mamba_expand": 2, "mamba_n_groups": 1}
GRANITE = {"num_local_experts": 0, "shared_intermediate_size": INNER, "layer_types": ["mamba", "attention"] * 2} | MAMBA
BERT_LIKE = {
    "hidden_size": D,
    "num_hidden_layers": N,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "vocab_size": VOCAB,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
    "type_vocab_size": 1,
}
ATTENTION, GATED = ("q", "k", "v", "o"), ("in", "gate", "out")
LATENT = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")
# Name -> (config type, what it has beside COMMON, matrices of layer 0, of layer 1, whether layers run in parts)
MODELS = {
    "qwen3_5": (
        "qwen3_5_text",
        LINEAR | {"head_dim": 8},
        (*GATED, "out_proj", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"),
        (*ATTENTION, *GATED),
        True,
    ),
    "olmo_hybrid": (
        "olmo_hybrid",
        LINEAR,
        (*GATED, "q_proj", "k_proj", "v_proj", "a_proj", "b_proj", "g_proj", "o_proj"),
        (*ATTENTION, *GATED),
        True,
    ),
    "lfm2": (
        "lfm2",
        {"layer_types": ["conv", "full_attention"] * 2},
        (*GATED, "in_proj", "out_proj"),
        (*ATTENTION, *GATED),
        True,
    ),
    "jamba": (
        "jamba",
        {"num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
        (*GATED, "in_proj", "x_proj", "out_proj"),  # its code takes the weight of dt_proj without running the map
        (*ATTENTION, *GATED),
        True,
    ),
    "bamba": (
        "bamba",
        {"attn_layer_indices": [1, 3]} | MAMBA,
        (*GATED, "in_proj", "out_proj"),
        (*ATTENTION, *GATED),
        False,
    ),
    "granite_hybrid": (
        "granitemoehybrid",
        GRANITE | {"position_embedding_type": "rope"},
        (*GATED, "in_proj", "out_proj"),
        (*ATTENTION, *GATED),
        True,
    ),
    "granite_without_positions": (
        "granitemoehybrid",
        GRANITE,
        (*GATED, "in_proj", "out_proj"),
        (*ATTENTION, *GATED),
        True,
    ),
    "llama4_dense": (
        "llama4_text",
        {"head_dim": 8, "intermediate_size_mlp": INNER, "moe_layers": [], "num_local_experts": 1},
        (*ATTENTION, *GATED),
        (*ATTENTION, *GATED),
        True,
    ),
    "deepseek_v3_dense": (
        "deepseek_v3",
        {"num_key_value_heads": HEADS, "first_k_dense_replace": N, "n_routed_experts": 1, "q_lora_rank": 16}
        | {"kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8},
        ("o", *GATED, *LATENT),
        ("o", *GATED, *LATENT),
        True,
    ),
    "gemma4_shared": (
        "gemma4_text",
        {"head_dim": 8, "global_head_dim": 8, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB}
        | {"num_kv_shared_layers": 2, "sliding_window": 4}
        | {"layer_types": ["sliding_attention", "full_attention"] * 2},
        (*ATTENTION, *GATED),
        (*ATTENTION, *GATED),
        False,
    ),
    "falcon_h1": (
        "falcon_h1",
        {"mamba_d_ssm": 32} | MAMBA | {"mamba_d_head": 8},
        (*ATTENTION, *GATED, "in_proj", "out_proj"),  # its layers mix tokens in two ways, side by side
        (*ATTENTION, *GATED, "in_proj", "out_proj"),
        True,
    ),
    "bloom": ("bloom", {"n_layer": N, "n_head": HEADS}, (*ATTENTION, "in", "out"), (*ATTENTION, "in", "out"), False),
    "mpt": (
        "mpt",
        {"d_model": D, "n_layers": N, "n_heads": HEADS, "max_seq_len": 64},
        (*ATTENTION, "in", "out"),
        (*ATTENTION, "in", "out"),
        False,
    ),
    "mamba": ("mamba", {"state_size": 4}, ("in_proj", "x_proj", "out_proj"), ("in_proj", "x_proj", "out_proj"), True),
    "mamba2": (
        "mamba2",
        {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1},
        ("in_proj", "out_proj"),
        ("in_proj", "out_proj"),
        True,
    ),
    "gemma4": (
        "gemma4_text",
        {"head_dim": 8, "global_head_dim": 8, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0},
        (*ATTENTION, *GATED),
        (*ATTENTION, *GATED),
        True,
    ),
    "xlm-roberta": ("xlm-roberta", BERT_LIKE, (*ATTENTION, "in", "out"), (*ATTENTION, "in", "out"), True),
    "camembert": ("camembert", BERT_LIKE, (*ATTENTION, "in", "out"), (*ATTENTION, "in", "out"), True),
}
EXPERTS = tuple(f"{matrix}.e{i}" for i in range(3) for matrix in ("in", "gate", "out"))
ROUTED = (*EXPERTS, "router")
IN_SHARED = ("in.shared", "gate.shared", "out.shared")
MIXTURE = {"num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
ONE_OF_THREE = MIXTURE | {"n_routed_experts": 3, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}
ONE_OF_THREE |= {"first_k_dense_replace": 1}
LATENT_SIZES = {"num_key_value_heads": HEADS, "q_lora_rank": 16, "kv_lora_rank": 8} | {
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
IN_LINEAR = MIXTURE | LINEAR | {"head_dim": 8, "shared_expert_intermediate_size": 20}
QUARTER = {"moe_num_experts": 3, "moe_k": 2, "moe_layer_start_index": 0, "moe_num_shared_experts": 1}
for kind, more, first, second in (
    ("mixtral", {}, ROUTED, ROUTED),
    ("qwen3_moe", {"head_dim": 8}, ROUTED, ROUTED),
    ("qwen2_moe", {"shared_expert_intermediate_size": 20}, (*ROUTED, *IN_SHARED), (*ROUTED, *IN_SHARED)),
    ("olmoe", {}, ROUTED, ROUTED),
    ("flex_olmo", {}, ROUTED, ROUTED),
    ("gpt_oss", {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]}, ROUTED, ROUTED),
    ("granitemoe", {}, ROUTED, ROUTED),
    ("minimax_m2", {"head_dim": 8}, ROUTED, ROUTED),
    ("ernie4_5_moe", QUARTER, (*ROUTED, *IN_SHARED), (*ROUTED, *IN_SHARED)),
    ("glm4_moe", ONE_OF_THREE | {"head_dim": 8}, GATED, (*ROUTED, *IN_SHARED)),
):
    MODELS[kind] = kind, MIXTURE | more, (*ATTENTION, *first), (*ATTENTION, *second), True
for kind in ("deepseek_v2", "deepseek_v3"):
    of_layers = ("o", *GATED, *LATENT), ("o", *LATENT, *ROUTED, *IN_SHARED)
    MODELS[kind] = kind, ONE_OF_THREE | LATENT_SIZES, *of_layers, True
for kind, mixer in (
    ("qwen3_next", ("in_proj_qkvz", "in_proj_ba", "out_proj")),
    ("qwen3_5_moe_text", ("out_proj", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")),
):
    MODELS[kind] = kind, IN_LINEAR, (*ROUTED, *IN_SHARED, *mixer), (*ATTENTION, *ROUTED, *IN_SHARED), True
MODELS["lfm2_moe"] = (
    "lfm2_moe",
    MIXTURE | {"num_dense_layers": 0, "layer_types": ["conv", "full_attention"] * 2},
    (*ROUTED, "in_proj", "out_proj"),
    (*ATTENTION, *ROUTED),
    True,
)
MODELS["jamba_moe"] = (
    "jamba",
    MIXTURE
    | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4}
    | {"expert_layer_period": 1, "expert_layer_offset": 0},
    (*ROUTED, "in_proj", "x_proj", "out_proj"),
    (*ATTENTION, *ROUTED),
    True,
)
MASKED = ("xlm-roberta", "camembert")
GATED_MLP = ("gemma", "olmo3", "ministral3", "glm", "glm4", "granite", "cohere", "cohere2", "exaone4", "ernie4_5",
             "seed_oss", "hunyuan_v1_dense", "stablelm")  # fmt: skip
OTHER_MLP = ("nemotron", "starcoder2", "gpt_bigcode", "arcee", "xglm", "modernbert-decoder")
for kind in (*GATED_MLP, *OTHER_MLP):
    has = (*ATTENTION, *(GATED if kind in GATED_MLP else ("in", "out")))
    MODELS[kind] = kind, {"head_dim": 8} if kind != "modernbert-decoder" else {}, has, has, True
PROMPTS = [[22, 29, 36, 43, 57, 64, 78], [23, 42, 7], [90, 91, 92, 93, 94, 95, 2]]


def n_layers(name):
    """Four, where layers differ or do not run in parts; else two."""
    *_, first, second, in_parts = MODELS[name]
    return 2 if first == second and in_parts and name not in MASKED else N


def plain_model(name):
    kind, more, *_ = MODELS[name]
    own_sizes = name in (*MASKED, "mpt")
    sizes = {"vocab_size": VOCAB} if own_sizes else COMMON | {"num_hidden_layers": n_layers(name)}
    config = tf.CONFIG_MAPPING[kind](**sizes | more)
    mapping = tf.MODEL_FOR_MASKED_LM_MAPPING if name in MASKED else tf.MODEL_FOR_CAUSAL_LM_MAPPING
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = mapping[type(config)](config).eval()
        for parameter in hf.parameters():
            parameter.data += (0.15 if parameter.ndim > 1 else 0.2) * torch.randn_like(parameter)
    return hf


def with_rank(hf, model, layer, matrix, rank):
    """A plain copy of the model in which one matrix is truncated."""
    out = copy.deepcopy(hf)
    U, S, Vh = torch.linalg.svd(model.weight(layer, matrix).double(), full_matrices=False)
    new = ((U[:, :rank] * S[:rank]) @ Vh[:rank]).float()
    at = stored_at(model, layer, matrix)
    at.rows(out.get_parameter(at.name).data)[at.index] = new.T
    return out


def at_last(model, edits):
    reads = [(i, len(row) - 1) for i, row in enumerate(PROMPTS)]
    return by_engine(Engine(model, PROMPTS, reads, memory=2**28), edits)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_each_kind_of_layer_and_matrix(name):
    hf = plain_model(name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = li.load_model((hf, numbers_tokenizer()))
    *_, first, second, in_parts = MODELS[name]
    last = n_layers(name) - 1
    worst = 0.0
    assert (model.matrices_of(0), model.matrices_of(1)) == (first, second)
    assert model.runs_in_parts == in_parts
    assert any("is scored by full passes" in str(w.message) for w in told) == (not in_parts)
    unedited = reference(hf, PROMPTS)
    tried, expected = [], []
    for layer in sorted({0, 1, last}):
        for matrix in model.matrices_of(layer):
            edit = li.laser(model, f"{layer}.{matrix}", rank=2)
            right = reference(with_rank(hf, model, layer, matrix, 2), PROMPTS)
            not_asked = layer == last and matrix in EXPERTS  # the router may not choose it for the last tokens
            assert (right - unedited).abs().max() > 1e-4 or not_asked, (layer, matrix)
            if layer == 0 or layer < last:  # full passes take one path for every layer
                padding = ("right", "left")[len(tried) % 2]
                worst = max(worst, float((ours(model, edit, padding, PROMPTS) - right).abs().max()))
                assert worst < 3e-5, (layer, matrix, padding)
            tried.append(edit)
            expected.append(right)
    if in_parts:
        other = second[-1]
        two = li.laser(model, f"0.{first[-1]}", rank=2) + li.laser(model, f"1.{other}", rank=2)
        right = reference(with_rank(with_rank(hf, model, 0, first[-1], 2), model, 1, other, 2), PROMPTS)
        found = at_last(model, [None, *tried, two])
        for edit, one, other in zip([None, *tried, two], found, [unedited, *expected, right], strict=True):
            worst = max(worst, float((one - other).abs().max()))
            assert worst < 3e-5, edit
    assert is_tested(model.architecture)
    if path := os.environ.get("LASER_INTERP_SUPPORT"):
        with open(path, "a", encoding="utf-8") as out:
            how = "" if in_parts else "scored by full passes"
            second, first = (
                [re.sub(r"\.e0$", ".e*", m) for m in has if m not in EXPERTS[3:]] for has in (second, first)
            )
            matrices = ", ".join(second) if first == second else f"{', '.join(second)}; or {', '.join(first)}"
            out.write(f"{name}\t{type(hf).__name__}\t{matrices}\t{worst:.1e}\t{how}\n")


# What is refused: name -> (config type, what it has beside COMMON, the reason)
REFUSED = {
    "llama4": (
        "llama4_text",
        {"head_dim": 8, "intermediate_size_mlp": INNER, "moe_layers": [0, 1], "num_local_experts": 3},
        "a mixture of 3 experts of a family whose experts are not supported",
    ),
    "gemma4_moe": (
        "gemma4_text",
        MIXTURE | {"enable_moe_block": True, "top_k_experts": 2, "head_dim": 8, "layer_types": ["full_attention"] * 2},
        "a mixture of 3 experts of a family whose experts are not supported",
    ),
    "granitemoehybrid": (
        "granitemoehybrid",
        GRANITE | {"num_local_experts": 3, "num_experts_per_tok": 2, "layer_types": ["mamba", "attention"]},
        "a mixture of 3 experts of a family whose experts are not supported",
    ),
    "phimoe": ("phimoe", MIXTURE, "a mixture of 3 experts of a family whose experts are not supported"),
    "hunyuan_v1_moe": (
        "hunyuan_v1_moe",
        MIXTURE | {"moe_topk": 2, "head_dim": 8},
        "a mixture of 3 experts of a family whose experts are not supported",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_in_one_sentence(name):
    kind, more, reason = REFUSED[name]
    config = tf.CONFIG_MAPPING[kind](**COMMON | {"num_hidden_layers": 2} | more)
    hf = tf.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    with pytest.raises(ValueError, match=reason):
        li.load_model((hf, numbers_tokenizer()))
    if path := os.environ.get("LASER_INTERP_SUPPORT"):
        with open(path, "a", encoding="utf-8") as out:
            out.write(f"{name}\t{type(hf).__name__}\t\t\trefused: {reason}\n")


def test_the_table_lists_what_is_tested():
    here = {type(plain_model(name)).__name__ for name in MODELS} - {"XLMRobertaForMaskedLM", "CamembertForMaskedLM"}
    assert here | {cls.__name__ for cls, *_ in TESTED_IN_FP64.values()} == {f.transformers_class for f in FAMILIES}


def test_a_site_is_asked_of_its_layer():
    model = li.load_model((plain_model("qwen3_5"), numbers_tokenizer()), self_check=False)
    assert model.matrices == (*ATTENTION, *GATED, "out_proj", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")
    assert model.sites[:4] == ("0.in", "0.gate", "0.out", "0.out_proj")
    assert [str(site) for site in li.laser(model, "*.o", rank=2).sites] == ["1.o", "3.o"]
    assert [str(site) for site in li.laser(model, "0-1.attn", rank=2).sites] == ["1.k", "1.o", "1.q", "1.v"]
    by_own_or_other_name = ["0.out_proj", "1.o", "2.out_proj", "3.o"]  # out_proj is another name of attention's o
    assert [str(site) for site in li.laser(model, "*.out_proj", rank=2).sites] == by_own_or_other_name
    assert [str(site) for site in li.laser(model, "1.o_proj", rank=2).sites] == ["1.o"]
    assert len(li.laser(model, "0.all", rank=2).sites) == 8
    with pytest.raises(ValueError, match=r"layer 0 of .* has no matrix o: expected one of in gate out out_proj"):
        li.laser(model, "0.o", rank=2)
    with pytest.raises(ValueError, match="has no matrix 'up'"):
        li.laser(model, "0.up", rank=2)


def test_parameters_that_are_numbered():
    model = li.load_model((plain_model("lfm2"), numbers_tokenizer()), self_check=False)
    for number, matrix in enumerate(("gate", "out", "in"), start=1):
        edit = li.laser(model, f"model.layers.1.feed_forward.w{number}.weight", rank=2)
        assert [str(site) for site in edit.sites] == [f"1.{matrix}"]
        assert stored_at(model, 1, matrix).name == f"model.layers.1.feed_forward.w{number}.weight"


@pytest.mark.slow
def test_a_study_of_a_hybrid(facts_of_numbers):
    """What a user does: search, score beside controls, attribution, the discarded part."""
    model = li.load_model((plain_model("qwen3_5"), numbers_tokenizer()), self_check=False)
    found = li.search(model, facts_of_numbers, rhos=[0.25], progress=False)
    assert "o: 2 of 4 layers have it" in found.notes
    assert set(found.cells["matrix"]) - {""} == set(model.matrices)
    edit = li.laser(model, "0.in_proj_qkv", rho=0.25)
    fast, reference = (
        li.score(model, facts_of_numbers, {"base": None, "edit": edit, "rest": edit.discarded()}, engine=engine)
        for engine in ("fast", "reference")
    )
    assert (
        fast["logprob"] - reference["logprob"]
    ).abs().max() < 1e-4  # the delta rule divides by the length of the keys
    few = facts_of_numbers.keep(facts_of_numbers.facts[:3])
    directions = li.attribute(model, few, ["0.in_proj_qkv", "1.o"], progress=False)
    for site in directions.sites:  # against finite differences
        ones = torch.ones(directions.gradients[site].shape[1])
        more, less = (ones.index_fill(0, torch.tensor([0]), 1 + step) for step in (0.01, -0.01))
        edits = {"more": li.gains(model, {site: more}), "less": li.gains(model, {site: less})}
        scores = li.score(model, few, edits, candidates=False)
        found = [scores[scores["edit"] == name]["logprob"].to_numpy() for name in edits]
        slopes = (found[0] - found[1]) / 0.02
        assert directions.gradients[site][:, 0] == pytest.approx(slopes, rel=0.02, abs=2e-3), site


@pytest.fixture
def facts_of_numbers():
    return li.load_facts(
        [
            {
                "subject": str(i),
                "relation": "r",
                "object": str(60 + i),
                "prompt": " ".join(str(22 + (7 * i + j) % 60) for j in range(3 + i % 4)),
            }
            for i in range(2, 14)
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["falcon_h1", "gemma", "qwen2_moe"])
def test_edits_at_positions(name, facts_of_numbers):
    """Falcon-H1 has a second mixer beside its attention; some mixtures give a shared expert all tokens in one row; and
    of two layers, the second is the last."""
    model = li.load_model((plain_model(name), numbers_tokenizer()), self_check=False)
    edits = {"base": None}
    edits |= {m: li.laser(model, f"1.{m}", rank=1).at(model, "last", facts_of_numbers) for m in model.matrices_of(1)}
    fast, reference = (
        li.score(model, facts_of_numbers, edits, engine=engine, progress=False)["logprob"]
        for engine in ("fast", "reference")
    )
    assert (fast - reference).abs().max() < 2e-5
    again = li.score(model, facts_of_numbers, {"base": None}, progress=False)["logprob"]
    assert (again.to_numpy() == fast[: len(again)].to_numpy()).all()


@pytest.mark.parametrize("name", ["qwen2_moe", "ernie4_5_moe"])
def test_a_shared_expert_is_attributed(name, facts_of_numbers):
    """Against finite differences."""
    model = li.load_model((plain_model(name), numbers_tokenizer()), self_check=False)
    few = facts_of_numbers.keep(facts_of_numbers.facts[:3])
    (gradients,) = li.attribute(model, few, ["1.in.shared"], progress=False).gradients.values()
    ones = torch.ones(gradients.shape[1])
    more, less = (ones.index_fill(0, torch.tensor([0]), 1 + step) for step in (0.01, -0.01))
    edits = {"more": li.gains(model, {"1.in.shared": more}), "less": li.gains(model, {"1.in.shared": less})}
    scores = li.score(model, few, edits, candidates=False, progress=False)
    found = [scores[scores["edit"] == edit]["logprob"].to_numpy() for edit in edits]
    assert gradients[:, 0] == pytest.approx((found[0] - found[1]) / 0.02, rel=0.02, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "site"), [("qwen3_5", "0.in_proj_qkv"), ("mixtral", "1.router"), ("qwen2_moe", "1.in.shared")]
)
def test_nested_edits_of_a_map_without_hooks(name, site):
    """Their gains multiply, as everywhere."""
    model = li.load_model((plain_model(name), numbers_tokenizer()), self_check=False)
    laser = li.laser(model, site, rank=2)
    (part,) = laser.parts.values()
    falling = torch.linspace(1, 0.2, len(part.gains))
    with laser.on(model), li.gains(model, {site: falling}).on(model):
        nested = model.next_token_logprobs("22 29 36")
    both = model.next_token_logprobs("22 29 36", li.gains(model, {site: falling * part.gains}))
    assert torch.allclose(nested, both, atol=1e-5)


@pytest.mark.slow
def test_a_study_where_layer_0_has_no_such_matrix(facts_of_numbers):
    """The control in layer 0 is left out, before anything runs."""
    model = li.load_model((plain_model("qwen3_5"), numbers_tokenizer()), self_check=False)
    few = {"matrices": ["v"], "layers": [1], "rhos": [0.25], "progress": False}
    found = li.search(model, facts_of_numbers, controls=["layer_0", "discarded"], method="grid", **few)
    assert "1.v: layer_0 is left out: that layer has no such matrix of this size" in found.notes
    study = li.study(model, facts_of_numbers, **few)
    assert "layer_0" not in set(study.tables["scores"]["edit"])
