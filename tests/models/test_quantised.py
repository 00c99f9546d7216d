"""Checkpoints in 8-bit floats with scales, against their weights dequantised here; other formats."""

import json

import pytest
import torch
import transformers as tf
from families import numbers_tokenizer
from safetensors.torch import load_file, save_file

import laser_interp as li
from laser_interp.models.packed_weights import awq, packed_integers, scaled

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


@pytest.mark.parametrize("method", ["gptq", "quanto", "bitsandbytes"])
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


# --- whole numbers in groups --------------------------------------------------------------------------


def in_words(rows, bits, order=None):
    """Whole numbers packed in words of 32 bits along each row, one at a time."""
    per = 32 // bits
    order = list(range(per)) if order is None else order
    words = [
        [sum(row[at + order[i]] << (bits * i) for i in range(per)) for at in range(0, len(row), per)] for row in rows
    ]
    return torch.tensor([[word - 2**32 if word >= 2**31 else word for word in row] for row in words], dtype=torch.int32)


def in_4_bits(weight, n_groups):
    """Codes and zeros as lists, scales, and the matrix that they stand for, one number at a time."""
    size = weight.shape[1] // n_groups
    codes, zeros, scales, means = [], [], [], torch.zeros(weight.shape)
    for row, values in enumerate(weight.tolist()):
        parts = [values[g * size : g * size + size] for g in range(n_groups)]
        lows, highs = [min(0.0, *part) for part in parts], [max(0.0, *part) for part in parts]
        of_row = [torch.tensor((high - low) / 15).half().item() for low, high in zip(lows, highs, strict=True)]
        zero = [round(-low / scale) for low, scale in zip(lows, of_row, strict=True)]
        code = [min(max(round(v / of_row[i // size]) + zero[i // size], 0), 15) for i, v in enumerate(values)]
        for i, c in enumerate(code):
            means[row, i] = torch.tensor(float(c - zero[i // size])) * torch.tensor(of_row[i // size])
        codes.append(code)
        zeros.append(zero)
        scales.append(of_row)
    return codes, zeros, torch.tensor(scales), means


def columns(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def as_awq(weight):
    codes, zeros, scales, means = in_4_bits(weight, weight.shape[1] // 16)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    packed = {"qweight": in_words(columns(codes), 4, order), "qzeros": in_words(columns(zeros), 4, order)}
    return packed | {"scales": scales.T.contiguous().half()}, means


def as_packed(weight):
    codes, zeros, scales, means = in_4_bits(weight, weight.shape[1] // 16)
    shape = torch.tensor(weight.shape)
    packed = {"weight_packed": in_words(codes, 4), "weight_shape": shape, "weight_scale": scales.half()}
    return packed | {"weight_zero_point": in_words(columns(zeros), 4).T.contiguous()}, means


def as_int8(weight):
    scale = (weight.abs().amax(1, keepdim=True) / 127).half()
    codes = (weight / scale.float()).round().to(torch.int8)
    extra = {"input_scale": torch.ones(1)}  # of activations, which are not rounded here
    return {"weight": codes, "weight_scale": scale} | extra, codes.float() * scale.float()


def said(form, bits, strategy):
    weights = {"num_bits": bits, "type": "int", "symmetric": False, "strategy": strategy, "group_size": 16}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    about = {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed"}
    return about | {"config_groups": groups, "ignore": ["lm_head"]}


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm", "zero_point": True}
FORMS = {
    "awq of 4 bits": (as_awq, AWQ),
    "compressed-tensors of 4 bits": (as_packed, said("pack-quantized", 4, "group")),
    "compressed-tensors of 8 bits": (as_int8, said("int-quantized", 8, "channel")),
}


def in_groups(folder, form, of=tf.LlamaForCausalLM, **more):
    """A folder with a small model stored so, and the model of the weights that it stands for."""
    store, quantisation = FORMS[form]
    config = of.config_class(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, intermediate_size=48,
        vocab_size=96, max_position_embeddings=64, tie_word_embeddings=False, **more,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        of(config).save_pretrained(folder)
    numbers_tokenizer().save_pretrained(folder)
    tensors, plain = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if weight.ndim == 2 and ("proj" in name or "experts" in name):
            parts, plain[name] = store(weight)
            tensors |= {f"{name.removesuffix('weight')}{part}": value.contiguous() for part, value in parts.items()}
        else:
            tensors[name] = plain[name] = weight
    meant = folder.with_name(f"{folder.name}-plain")
    tf.AutoConfig.from_pretrained(folder).save_pretrained(meant)
    save_file(plain, meant / "model.safetensors", metadata={"format": "pt"})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    says(folder, quantisation)
    return of.from_pretrained(meant, dtype=torch.float32).eval()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_whole_numbers_in_groups_are_dequantised(tmp_path, form):
    hf = in_groups(tmp_path / "model", form)
    model = li.load_model(tmp_path / "model", dtype="float32")
    assert model.quantisation == form
    for layer in range(2):
        for name, matrix in {"down_proj": "out", "gate_proj": "gate", "up_proj": "in"}.items():
            assert torch.equal(model.weight(layer, matrix), getattr(hf.model.layers[layer].mlp, name).weight.T), matrix
        assert torch.equal(model.weight(layer, "q"), hf.model.layers[layer].self_attn.q_proj.weight.T)
    with torch.no_grad():
        expected = hf(torch.tensor([[22, 33, 44]])).logits[0, -1].log_softmax(-1)
    assert (model.next_token_logprobs("22 33 44")[0] - expected).abs().max() < 1e-5
    exported = li.export_dense(model, li.laser(model, "1.in", rank=2), tmp_path / "exported")
    assert li.load_model(exported).quantisation is None
    assert li.load_model(tmp_path / "model", dtype="bfloat16").dtype == torch.bfloat16


def test_experts_in_whole_numbers(tmp_path):
    hf = in_groups(
        tmp_path / "model", "awq of 4 bits", tf.MixtralForCausalLM, num_local_experts=2, num_experts_per_tok=1
    )
    model = li.load_model(tmp_path / "model", dtype="float32")
    assert torch.equal(model.weight(1, "out.e1"), hf.model.layers[1].mlp.experts.down_proj[1].T)


def test_an_independent_library_agrees():
    """compressed-tensors' own decompression, by group, channel and tensor, of several numbers of bits."""
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="compressed-tensors is not installed")
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    for form, bits, kind, strategy, symmetric in (
        ("pack-quantized", 4, "int", "group", True), ("pack-quantized", 4, "int", "group", False),
        ("pack-quantized", 8, "int", "channel", False), ("int-quantized", 8, "int", "channel", True),
        ("int-quantized", 8, "int", "tensor", True), ("float-quantized", 8, "float", "channel", True),
    ):  # fmt: skip
        size = 16 if strategy == "group" else None
        args = QuantizationArgs(num_bits=bits, type=kind, symmetric=symmetric, strategy=strategy, group_size=size)
        parts = {"group": weight.unflatten(1, (-1, 16)), "channel": weight.unsqueeze(1), "tensor": weight[None, None]}
        of = parts[strategy].flatten(2)
        scale, zero = calculate_qparams(of.amin(-1), of.amax(-1), args)
        scale, zero = (x.reshape(-1) if strategy == "tensor" else x for x in (scale, zero))
        given = {"weight": weight, "weight_scale": scale} | ({} if symmetric else {"weight_zero_point": zero})
        scheme = QuantizationScheme(targets=["Linear"], weights=args, format=form)
        compressor = compressors.BaseCompressor.get_value_from_registry(form)
        stored = compressor.compress(dict(given), scheme)
        theirs = compressor.decompress(dict(stored), scheme)["weight"]
        ours = (packed_integers if "weight_packed" in stored else scaled)(
            **{name: value for name, value in stored.items() if name.startswith("weight")}
        )
        assert torch.equal(ours, theirs.float()), (form, bits, strategy, symmetric)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"version": "gemv"}, "AWQ gemv of 4 bits"),
        ({"bits": 3}, "AWQ gemm of 3 bits"),
        ({"zero_point": False}, "zeros False"),
        (said("pack-quantized", 3, "group"), "pack-quantized of 3-bit int by group"),
        (said("nvfp4-pack-quantized", 4, "group"), "nvfp4-pack-quantized"),
        (said("pack-quantized", 4, "group") | {"sparsity_config": {"format": "sparse-24"}}, "sparse weights"),
        (said("pack-quantized", 4, "group") | {"transform_config": {"a": 1}}, "rotated weights"),
        (said("pack-quantized", 4, "group") | {"quantization_status": "initialized"}, "status initialized"),
    ],
)
def test_what_is_stored_otherwise_is_refused(stored, change, expected):
    folder, _ = stored
    says(folder, change if "quant_method" in change else AWQ | change)
    with pytest.raises(ValueError, match=rf"is stored as .*{expected}"):
        li.load_model(folder)


def test_lost_parts_of_whole_numbers_are_refused(tmp_path):
    in_groups(tmp_path / "model", "awq of 4 bits")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.down_proj.scales"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"down_proj\.\w+ of .* is stored without all of its scales"):
        li.load_model(tmp_path / "model")
    words = torch.zeros(4, 3, dtype=torch.int32)
    with pytest.raises(ValueError, match="do not hold 4 x 99 numbers"):
        packed_integers(words, torch.ones(4, 1), torch.tensor([4, 99]))
    with pytest.raises(ValueError, match="expected AWQ's gemm format"):
        awq(words, words, torch.ones(4, 3))
    with pytest.raises(ValueError, match="scales do not fit"):
        scaled(torch.zeros(4, 4, dtype=torch.int8), torch.ones(3, 1))
