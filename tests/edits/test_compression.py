"""Compression: smaller on disk and in memory, the same output, and a plain checkpoint that agrees."""

import pytest
import torch
import transformers
from families import FAMILIES, LAYERS, make, numbers_tokenizer
from safetensors.torch import load_file

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.edits.compression import compress, export_dense, factored_sites, peak_memory, saves_bytes
from laser_interp.models.tokens import questions
from laser_interp.models.weights import factored_sites as factored_sites_of

PROMPTS = ["5 9 17 33 60 4 8", "7 2 22", "50 51 52 53"]


@pytest.fixture(scope="module")
def numbers():
    return numbers_tokenizer()


def answers(model):
    return model.next_token_logprobs(PROMPTS)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_save_load_run_and_export(family, numbers, tmp_path):
    hf = make(family)
    model = li.load_model((hf, numbers), device="cpu")
    matrices = FAMILIES[family][3]
    edit = li.laser(model, [li.Site(1, "in"), li.Site(2, "out"), li.Site(0, "q")], rank=3)
    edit += li.laser(model, li.Site(LAYERS - 1, matrices[-2]), rank=2)
    with edit.on(model):
        expected = answers(model)

    report = compress(model, edit, tmp_path / "thin").set_index("site")
    fused = {"gpt2": {"q"}, "gpt_neox": {"q"}, "openai-gpt": {"q"}, "phi3": {"q", "in", "gate"}}.get(family, set())
    for site in edit.sites:
        assert report.loc[str(site), "stored"] == ("dense" if site.matrix in fused else "factors"), site
    assert report.loc["total", "bytes_after"] < report.loc["total", "bytes_before"] == model.n_bytes
    # transformers reads any tokenizer beside a Qwen2 config as Qwen2's, so this stand-in is given again
    thin = li.load_model(tmp_path / "thin", device="cpu", tokenizer=numbers)
    assert thin.n_bytes == report.loc["total", "bytes_after"]
    assert set(factored_sites(tmp_path / "thin")) == {s for s in edit.sites if s.matrix not in fused}
    assert (answers(thin) - expected).abs().max() < 2e-5
    for site in edit.sites:
        dense = edit.parts[site].weight
        assert torch.allclose(thin.weight(site.layer, site.matrix).double(), dense, atol=1e-5)
    # a compressed model is a model: it can be edited again
    again = li.laser(thin, li.Site(1, "out"), rank=2)
    with again.on(thin):
        edited = answers(thin)
    with (edit + li.laser(model, li.Site(1, "out"), rank=2)).on(model):
        assert (edited - answers(model)).abs().max() < 5e-5

    # and compressed again, elsewhere and at a site it has as factors, and exported
    more = li.laser(thin, li.Site(0, "out"), rank=2) + li.laser(thin, li.Site(1, "in"), rank=1)
    with more.on(thin):
        twice = answers(thin)
    compress(thin, more, tmp_path / "thinner")
    thinner = li.load_model(tmp_path / "thinner", device="cpu", tokenizer=numbers)
    assert (answers(thinner) - twice).abs().max() < 2e-5
    assert thinner.n_bytes < thin.n_bytes
    export_dense(thin, more, tmp_path / "thick")
    thick = li.load_model(tmp_path / "thick", device="cpu", tokenizer=numbers)
    assert factored_sites_of(thick) == ()
    assert (answers(thick) - twice).abs().max() < 2e-5

    export_dense(model, edit, tmp_path / "dense")
    plain = type(hf).from_pretrained(tmp_path / "dense", attn_implementation="eager").eval()
    rows = [questions(model, [prompt])[0] for prompt in PROMPTS]
    with torch.no_grad():
        found = torch.stack([plain(torch.tensor([row])).logits[0, at].log_softmax(-1) for row, at in rows])
    assert (found - expected).abs().max() < 2e-5
    assert (answers(li.load_model(tmp_path / "dense", device="cpu", tokenizer=numbers)) - expected).abs().max() < 2e-5
    assert (answers(model) - expected).abs().max() > 1e-3  # the model itself is as it was


def test_rank_that_saves_nothing_is_kept_dense(organism, tmp_path):
    assert saves_bytes(64, 256, 51)
    assert not saves_bytes(64, 256, 52)
    report = compress(organism, li.laser(organism, "3.in", rank=52), tmp_path / "out")
    assert report["why"][0] == "rank 52 of 64 x 256 saves nothing"
    assert factored_sites(tmp_path / "out") == ()
    loaded = li.load_model(tmp_path / "out", device="cpu")
    assert loaded.generic_words == organism.generic_words


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_half(numbers, tmp_path, dtype):
    model = li.load_model((make("llama", dtype), numbers), device="cpu")
    edit = li.laser(model, "*.mlp", rank=3)
    compress(model, edit, tmp_path / "thin")
    assert {t.dtype for t in load_file(tmp_path / "thin" / "factors.safetensors").values()} == {dtype}
    thin = li.load_model(tmp_path / "thin", device="cpu")
    assert thin.dtype == dtype
    assert thin.n_bytes < model.n_bytes
    with edit.on(model):
        assert (answers(thin) - answers(model)).abs().max() < 0.25


@pytest.mark.slow
def test_peak_memory_falls(numbers, tmp_path):
    """134 MB of weights, of which all but 3 MB are MLP matrices cut to rank 8."""
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20_000,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    hf = transformers.LlamaForCausalLM(config).eval()
    model = li.load_model((hf, numbers), device="cpu", copy_object=False)
    before = peak_memory(model.save_checkpoint(tmp_path / "before"))
    report = compress(model, li.laser(model, "*.mlp", rank=8), tmp_path / "after").set_index("site")
    after = peak_memory(tmp_path / "after")
    weights = report.loc["total", ["bytes_before", "bytes_after"]]
    assert weights["bytes_after"] < 0.1 * weights["bytes_before"]
    assert before > 0.8 * weights["bytes_before"]
    assert after < 0.4 * before


@pytest.mark.slow
def test_command_line(tmp_path, capsys):
    thin, dense = str(tmp_path / "thin"), str(tmp_path / "dense")
    assert main(["compress", "--model", "organism", "--edit", "3.in:0.05+2.out:0.4", "--out", thin, "--measure"]) == 0
    out = capsys.readouterr().out
    assert "3.in" in out
    assert "Peak memory to load and run" in out
    assert main(["compress", "--model", "organism", "--edit", "3.in:0.05", "--out", dense, "--dense"]) == 0
    assert transformers.AutoModelForCausalLM.from_pretrained(dense).config.model_type == "gpt2"
    for edit, says in (("3.in", "not of the form SITE:RHO"), ("9.in:0.1", "layer 9"), ("3.in:2", "rho is 2.0")):
        assert main(["compress", "--model", "organism", "--edit", edit, "--out", str(tmp_path / "x")]) == 2
        assert says in capsys.readouterr().err
    assert main(["compress", "--model", "organism", "--edit", "3.in:0.05", "--out", thin]) == 2
    assert "exists: remove it" in capsys.readouterr().err


def test_refusals(organism, tmp_path):
    laser = li.laser(organism, "3.in", rank=3)
    with pytest.raises(ValueError, match="is not compressed"):
        compress(organism, li.same_spectrum_random(organism, laser, seed=0), tmp_path / "x")
    control = li.load_model("organism-control", device="cpu")
    with pytest.raises(ValueError, match="made from other weights"):
        compress(control, laser, tmp_path / "x")
    compress(organism, laser, tmp_path / "thin")
    (tmp_path / "thin" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing or not as it was written"):
        li.load_model(tmp_path / "thin")
    (tmp_path / "thin" / "checksums.json").unlink()
    state = {k: v for k, v in load_file(tmp_path / "thin" / "factors.safetensors").items() if "down" in k}
    from safetensors.torch import save_file

    save_file(state, tmp_path / "thin" / "model.safetensors")
    with pytest.raises(ValueError, match="it holds 3.in.down"):
        li.load_model(tmp_path / "thin")
