"""Checkpoints in 8-bit floats with scales, against their weights dequantised here; other formats."""

import json

import pytest
import torch
import transformers as tf
from families import numbers_tokenizer
from safetensors.torch import load_file, save_file

import laser_interp as li

BLOCK = 32


def in_fp8(weight):
    """A matrix as 8-bit floats, the scale of each block, and the matrix that they stand for."""
    rows, columns = (-(-n // BLOCK) for n in weight.shape)
    padded = torch.zeros(rows * BLOCK, columns * BLOCK)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    blocks = padded.view(rows, BLOCK, columns, BLOCK)
    scales = (blocks.abs().amax((1, 3), keepdim=True) / 448).clamp_min(1e-12)
    stored = (blocks / scales).to(torch.float8_e4m3fn)

    def whole(x):
        return x.reshape(padded.shape)[: weight.shape[0], : weight.shape[1]].contiguous()

    return whole(stored.float()).to(torch.float8_e4m3fn), scales.view(rows, columns), whole(stored.float() * scales)


@pytest.fixture
def stored(tmp_path):
    return saved(tmp_path, 160)


def saved(tmp_path, inner):
    """A folder with a model in fp8, and the model of the weights that it stands for."""
    config = tf.LlamaConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=inner,
        vocab_size=96, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = tf.LlamaForCausalLM(config).eval()
    hf.save_pretrained(tmp_path)
    numbers_tokenizer().save_pretrained(tmp_path)
    tensors, parameters = {}, dict(hf.named_parameters())
    for name, weight in load_file(tmp_path / "model.safetensors").items():
        tensors[name] = weight
        if "proj" in name:
            tensors[name], tensors[f"{name}_scale_inv"], parameters[name].data = in_fp8(weight)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    says(tmp_path, {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"})
    return tmp_path, hf


def says(folder, quantisation):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantisation}))


def test_fp8_is_dequantised(stored):
    folder, hf = stored
    model = li.load_model(folder, dtype="float32")
    assert model.quantisation == "fp8 in blocks of 32 x 32"
    assert "dequantised from fp8 in blocks of 32 x 32" in repr(model)
    for name, matrix in {"down_proj": "out", "gate_proj": "gate", "up_proj": "in"}.items():
        assert torch.equal(model.weight(1, matrix), getattr(hf.model.layers[1].mlp, name).weight.T), matrix
    with torch.no_grad():
        expected = hf(torch.tensor([[22, 33, 44]])).logits[0, -1].log_softmax(-1)
    assert (model.next_token_logprobs("22 33 44")[0] - expected).abs().max() < 1e-5
    assert li.load_model(folder, dtype="bfloat16").dtype == torch.bfloat16


def test_a_lost_scale_is_refused(stored):
    folder, _ = stored
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight_scale_inv"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="scale"):
        li.load_model(folder, dtype="float32")


@pytest.mark.parametrize("inner", [48, 100, 176])
def test_sides_that_are_no_multiple_of_the_block_are_refused(tmp_path, inner):
    """transformers takes as many equal blocks as there are scales, and gives other weights without a word."""
    folder, _ = saved(tmp_path, inner)
    with pytest.raises(ValueError, match="expected sides that are multiples of the blocks"):
        li.load_model(folder, dtype="float32")


def test_a_torch_file_in_fp8_is_refused(stored):
    folder, _ = stored
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="which is read from safetensors files only"):
        li.load_model(folder, dtype="float32")


@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors", "bitsandbytes"])
def test_other_formats_are_refused_by_name(stored, method):
    folder, _ = stored
    says(folder, {"quant_method": method, "bits": 4, "group_size": 32})
    with pytest.raises(ValueError, match=rf"is quantised \({method}\): .* or a checkpoint in fp8"):
        li.load_model(folder)


FP4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def mixture_in_mxfp4(folder):
    """A folder with a model like gpt-oss, and the model of the weights that its 4-bit numbers stand for."""
    config = tf.GptOssConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=32,
        vocab_size=96, max_position_embeddings=64, num_local_experts=3, num_experts_per_tok=2, head_dim=16,
        layer_types=["sliding_attention", "full_attention"], sliding_window=8, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = tf.GptOssForCausalLM(config).eval()
        hf.save_pretrained(folder)
        tensors = load_file(folder / "model.safetensors")
        for name, parameter in hf.named_parameters():
            if not name.endswith(("gate_up_proj", "down_proj")):
                continue
            n, d_in, d_out = parameter.shape
            packed = torch.randint(0, 256, (n, d_out, d_in // 32, 16), dtype=torch.uint8)
            scales = torch.randint(118, 124, (n, d_out, d_in // 32), dtype=torch.uint8)
            nibbles = torch.stack([packed & 15, packed >> 4], -1).flatten(-2).long()
            numbers = torch.tensor(FP4 + [-x for x in FP4])[nibbles] * 2.0 ** (scales.float()[..., None] - 127)
            parameter.data = numbers.flatten(-2).transpose(1, 2).contiguous()
            del tensors[name]
            tensors |= {f"{name}_blocks": packed, f"{name}_scales": scales}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    numbers_tokenizer().save_pretrained(folder)
    says(folder, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]})
    return hf


def test_mxfp4_is_dequantised(tmp_path):
    hf = mixture_in_mxfp4(tmp_path)
    model = li.load_model(tmp_path, dtype="float32")
    assert model.quantisation == "MXFP4"
    experts = hf.model.layers[1].mlp.experts
    assert torch.equal(model.weight(1, "out.e2"), experts.down_proj[2])
    assert torch.equal(model.weight(1, "gate.e0"), experts.gate_up_proj[0][:, ::2])
    assert torch.equal(model.weight(1, "in.e0"), experts.gate_up_proj[0][:, 1::2])
    with torch.no_grad():
        expected = hf(torch.tensor([[22, 33, 44]])).logits[0, -1].log_softmax(-1)
    assert (model.next_token_logprobs("22 33 44")[0] - expected).abs().max() < 1e-5
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.experts.down_proj_scales"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="down_proj_blocks of .* is stored in 4 bits without all of its scales"):
        li.load_model(tmp_path)
