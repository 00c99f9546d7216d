"""Language models inside checkpoints for text and images, against what the whole model computes from text."""

import pytest
import torch
import transformers as tf
from families import HEADS, INNER, LAYERS, VOCAB, D, numbers_tokenizer

import laser_interp as li
from laser_interp.models.text_towers import left_out, text_config

TEXT = {
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": D // HEADS,
    "intermediate_size": INNER,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
SEES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
}
QWEN_SEES = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": D}
M_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
# Kind of checkpoint -> what its text and its vision config have beside these
KINDS = {
    "gemma3": ({"query_pre_attn_scalar": 8, "sliding_window": 4}, SEES),
    "gemma4": ({"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "global_head_dim": D // HEADS}, SEES),
    "mistral3": ({}, SEES),
    "qwen2_vl": (M_ROPE, QWEN_SEES),
    "qwen2_5_vl": (M_ROPE, QWEN_SEES | {"fullatt_block_indexes": [0]}),
    "qwen3_vl": (M_ROPE, QWEN_SEES | {"deepstack_visual_indexes": [0]}),
    "qwen3_5": ({"layer_types": ["full_attention"] * LAYERS}, QWEN_SEES),
    "llava": ({}, SEES),
    "smolvlm": ({}, SEES),
}
PROMPTS = ["5 9 17", "7 33 60 22 50 4"]


def whole_model(kind: str):
    """A random model for text and images."""
    of_text, of_vision = KINDS[kind]
    config_class = tf.CONFIG_MAPPING[kind]
    whole = config_class()
    vision = tf.Gemma4VisionConfig if kind == "gemma4" else type(whole.vision_config)
    config = config_class(
        text_config=type(whole.text_config)(**TEXT | of_text).to_dict(),
        vision_config=vision(**of_vision).to_dict(),
        tie_word_embeddings=False,
        pad_token_id=0,
        image_token_id=VOCAB - 1,
    )
    torch.manual_seed(0)
    model = tf.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)](config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.2) if parameter.ndim > 1 else None
    return model


def from_text(whole, ids) -> torch.Tensor:
    with torch.no_grad():
        return whole(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_tower_computes_what_the_whole_model_does(kind, tmp_path):
    whole, words = whole_model(kind), numbers_tokenizer()
    expected = torch.stack([from_text(whole, words(prompt)["input_ids"]) for prompt in PROMPTS])
    whole.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    for source in ((whole, words), tmp_path):
        model = li.load_model(source, tokenizer=words)  # transformers has its own for some kinds
        assert (model.next_token_logprobs(PROMPTS) - expected).abs().max() < 1e-5
        assert model.left_out
        assert all(any(part in name for part in ("vis", "multi_modal", "connector")) for name in model.left_out)
        edit = li.laser(model, "1.out", rank=3)
        matrix = next(p for n, p in whole.named_parameters() if n.endswith("1.mlp.down_proj.weight"))
        as_trained = matrix.detach().clone()
        U, S, Vh = torch.linalg.svd(as_trained.double(), full_matrices=False)
        matrix.data = ((U[:, :3] * S[:3]) @ Vh[:3]).float()
        edited = torch.stack([from_text(whole, words(prompt)["input_ids"]) for prompt in PROMPTS])
        matrix.data = as_trained
        assert (model.next_token_logprobs(PROMPTS, edit) - edited).abs().max() < 1e-5


def test_what_is_missing_in_a_tower_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    whole_model("llava").save_pretrained(tmp_path)
    numbers_tokenizer().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    stored = load_file(path)
    lost = next(name for name in stored if name.endswith("1.mlp.down_proj.weight"))
    stored["language_model.model.layers.1.mlp.other.weight"] = stored.pop(lost)
    save_file(stored, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing .* 1 weights belong to no part"):
        li.load_model(tmp_path)


def test_a_language_model_has_no_tower():
    config = tf.LlamaConfig(num_hidden_layers=1)
    assert text_config(config, "llama") is None
    assert left_out(["lm_head.weight", "model.layers.0.a", "model.visual.b", "vision_tower.c"]) == [
        "model.visual.b",
        "vision_tower.c",
    ]


def test_logits_that_only_the_language_model_scales_are_refused():
    config = tf.LlavaConfig(text_config=tf.CohereConfig(logit_scale=0.25).to_dict(), vision_config=SEES)
    with pytest.raises(ValueError, match="changes its logits by logit_scale"):
        text_config(config, "some")


def test_a_kind_without_a_class_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"'some' is a glm4v model for text and images, and transformers has no class"):
        text_config(tf.CONFIG_MAPPING["glm4v"](), "some")
