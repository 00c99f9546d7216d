"""Every load compares the wrapped model with itself before it was wrapped; what differs, or cannot run, is refused."""

import copy
import json
import shutil

import pytest
import torch
import transformers as tf
from families import _BERT_LIKE, _COMMON, _LLAMA_LIKE, HEADS, INNER, LAYERS, D, build, make, words_tokenizer
from safetensors.torch import load_file, save_file

import laser_interp as li
from laser_interp.models import loading
from laser_interp.models.forward import logits_at, may_run_together

GPT2 = _COMMON | {"n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_inner": INNER, "n_positions": 64}
FALCON = _COMMON | {"hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
NEOX = _COMMON | {
    "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER,
    "max_position_embeddings": 64,
}  # fmt: skip
OPT = _COMMON | {
    "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "ffn_dim": INNER,
    "max_position_embeddings": 64, "word_embed_proj_dim": D, "dropout": 0.0,
}  # fmt: skip
GEMMA3 = _LLAMA_LIKE | {"num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4,
    "original_max_position_embeddings": 7, "factor": 4.0,
}  # fmt: skip

# name -> (class, config, options, what a refusal says; None: exact)
OPTIONS = {
    "gpt2 scale_attn_weights": (tf.GPT2LMHeadModel, tf.GPT2Config, GPT2 | {"scale_attn_weights": False}, "nats"),
    "gpt2 inverse_layer_idx": (
        tf.GPT2LMHeadModel, tf.GPT2Config, GPT2 | {"scale_attn_by_inverse_layer_idx": True}, None,
    ),
    "gpt2 reorder_and_upcast": (tf.GPT2LMHeadModel, tf.GPT2Config, GPT2 | {"reorder_and_upcast_attn": True}, None),
    "gpt2 cross attention": (tf.GPT2LMHeadModel, tf.GPT2Config, GPT2 | {"add_cross_attention": True}, "cannot"),
    "gpt2 relu": (tf.GPT2LMHeadModel, tf.GPT2Config, GPT2 | {"activation_function": "relu"}, None),
    "neox no bias": (tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig, NEOX | {"attention_bias": False}, "does not support"),
    "neox sequential": (tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig, NEOX | {"use_parallel_residual": False}, None),
    "phi query norms": (tf.PhiForCausalLM, tf.PhiConfig, _LLAMA_LIKE | {"qk_layernorm": True}, "does not support"),
    "bigcode many heads": (
        tf.GPTBigCodeForCausalLM, tf.GPTBigCodeConfig, GPT2 | {"multi_query": False}, "only supports multi_query",
    ),
    "opt norm after": (tf.OPTForCausalLM, tf.OPTConfig, OPT | {"do_layer_norm_before": False}, "cannot be used"),
    "opt no final norm": (tf.OPTForCausalLM, tf.OPTConfig, OPT | {"_remove_final_layer_norm": True}, "cannot be used"),
    "opt 350m": (
        tf.OPTForCausalLM, tf.OPTConfig, OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 16}, None,
    ),
    "falcon new decoder": (
        tf.FalconForCausalLM, tf.FalconConfig,
        FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}, "does not support",
    ),
    "falcon alibi": (
        tf.FalconForCausalLM, tf.FalconConfig,
        FALCON | {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}, None,
    ),
    "gemma3 both directions": (
        tf.Gemma3ForCausalLM, tf.Gemma3TextConfig, GEMMA3 | {"use_bidirectional_attention": True}, "no causal model",
    ),
    "gemma3 capped attention": (
        tf.Gemma3ForCausalLM, tf.Gemma3TextConfig, GEMMA3 | {"attn_logit_softcapping": 1.0}, "nats",
    ),
    "llama biases": (
        tf.LlamaForCausalLM, tf.LlamaConfig, _LLAMA_LIKE | {"attention_bias": True, "mlp_bias": True}, None,
    ),
    "llama no pad": (tf.LlamaForCausalLM, tf.LlamaConfig, _LLAMA_LIKE | {"pad_token_id": None}, None),
    "llama longrope": (tf.LlamaForCausalLM, tf.LlamaConfig, _LLAMA_LIKE | {"rope_parameters": LONGROPE}, None),
    "bert decoder": (tf.BertForMaskedLM, tf.BertConfig, _BERT_LIKE | {"hidden_act": "relu"}, None),
}  # fmt: skip
ROWS = [[5, 9, 17], [33, 60, 4, 8], [5, 9, 17, 33, 60, 4, 8, 22], [90, 91, 92, 93, 94, 95, 2, 50, 51, 52]]


def random_model(cls, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = cls._from_config(config).eval()
        for parameter in hf.parameters():
            parameter.data += (0.2 if parameter.ndim > 1 else 0.3) * torch.randn_like(parameter)
    return hf


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not in the table")
@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_a_config_are_exact_or_refused(name):
    cls, make_config, options, refusal = OPTIONS[name]
    hf = random_model(cls, make_config(**options))
    if refusal is not None:
        with pytest.raises(ValueError, match=refusal) as error:
            li.load_model((hf, words_tokenizer()), device="cpu")
        assert len(str(error.value)) < 600
        return
    plain = copy.deepcopy(hf)
    if getattr(hf.config, "alibi", False):
        plain = cls._from_config(make_config(**options), attn_implementation="eager").eval()  # the one that is used
        plain.load_state_dict(hf.state_dict())
    tokenizer = words_tokenizer(masked=cls is tf.BertForMaskedLM)
    model = li.load_model((hf, tokenizer), device="cpu")
    with torch.no_grad():
        expected = torch.stack([plain(torch.tensor([row])).logits[0, -1].log_softmax(-1) for row in ROWS])
    found = torch.empty_like(expected)
    for indices, logits in logits_at(model, ROWS, [(i, len(row) - 1) for i, row in enumerate(ROWS)]):
        found[indices] = logits.log_softmax(-1)
    assert (found - expected).abs().max() < 2e-5
    (answer,) = tokenizer.convert_ids_to_tokens([12])
    prompts = [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in ROWS]
    facts = li.load_facts([("s", "r", answer, prompt) for prompt in prompts])
    if not model.masked:
        scored = li.score(model, facts, {"x": None}, candidates=False, progress=False)["logprob"].to_numpy()
        assert abs(scored - expected[:, 12].numpy()).max() < 2e-5


def test_rows_on_both_sides_of_longrope_run_apart():
    hf = random_model(tf.LlamaForCausalLM, tf.LlamaConfig(**_LLAMA_LIKE | {"rope_parameters": LONGROPE}))
    model = li.load_model((hf, words_tokenizer()), device="cpu")
    assert may_run_together(model, 3, 7)
    assert may_run_together(model, 8, 9)
    assert not may_run_together(model, 7, 8)


def test_a_wrapper_that_computes_something_else_is_refused_and_may_be_trusted_by_name(monkeypatch):
    build_bridge = loading.build_bridge

    def wrong(hf):
        bridge = build_bridge(hf)
        bridge.blocks[1].mlp.out.original_component.weight.data *= 1.01
        return bridge

    monkeypatch.setattr(loading, "build_bridge", wrong)
    with pytest.raises(ValueError, match=r"run alone, it differs from what transformers computes \(by .* nats\)"):
        li.load_model((make("llama"), words_tokenizer()), device="cpu")
    assert li.load_model((make("llama"), words_tokenizer()), device="cpu", self_check=False).n_layers == LAYERS


def test_a_batch_that_differs_is_refused(monkeypatch):
    from laser_interp.models import forward

    monkeypatch.setattr(forward, "takes_mask", lambda model: False)  # as a bridge that forgets the mask
    padded = forward.padded

    def on_the_left(model, rows, padding="right"):
        return padded(model, rows, "left")

    monkeypatch.setattr(forward, "padded", on_the_left)
    with pytest.raises(ValueError, match="in a batch, it differs"):
        li.load_model((make("llama"), words_tokenizer()), device="cpu")


# --- what stands in a folder -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama") / "model"
    make("llama").save_pretrained(folder)
    words_tokenizer().save_pretrained(folder)
    return folder


def spoiled(folder, tmp_path, change):
    out = tmp_path / "spoiled"
    shutil.copytree(folder, out)
    stored = load_file(out / "model.safetensors")
    save_file(change(stored) or stored, out / "model.safetensors", {"format": "pt"})
    return out


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool])
def test_whole_numbers_are_no_weights(folder, tmp_path, dtype):
    def change(stored):
        for name, value in stored.items():
            if "mlp" in name:
                stored[name] = (value * 100).to(dtype)

    with pytest.raises(ValueError, match=r"weights of .* are stored as .*: they are quantised"):
        li.load_model(spoiled(folder, tmp_path, change), device="cpu")


def test_numbers_of_positions_are_no_weights(tmp_path):
    """Older checkpoints of BERT, RoBERTa and GPT-1 hold them, such as roberta-base."""
    make("roberta").save_pretrained(tmp_path / "model")
    words_tokenizer(masked=True).save_pretrained(tmp_path / "model")

    def change(stored):
        for name in ("roberta.embeddings.position_ids", "roberta.embeddings.token_type_ids", "position_ids"):
            stored[name] = torch.arange(64)[None]

    assert li.load_model(spoiled(tmp_path / "model", tmp_path, change), device="cpu").quantisation is None


def test_eight_bit_floats_are_named_in_every_table(folder, tmp_path):
    def change(stored):
        name = "model.layers.1.mlp.up_proj.weight"
        stored[name] = stored[name].to(torch.float8_e4m3fn)

    with pytest.warns(UserWarning, match="stored as F8_E4M3 without a scale"):
        model = li.load_model(spoiled(folder, tmp_path, change), device="cpu")
    assert model.quantisation == "F8_E4M3"


@pytest.mark.parametrize("with_model", [True, False])
def test_an_adapter_in_the_folder_is_refused(folder, tmp_path, with_model):
    out = tmp_path / "adapted"
    if with_model:
        shutil.copytree(folder, out)
    out.mkdir(exist_ok=True)
    (out / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ValueError, match=r"holds a LoRA adapter .* merge it by merge_and_unload"):
        li.load_model(out, device="cpu")


# --- what is in memory -----------------------------------------------------------------------------


def with_adapter(hf):
    import peft

    return peft.get_peft_model(hf, peft.LoraConfig(r=2, target_modules=["up_proj"]))


def quantised(hf):
    return torch.ao.quantization.quantize_dynamic(hf, {torch.nn.Linear}, dtype=torch.qint8)


def hooked(hf):
    hf.model.layers[1].mlp.up_proj.register_forward_hook(lambda module, args, output: output * 2)
    return hf


def tied(hf):
    attention = hf.model.layers[1].self_attn
    attention.v_proj.weight = attention.k_proj.weight
    return hf


def integers(hf):
    weight = hf.model.layers[1].mlp.up_proj.weight
    hf.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)
    return hf


def normed(hf):
    torch.nn.utils.parametrizations.weight_norm(hf.model.layers[1].mlp.up_proj)
    return hf


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (with_adapter, "model with an adapter of peft: merge it first"),
        (lambda hf: with_adapter(hf).get_base_model(), "has an adapter"),
        (quantised, "quantised or parametrised weight"),
        (normed, "quantised or parametrised weight"),
        (hooked, "has a forward hook of torch"),
        (tied, "are one tensor in memory"),
        (integers, "is torch.int8: quantised weights"),
        (lambda hf: torch.nn.DataParallel(hf), "DataParallel, not a language model"),
        (lambda hf: torch.nn.Sequential(torch.nn.Linear(2, 2)), "Sequential, not a language model"),
    ],
)
def test_what_is_not_exactly_a_linear_map_is_refused(spoil, says):
    with pytest.raises(ValueError, match=says):
        li.load_model((spoil(make("llama")), words_tokenizer()), device="cpu")


def test_a_merged_adapter_is_a_model():
    assert li.load_model((with_adapter(make("llama")).merge_and_unload(), words_tokenizer()), device="cpu")


def test_a_hook_of_torch_that_comes_later_is_noticed_by_the_edit():
    model = build("llama")
    edit = li.laser(model, "1.in", rank=3)
    handle = model.bridge.blocks[1].mlp.get_submodule("in").original_component.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="1.in of .* has a forward hook of torch"):
        edit.check(model)
    handle.remove()
    edit.check(model)


def test_a_padding_of_minus_one_and_tuples_for_outputs_are_natural():
    hf = make("llama")
    hf.config.pad_token_id, hf.config.return_dict = -1, False
    model = li.load_model((hf, words_tokenizer()), device="cpu")
    facts = li.load_facts([("s", "r", "waa", "wab wac"), ("s", "r", "waa", "wab wac wad wae")])
    assert li.score(model, facts, li.laser(model, "1.in", rank=3), progress=False)["logprob"].notna().all()


def test_the_tokenizer_and_the_model_are_not_exchanged():
    with pytest.raises(ValueError, match="the tokenizer is given before the model"):
        li.load_model((words_tokenizer(), make("llama")))
