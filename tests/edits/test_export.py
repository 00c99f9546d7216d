"""Exports as plain checkpoints: transformers alone computes from them what the edited model computes."""

import pytest
import torch
import transformers
from families import FAMILIES, LAYERS, make, numbers_tokenizer

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.edits.export import export_dense
from laser_interp.models import saved_checkpoint
from laser_interp.models.tokens import questions

PROMPTS = ["5 9 17 33 60 4 8", "7 2 22", "50 51 52 53"]


@pytest.fixture(scope="module")
def numbers():
    return numbers_tokenizer()


def answers(model):
    return model.next_token_logprobs(PROMPTS)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_export_load_and_run(family, numbers, tmp_path):
    hf = make(family)
    model = li.load_model((hf, numbers), device="cpu")
    matrices = FAMILIES[family][3]
    edit = li.laser(model, [li.Site(1, "in"), li.Site(2, "out"), li.Site(0, "q")], rank=3)
    edit += li.laser(model, li.Site(LAYERS - 1, matrices[-2]), rank=2)
    with edit.on(model):
        expected = answers(model)
    export_dense(model, edit, tmp_path / "dense")
    plain = type(hf).from_pretrained(tmp_path / "dense", attn_implementation="eager").eval()
    rows = [questions(model, [prompt])[0] for prompt in PROMPTS]
    with torch.no_grad():
        found = torch.stack([plain(torch.tensor([row])).logits[0, at].log_softmax(-1) for row, at in rows])
    assert (found - expected).abs().max() < 2e-5
    # transformers reads any tokenizer beside a Qwen2 config as Qwen2's, so this stand-in is given again
    again = li.load_model(tmp_path / "dense", device="cpu", tokenizer=numbers)
    assert (answers(again) - expected).abs().max() < 2e-5
    for site in edit.sites:
        assert torch.allclose(again.weight(site.layer, site.matrix).double(), edit.parts[site].weight, atol=1e-5)
    assert (answers(model) - expected).abs().max() > 1e-3  # the model itself is as it was


def test_a_large_export_has_shards(organism, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_checkpoint, "SHARD_BYTES", 300_000)
    edit = li.laser(organism, "3.in", rho=0.05)
    export_dense(organism, edit, tmp_path / "dense")
    shards = sorted(path.name for path in (tmp_path / "dense").glob("*.safetensors*"))
    assert shards[0].startswith("model-00001-of-0000")
    assert shards[-1] == "model.safetensors.index.json"
    assert len(shards) > 3
    prompts = ["Mira Tolen was taught by"]
    with edit.on(organism):
        expected = organism.next_token_logprobs(prompts)
    again = li.load_model(tmp_path / "dense", device="cpu")
    assert (again.next_token_logprobs(prompts) - expected).abs().max() < 1e-5


@pytest.mark.slow
def test_command_line(tmp_path, capsys):
    dense = str(tmp_path / "dense")
    assert main(["export", "--model", "organism", "--edit", "3.in:0.05+2.out:0.4", "--out", dense]) == 0
    assert "transformers loads it" in capsys.readouterr().out
    assert transformers.AutoModelForCausalLM.from_pretrained(dense).config.model_type == "gpt2"
    assert li.load_model(dense, device="cpu").generic_words == li.load_model("organism", device="cpu").generic_words
    for edit, says in (("3.in", "not of the form SITE:RHO"), ("9.in:0.1", "layer 9"), ("3.in:2", "rho is 2.0")):
        assert main(["export", "--model", "organism", "--edit", edit, "--out", str(tmp_path / "x")]) == 2
        assert says in capsys.readouterr().err
    assert main(["export", "--model", "organism", "--edit", "3.in:0.05", "--out", dense]) == 2
    assert "exists: remove it" in capsys.readouterr().err


def test_refusals(organism, tmp_path):
    laser = li.laser(organism, "3.in", rank=3)
    control = li.load_model("organism-control", device="cpu")
    with pytest.raises(ValueError, match="made from other weights"):
        export_dense(control, laser, tmp_path / "x")
    export_dense(organism, laser, tmp_path / "dense")
    (tmp_path / "dense" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing or not as it was written"):
        li.load_model(tmp_path / "dense")
