"""GGUF files: read as transformers reads them, named in every result, refused in a sentence where they cannot be."""

import hashlib
import itertools
import shutil
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest
import tokenizers
import torch
import transformers

import laser_interp as li
from laser_interp.models import loading
from laser_interp.models.gguf_files import find_gguf, read_gguf
from laser_interp.models.named_models import NAMED_MODELS, NamedModel, packaged_file
from laser_interp.storage.provenance import provenance

gguf = pytest.importorskip("gguf", reason="needs the extra gguf")
D, INNER, LAYERS, HEADS = 32, 64, 2, 4


def write_gguf(path, *, split=None, tensors=True):
    """A small random Llama, its matrices in Q8_0, with a byte-level tokenizer."""
    writer = gguf.GGUFWriter(path, "llama")
    if split is not None:
        writer.add_uint16("split.count", split)
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(D // HEADS)
    writer.add_rope_freq_base(10000.0)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", *letters, "Ġa", "th", "Ġth", "Ġthe"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["Ġ a", "t h", "Ġ th", "Ġth e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    rng = np.random.default_rng(0)

    def add(name, *shape):
        values = rng.normal(0, 0.1, shape).astype(np.float32)
        if len(shape) == 1:
            return writer.add_tensor(name, 1 + values)
        packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        return writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    if tensors:
        add("token_embd.weight", len(tokens), D)
        add("output_norm.weight", D)
        for n in range(LAYERS):
            for name in ("attn_norm", "ffn_norm"):
                add(f"blk.{n}.{name}.weight", D)
            for name, d_out in (("attn_q", D), ("attn_k", D // 2), ("attn_v", D // 2), ("attn_output", D)):
                add(f"blk.{n}.{name}.weight", d_out, D)
            for name in ("ffn_gate", "ffn_up"):
                add(f"blk.{n}.{name}.weight", INNER, D)
            add(f"blk.{n}.ffn_down.weight", D, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.Q8_0.gguf")


@pytest.mark.slow
def test_it_is_read_as_transformers_reads_it(path, tmp_path):
    model = li.load_model(path, device="cpu")
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    ids = torch.tensor([model.encode("the hat")])
    with torch.no_grad():
        expected = plain(ids).logits[0, -1].log_softmax(-1)
    assert torch.allclose(model.next_token_logprobs("the hat")[0], expected, atol=1e-5)
    assert model.quantisation == "Q8_0 F32"
    assert model.name == "small.Q8_0"
    assert model.dtype == torch.float32
    assert "dequantised from Q8_0 F32" in repr(model)
    assert provenance(model)["quantisation"] == "Q8_0 F32"
    assert li.load_model(path.parent, device="cpu").weights_sha256 == model.weights_sha256
    assert li.load_model(path, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    # Saved, it is a checkpoint like any other
    again = li.load_model(model.save_checkpoint(tmp_path / "saved"), device="cpu")
    assert torch.allclose(again.next_token_logprobs("the hat"), model.next_token_logprobs("the hat"), atol=1e-5)


def test_an_edit_of_it_is_the_edited_weight(path):
    model = li.load_model(path, device="cpu")
    edit = li.laser(model, "1.in", rank=5)
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    weight = plain.model.layers[1].mlp.up_proj.weight
    U, S, Vh = torch.linalg.svd(weight.detach().double())
    with torch.no_grad():
        weight.copy_((U[:, :5] * S[:5]) @ Vh[:5])
        expected = plain(torch.tensor([model.encode("the hat")])).logits[0, -1].log_softmax(-1)
    assert torch.allclose(model.next_token_logprobs("the hat", edit)[0], expected, atol=1e-4)


def test_what_cannot_be_read(path, tmp_path, monkeypatch):
    def refused(says, source):
        with pytest.raises((ValueError, ModuleNotFoundError), match=says):
            li.load_model(source, device="cpu")

    whole = path.read_bytes()
    cut, other = tmp_path / "cut.gguf", tmp_path / "other.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    refused("is broken", cut)
    other.write_bytes(b"hello there")
    refused("does not begin with GGUF", other)
    refused("holds 2 GGUF files", tmp_path)
    parts, empty = tmp_path / "a", tmp_path / "b"
    for folder in (parts, empty):
        folder.mkdir()
    refused("is one of 3 parts", write_gguf(parts / "m-00001-of-00003.gguf", split=3))
    refused("holds no weights", write_gguf(empty / "vocabulary.gguf", tensors=False))
    with monkeypatch.context() as patched:
        patched.setattr("laser_interp.extras.find_spec", lambda name: None)
        refused(r"pip install 'laser-interp\[gguf\]'", path)


def test_beside_other_weights_it_is_not_taken(path, tmp_path):
    shutil.copy(path, tmp_path / "m.gguf")
    assert find_gguf(tmp_path) == tmp_path / "m.gguf"
    (tmp_path / "model.safetensors").touch()
    assert find_gguf(tmp_path) is None
    assert find_gguf(tmp_path / "m.gguf") == tmp_path / "m.gguf"


def test_names(path, monkeypatch):
    nowhere = NamedModel(("no-such-package",), "", "nobody/nothing", "pip install it", "")
    assert packaged_file(nowhere) is None
    monkeypatch.setitem(NAMED_MODELS, "nowhere", nowhere)
    with pytest.raises(
        FileNotFoundError, match="neither installed nor on a hub that can be reached .*: pip install it"
    ):
        li.load_model("nowhere")
    monkeypatch.setattr(loading, "packaged_file", lambda named: path)
    assert li.load_model("smollm2", device="cpu").quantisation == "Q8_0 F32"


def test_a_file_in_parts_is_joined_once_and_checked(path, monkeypatch, tmp_path):
    """Each package carries a part; a part that is missing, or one that was changed, is noticed."""
    from laser_interp.models import named_models

    whole = path.read_bytes()
    cuts = [0, 1000, len(whole) // 2, len(whole)]
    parts = {f"part{i}": tmp_path / f"some-model.gguf.part0{i}" for i in range(3)}
    for (start, stop), part in zip(itertools.pairwise(cuts), parts.values(), strict=True):
        part.write_bytes(whole[start:stop])
    monkeypatch.setattr(named_models, "_file_of", lambda package: parts.get(package))
    monkeypatch.setenv("LASER_INTERP_CACHE", str(tmp_path / "cache"))
    named = NamedModel(tuple(parts), hashlib.sha256(whole).hexdigest(), "nobody/nothing", "", "")
    joined = packaged_file(named)
    assert joined.name == "some-model.gguf"
    assert joined.read_bytes() == whole
    written = joined.stat().st_mtime_ns
    assert packaged_file(named).stat().st_mtime_ns == written
    assert packaged_file(replace(named, packages=(*parts, "part3"))) is None
    joined.write_bytes(whole[:-1] + b"?")  # damaged in the cache
    with pytest.raises(ValueError, match="is not the file that part0 is known to carry"):
        packaged_file(named)
    assert packaged_file(named).read_bytes() == whole


@pytest.mark.slow
def test_the_real_one():
    real = packaged_file(NAMED_MODELS["smollm2"])
    if real is None:
        pytest.skip(f"needs the model: {NAMED_MODELS['smollm2'].install}")
    hf_model, tokenizer, quantisation = read_gguf(real, "auto")
    assert quantisation.startswith("Q4_1")
    model = li.load_model((hf_model, tokenizer), copy_object=False)
    assert model.generate("The capital of France is", 1).strip() == "Paris"


@pytest.mark.slow
@pytest.mark.real_model
def test_gemma_from_its_packages():
    """Four packages carry its parts; an edit of three sites equals edited weights in plain transformers."""
    if packaged_file(NAMED_MODELS["gemma3-270m"]) is None:
        pytest.skip(f"needs the model: {NAMED_MODELS['gemma3-270m'].install}")
    hf_model, tokenizer, quantisation = read_gguf(packaged_file(NAMED_MODELS["gemma3-270m"]), torch.float64)
    assert "Q4_K" in quantisation
    model = li.load_model("gemma3-270m", device="cpu", dtype="float64")
    facts = li.load_facts("wikidata")[:3]
    ranks = {li.Site(17, "in"): 128, li.Site(14, "out"): 6, li.Site(16, "gate"): 32}
    edit = reduce(add, (li.laser(model, site, rank=rank) for site, rank in ranks.items()))
    scores = li.score(model, facts, {"base": None, "edit": edit}, candidates=False, progress=False)
    found = scores[scores["prompt_id"] == 0].set_index(["edit", "fact_id"])["logprob"]
    with torch.no_grad():
        for label in ("base", "edit"):
            for fact in facts:
                ids = tokenizer(fact.prompt)["input_ids"]
                whole = tokenizer(fact.prompt + facts.written(fact, fact.prompt, fact.object))["input_ids"]
                logprobs = hf_model(torch.tensor([whole])).logits[0].log_softmax(-1)
                expected = sum(float(logprobs[at - 1, whole[at]]) for at in range(len(ids), len(whole)))
                assert found[label, fact.fact_id] == pytest.approx(expected, abs=1e-4)
            for site, rank in ranks.items() if label == "base" else ():
                mlp = hf_model.model.layers[site.layer].mlp
                weight = {"in": mlp.up_proj, "out": mlp.down_proj, "gate": mlp.gate_proj}[site.matrix].weight
                U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
                weight.copy_(U[:, :rank] * S[:rank] @ Vh[:rank])
