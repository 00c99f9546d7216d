"""Loading: what is accepted, what is kept as it is, and what is refused in one sentence, at once."""

import json
import os
import pickle
import subprocess
import sys
import time

import pytest
import torch
import transformers
from families import FAMILIES, Tokens, make

import laser_interp as li
from laser_interp.edits.sites import resolve
from laser_interp.models.complete_weights import check_finite
from laser_interp.models.forward import logits_at


@pytest.fixture(scope="module")
def folder(tmp_path_factory, plain):
    hf, tokenizer = plain
    path = tmp_path_factory.mktemp("model") / "mine"
    hf.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_checkpoints_dtype_is_kept_unless_asked(plain, tmp_path, dtype):
    import copy

    hf, tokenizer = plain
    copy.deepcopy(hf).to(dtype).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert li.load_model(tmp_path, device="cpu").dtype == dtype
    assert li.load_model(tmp_path, device="cpu", dtype="float32").dtype == torch.float32
    assert li.load_model(tmp_path, device="cpu", dtype=torch.bfloat16).dtype == torch.bfloat16
    assert li.load_model((copy.deepcopy(hf).to(dtype), tokenizer)).dtype == dtype
    with pytest.raises(ValueError, match="dtype is 'int8': expected 'auto'"):
        li.load_model(tmp_path, dtype="int8")


def test_a_model_in_memory_with_a_weight_that_is_no_number_is_refused(plain):
    import copy

    hf = copy.deepcopy(plain[0])
    with torch.no_grad():
        hf.transformer.h[2].mlp.c_fc.weight[0, 0] = float("inf")
    with pytest.raises(
        ValueError, match=r"the weight transformer\.h\.2\.mlp\.c_fc\.weight of .* holds NaN or infinity"
    ):
        li.load_model((hf, plain[1]))


def test_torch_files_are_read_without_running_them(folder, plain, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "torch")
    (tmp_path / "torch" / "model.safetensors").unlink()
    torch.save(plain[0].state_dict(), tmp_path / "torch" / "pytorch_model.bin")
    loaded = li.load_model(tmp_path / "torch", device="cpu")
    assert torch.equal(loaded.weight(3, "in"), plain[0].transformer.h[3].mlp.c_fc.weight)

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    with open(tmp_path / "torch" / "pytorch_model.bin", "wb") as out:
        pickle.dump({"x": Bomb()}, out)
    with pytest.raises(Exception, match="."):
        li.load_model(tmp_path / "torch")
    assert not (tmp_path / "exploded").exists()


def test_code_that_comes_with_a_checkpoint_is_not_run(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (tmp_path / "remote" / "config.json").write_text(json.dumps(config))
    (tmp_path / "remote" / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="cannot load the model"):
        li.load_model(tmp_path / "remote")
    assert not (tmp_path / "ran").exists()


def test_a_device_map(folder):
    model = li.load_model(folder, device_map={"": "cpu"})
    with li.laser(model, "3.in", rank=3).on(model):
        assert model.next_token_logprobs("Mira Tolen was taught by").shape == (1, 361)


@pytest.mark.slow
def test_no_network_is_said_within_two_seconds(tmp_path):
    """In a process without HF_HUB_OFFLINE, whose hub is an address where nothing answers."""
    code = (
        "import time, sys, laser_interp as li, transformers, transformer_lens\n"
        "start = time.perf_counter()\n"
        "try:\n    li.load_model('nobody/nothing')\n"
        "except FileNotFoundError as error:\n    print(error)\n"
        "print(time.perf_counter() - start)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE" and not k.lower().endswith("_proxy")}
    for endpoint in ("http://127.0.0.1:9", "http://no-such-host.invalid"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        message, seconds = done.stdout.strip().splitlines()
        assert message == (
            "cannot load the model 'nobody/nothing': it is not in the local cache, and the hub cannot be reached "
            "(or HF_HUB_OFFLINE is set); expected a folder, a hub id, or one of organism, organism-control, "
            "organism-experts, smollm2, gemma3-270m"
        )
        assert float(seconds) < 2


@pytest.mark.slow
def test_refusals(folder, plain, tmp_path):
    import shutil

    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match="cannot load the model 'nobody/nothing': it is not in the local cache"):
        li.load_model("nobody/nothing")
    assert time.perf_counter() - start < 2
    with pytest.raises(FileNotFoundError, match=r"no model folder '\./nothing'"):
        li.load_model("./nothing")

    shutil.copytree(folder, tmp_path / "quantised")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (tmp_path / "quantised" / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"is quantised \(bitsandbytes\): quantised weights cannot be factored exactly"
    ):
        li.load_model(tmp_path / "quantised")

    t5 = transformers.T5Config(
        vocab_size=50,
        d_model=8,
        d_kv=4,
        d_ff=8,
        num_layers=1,
        num_heads=2,
        architectures=["T5ForConditionalGeneration"],
    )
    t5.save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match="not a causal or masked language model"):
        li.load_model(tmp_path / "t5")

    class Unheard(transformers.GPT2LMHeadModel):
        pass

    with pytest.raises(ValueError, match="does not support the architecture Unheard"):
        li.load_model((Unheard(plain[0].config), plain[1]))
    with pytest.raises(ValueError, match="tokenizer has no mask token"):
        li.load_model((make("bert"), Tokens()))

    shutil.copytree(folder, tmp_path / "weightless")
    (tmp_path / "weightless" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="cannot load the weights of"):
        li.load_model(tmp_path / "weightless")


def test_an_integer_weight_cannot_be_factored():
    with pytest.raises(ValueError, match=r"the weight 3.in of 'organism' is torch.int8: quantised"):
        check_finite("organism", {"3.in": torch.zeros(4, 4, dtype=torch.int8)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dense", "gated"),
    [
        ("27.U_in", "in", "gate"),
        ("27.fc_in", "in", "gate"),
        ("27.U_out", "out", "out"),
        ("27.fc_out", "out", "out"),
        ("27.k_proj", "k", "k"),
        ("27.out_proj", "o", "o"),
        ("27.o_proj", "o", "o"),
        ("27.query", "q", "q"),
    ],
)
def test_the_papers_names_are_translated_for_the_model(name, dense, gated):
    """The published Llama code calls the gate `fc_in` and the up projection `fc_up`."""
    models = {f: li.load_model((make(f), Tokens()), device="cpu") for f in ("gptj", "llama")}
    at = name.replace("27", "1")
    assert resolve(models["gptj"], at) == (li.Site(1, dense),)
    assert resolve(models["llama"], at) == (li.Site(1, gated),)
    assert resolve(models["llama"], "1.fc_up") == resolve(models["llama"], "1.up_proj") == (li.Site(1, "in"),)
    assert [s.matrix for s in resolve(models["llama"], "0.mlp")] == ["in", "gate", "out"]
    assert [s.matrix for s in resolve(models["gptj"], "0.mlp")] == ["in", "out"]
    assert len(resolve(models["llama"], "*.all")) == 21
    with pytest.raises(ValueError, match="has no matrix 'gate_proj'"):
        resolve(models["gptj"], "1.gate_proj")
    assert li.Site.parse("27.in") == li.Site(27, "in")


def test_gpt1_is_run_as_far_as_the_library_is_right():
    """TransformerLens's GPT-1 stops being causal under any attention mask: it is run without one."""
    hf = make("openai-gpt")
    model = li.load_model((hf, Tokens()), device="cpu")
    row = [5, 6, 7, 8]
    with torch.no_grad():
        causal = hf(torch.tensor([row])).logits[0, 1]
        assert torch.allclose(causal, hf(torch.tensor([[5, 6]])).logits[0, -1], atol=1e-5)
        masked = model.bridge(torch.tensor([row]), attention_mask=torch.ones(1, 4), return_type="logits")[0, 1]
    if torch.allclose(causal, masked, atol=1e-3):
        pytest.fail("TransformerLens has mended GPT-1: drop the special case")
    ((_, found),) = logits_at(model, [row], [(0, 1)])
    assert torch.allclose(found[0], causal, atol=1e-5)
    with pytest.raises(ValueError, match="cannot be padded on the left"):
        list(logits_at(model, [row], [(0, 1)], padding="left"))
    with pytest.raises(ValueError, match="cannot generate: TransformerLens"):
        model.generate("5 6 7")
    with pytest.raises(ValueError, match="padding is 'middle'"):
        list(logits_at(model, [row], [(0, 1)], padding="middle"))


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("bert", "roberta", "openai-gpt")])
def test_generation_in_every_causal_family(family):
    import copy

    from families import read_weight, write_weight

    hf = make(family)
    model = li.load_model((hf, Tokens()), device="cpu")
    edited = copy.deepcopy(hf)
    U, S, Vh = torch.linalg.svd(read_weight(family, hf, 1, "in").double(), full_matrices=False)
    write_weight(family, edited, 1, "in", ((U[:, :3] * S[:3]) @ Vh[:3]).float())
    ids = torch.tensor([[5, 9, 17]])
    out = edited.generate(ids, max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(ids), pad_token_id=0)
    expected = " ".join(map(str, out[0, 3:].tolist()))
    assert model.generate("5 9 17", max_new_tokens=8, edit=li.laser(model, "1.in", rank=3)) == expected


def test_a_mixture_of_experts_that_is_not_tested_is_refused():
    """Llama 4 holds them in another form."""
    import transformers
    from families import _LLAMA_LIKE

    config = transformers.Llama4TextConfig(**_LLAMA_LIKE | {"num_local_experts": 4, "intermediate_size_mlp": 32})
    hf = transformers.Llama4ForCausalLM(config)
    with pytest.raises(ValueError, match="is a mixture of 4 experts of a family whose experts are not supported"):
        li.load_model((hf, Tokens()))


@pytest.mark.slow
def test_the_families_that_the_command_lists_are_those_that_are_tested(capsys):
    from laser_interp.cli.app import main
    from laser_interp.models.families import FAMILIES as LISTED

    assert {family.transformers_class for family in LISTED} >= {cls.__name__ for cls, *_ in FAMILIES.values()}
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert all(family.transformers_class in listed for family in LISTED)
    assert "smollm2" in listed
