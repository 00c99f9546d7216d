"""A LoRA adapter of an edit: PEFT, on the model as trained, says what the edit says."""

import json

import pytest
import torch
from families import FAMILIES, LAYERS, make, numbers_tokenizer
from safetensors.torch import load_file

import laser_interp as li

peft = pytest.importorskip("peft", reason="needs the extra peft")
ROWS = [[5, 9, 17, 33, 60, 4, 8], [7, 2, 22, 40, 41, 42, 43]]


def logprobs(hf):
    with torch.no_grad():
        return hf(torch.tensor(ROWS)).logits.log_softmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_gives_the_edited_models_answers(family, tmp_path):
    hf = make(family)
    model = li.load_model((hf, numbers_tokenizer()), device="cpu")
    # q and k are fused in some families, and share one adapter there
    edit = li.laser(model, ["1.in", "2.out", "0.q", "0.k"], rank=3)
    edit += li.laser(model, li.Site(LAYERS - 1, FAMILIES[family][3][-2]), rank=2)
    with edit.on(model):
        expected = logprobs(model.bridge.original_model)

    table = li.export_adapter(model, edit, tmp_path / "adapter").set_index("site")
    assert list(table.index) == [str(site) for site in edit.sites]
    for site, part in edit.parts.items():
        assert table.loc[str(site), "rank"] == part.spectrum.max_rank - int(part.gains.count_nonzero())
    adapted = peft.PeftModel.from_pretrained(hf, tmp_path / "adapter")
    assert (logprobs(hf) - expected).abs().max() < 1e-4  # PEFT has put the adapter into the model
    with adapted.disable_adapter():
        assert (logprobs(hf) - expected).abs().max() > 1e-2
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert sum(t.numel() * 4 for t in stored.values()) == table["bytes_adapter"].sum()


def test_a_control_and_blocks_are_adapters_too(tmp_path):
    hf = make("llama")
    model = li.load_model((hf, numbers_tokenizer()), device="cpu")
    for i, edit in enumerate(
        [
            li.laser(model, "1.in", rank=2, blocks=4),
            li.controls.random_equal_energy(model, li.laser(model, "1.in", rank=2), seed=0),
        ]
    ):
        with edit.on(model):
            expected = logprobs(model.bridge.original_model)
        li.export_adapter(model, edit, tmp_path / str(i))
        peft.PeftModel.from_pretrained(fresh := make("llama"), tmp_path / str(i))
        assert (logprobs(fresh) - expected).abs().max() < 1e-4


def test_what_is_no_adapter_is_refused(organism, facts, tmp_path):
    model = organism
    edit = li.laser(model, "3.in", rank=2)
    with pytest.raises(ValueError, match="changes no weight"):
        li.export_adapter(model, li.gains(model, {"3.in": torch.ones(64)}), tmp_path / "a")
    with pytest.raises(ValueError, match="chosen positions"):
        li.export_adapter(model, edit.at(model, "last", facts), tmp_path / "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        li.export_adapter(model, edit, tmp_path / "full")
    li.export_adapter(model, edit, tmp_path / "named")
    assert json.loads((tmp_path / "named" / "adapter_config.json").read_text())["base_model_name_or_path"] == "organism"
