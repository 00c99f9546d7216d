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


@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors", "mxfp4", "bitsandbytes"])
def test_other_formats_are_refused_by_name(stored, method):
    folder, _ = stored
    says(folder, {"quant_method": method, "bits": 4, "group_size": 32})
    with pytest.raises(ValueError, match=rf"is quantised \({method}\): .* or a checkpoint in fp8"):
        li.load_model(folder)
