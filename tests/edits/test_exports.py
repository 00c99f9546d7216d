"""Every export is read again and compared: buffers, equal weights, adapters; and what it says of this machine."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers as tf
from families import _LLAMA_LIKE, build, make, words_tokenizer
from safetensors.torch import load_file, save_file

import laser_interp as li
from laser_interp.edits import export as dense_export
from laser_interp.models.forward import logits_at
from laser_interp.models.load_check import rows_of

ROWS = [[5, 9, 17, 33, 60, 4, 8], [7, 12, 22]]
# Classes that store more than parameters: a scalar of each layer, and constants of an activation
BUFFERED = {
    "gemma4": lambda: tf.Gemma4ForCausalLM(
        tf.Gemma4TextConfig(
            **_LLAMA_LIKE | {"num_key_value_heads": 2}, head_dim=16, global_head_dim=16, sliding_window=4,
            layer_types=["sliding_attention", "full_attention", "full_attention"], hidden_size_per_layer_input=0,
        )
    ),
    "apertus": lambda: tf.ApertusForCausalLM(tf.ApertusConfig(**_LLAMA_LIKE)),
}  # fmt: skip


def logprobs(model, edit=None):
    from contextlib import nullcontext

    out = torch.empty(len(ROWS), model.d_vocab)
    with edit.on(model) if edit is not None else nullcontext():
        for i, logits in logits_at(model, ROWS, [(i, len(row) - 1) for i, row in enumerate(ROWS)]):
            out[i] = logits.log_softmax(-1)
    return out


def plain_logprobs(hf):
    hf = hf.eval()
    with torch.no_grad():
        return torch.stack([hf(torch.tensor([row])).logits[0, -1].log_softmax(-1) for row in ROWS])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not in the table")
@pytest.mark.parametrize("name", BUFFERED)
def test_buffers_are_exported_with_the_weights(tmp_path, name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = BUFFERED[name]().eval()
        for tensor in hf.state_dict().values():
            if tensor.is_floating_point():
                tensor.data += 0.2 * torch.randn_like(tensor)
    model = li.load_model((hf, words_tokenizer()), device="cpu")
    assert model._state.buffers
    edit = li.laser(model, "1.in", rank=5)
    expected = logprobs(model, edit)
    li.export_dense(model, edit, tmp_path / "dense")
    again = type(hf).from_pretrained(tmp_path / "dense", attn_implementation="eager")
    assert (plain_logprobs(again) - expected).abs().max() < 1e-4
    assert (logprobs(li.load_model(tmp_path / "dense", device="cpu")) - expected).abs().max() < 1e-4
    assert li.check(model, layers=[1], progress=False).right
    before = model.weights_sha256
    next(iter(model._state.buffers.values())).add_(1)
    assert model.weights_sha256 != before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "one", "other"), [("llama", "k", "v"), ("llama", "gate", "in"), ("gptj", "q", "k"), ("opt", "v", "q")]
)
def test_equal_weights_are_told_apart_by_name(tmp_path, family, one, other):
    from families import read_weight, write_weight

    hf = make(family)
    write_weight(family, hf, 1, other, read_weight(family, hf, 1, one))
    model = li.load_model((hf, words_tokenizer()), device="cpu")
    for matrix in (one, other):
        edit = li.laser(model, f"1.{matrix}", rank=3)
        expected = logprobs(model, edit)
        li.export_dense(model, edit, tmp_path / f"{matrix}-dense")
        again = li.load_model(tmp_path / f"{matrix}-dense", device="cpu")
        assert (logprobs(again) - expected).abs().max() < 1e-4
        table = li.export_adapter(model, edit, tmp_path / f"{matrix}-adapter")
        assert len(table) == 1
    assert li.check(model, layers=[1], progress=False).right


@pytest.mark.parametrize(("family", "one", "other"), [("gpt2", "k", "v"), ("phi3", "gate", "in")])
def test_equal_rows_of_a_fused_weight_are_refused(tmp_path, family, one, other):
    from families import read_weight, write_weight

    hf = make(family)
    write_weight(family, hf, 1, other, read_weight(family, hf, 1, one))
    model = li.load_model((hf, words_tokenizer()), device="cpu")
    edit = li.laser(model, f"1.{other}", rank=3)
    for export in (li.export_dense, li.export_adapter):
        with pytest.raises(ValueError, match=f"holds rows of 1.{other} more than once"):
            export(model, edit, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_an_export_that_differs_is_not_kept(tmp_path, monkeypatch):
    model = build("llama")
    edit = li.laser(model, "1.in", rank=3)

    def spoil(model, folder, load=dense_export.PlainModel):
        weights = load_file(folder / "model.safetensors")
        weights["model.layers.0.mlp.down_proj.weight"] *= 1.2
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return load(model, folder)

    monkeypatch.setattr(dense_export, "PlainModel", spoil)
    with pytest.raises(ValueError, match=r"loaded again and differs from the edited model by .* nats: it was not kept"):
        li.export_dense(model, edit, tmp_path / "out")

    def without_numbers(model, folder, load=dense_export.PlainModel):
        plain = load(model, folder)
        plain.hf_model.lm_head.weight.data[:] = torch.nan
        return plain

    monkeypatch.setattr(dense_export, "PlainModel", without_numbers)
    with pytest.raises(ValueError, match="differs from the edited model by nan"):
        li.export_dense(model, edit, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_large_adapter_says_who_does_not_serve_it(tmp_path, monkeypatch):
    import laser_interp.edits.adapter as adapter

    monkeypatch.setattr(adapter, "SERVED_RANK", 20)
    model = build("llama")
    with pytest.warns(UserWarning, match="the adapter has rank 29, and vLLM serves adapters of at most 20"):
        li.export_adapter(model, li.laser(model, "1.in", rank=3), tmp_path / "adapter")


def test_no_path_of_this_machine_leaves_it(tmp_path):
    """A base model in a folder is named by the folder's name, and names are quoted where they are read by programs."""
    folder = tmp_path / "a: <b>model<b>"
    build("llama").save_checkpoint(folder)
    model = li.load_model(folder, device="cpu")
    edit = li.laser(model, "1.in", rank=20)
    li.export_adapter(model, edit, tmp_path / "adapter")
    card = li.write_model_card(model, edit, tmp_path / "adapter", "adapter").read_text()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == folder.name
    for text in (card, json.dumps(config)):
        assert str(tmp_path) not in text
    assert f"base_model: {json.dumps(folder.name)}" in card
    assert "# a: &lt;b&gt;model&lt;b&gt;, edited" in card
    assert li.load_model("organism").public_name == "organism"
    with pytest.raises(ValueError, match="form"):
        li.write_model_card(model, edit, tmp_path / "adapter", "factors")


def test_the_rows_of_the_check_begin_alike():
    config = SimpleNamespace(pad_token_id=0, bos_token_id=1, eos_token_id=1, mask_token_id=None)
    embedding = SimpleNamespace(weight=torch.zeros(96, 2))
    long, short = rows_of(SimpleNamespace(config=config, get_input_embeddings=lambda: embedding))
    assert long[: len(short)] == short
    assert not {0, 1} & set(long)
