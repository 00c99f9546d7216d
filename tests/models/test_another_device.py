"""Every tensor's device comes from the model or the data: all of it runs where the model is not on the processor.

On any machine a device is imitated. Where there is a CUDA device, the same and more runs on it.
"""

import pandas as pd
import pytest
import torch
from another_device import DEVICE, AnotherDevice, Elsewhere, move
from families import FAMILIES, MASKED, make, numbers_tokenizer

import laser_interp as li

FACTS = li.FactSet(
    tuple(
        li.Fact(fact_id=str(i), subject="5", relation="r", object=str(22 + i), prompt=f"5 {72 + i} 9" + " 88" * (i % 3))
        for i in range(6)
    )
)

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def results_of(model):
    """Scores of edits by both engines, attributed gradients and what the discarded part answers."""
    edit = li.laser(model, "1.in", rank=3)
    control = li.controls.random_equal_energy(model, edit, seed=0)
    edits = {
        "base": None,
        "laser": edit,
        "part": edit.discarded(),
        "control": control,
        "o": li.laser(model, "2.o", rank=2),
    }
    scores = {
        engine: li.score(model, FACTS, edits, engine=engine, generic=["33", "44"], progress=False)
        for engine in ("fast", "reference")
    }
    gradients = li.attribute(model, FACTS, progress=False).summary()
    answers = li.favoured_answers(model, FACTS, edit, shares=(1.0,), generic=["33", "44"], progress=False)
    return scores, gradients, answers


def assert_equal(found, expected):
    for engine in ("fast", "reference"):
        difference = (found[0][engine]["logprob"] - expected[0][engine]["logprob"]).abs().max()
        assert difference < 1e-5, engine
    columns = expected[1].select_dtypes("number").columns
    assert (found[1][columns] - expected[1][columns]).abs().max().max() < 1e-4
    assert (found[2]["answer"] == expected[2]["answer"]).all()


def load(family, device="cpu"):
    return li.load_model((make(family), numbers_tokenizer()), device=device)


def test_it_notices_what_a_gpu_would():
    here, there = torch.ones(3), Elsewhere(torch.ones(3))
    with AnotherDevice():
        assert (
            (there + 1).device == there.to(torch.float16).device == torch.zeros(2, device=there.device).device == DEVICE
        )
        assert torch.equal((there * 2).cpu(), here * 2)
        with pytest.raises(TypeError, match="no float64"):
            there.double()
        with pytest.raises(RuntimeError, match="mixes tensors"):
            there + here
        with pytest.raises(RuntimeError, match="mixes tensors"):
            here[torch.zeros(1, dtype=torch.long, device=DEVICE)]


# Each with another way to store, to rotate, to norm or to share heads
@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gptj", "gpt_neox", "llama_gqa", "phi3", "gemma3", "openai-gpt"])
def test_scores_and_gradients_are_those_of_the_processor(family):
    elsewhere = move(load(family))
    assert elsewhere.device == DEVICE
    with AnotherDevice():
        found = results_of(elsewhere)
    assert_equal(found, results_of(load(family)))


@on_a_gpu
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in MASKED])
def test_a_gpu_gives_what_the_processor_does(family):
    assert_equal(results_of(load(family, "cuda")), results_of(load(family)))


@on_a_gpu
@pytest.mark.parametrize("screen", ["model", "bfloat16"])
def test_a_race_on_a_gpu_is_the_processors(organism, facts, screen):
    some = facts.keep(facts.split("validation").facts + facts.split("test").facts[:40])
    found = [
        li.search(model, some, method="race", matrices="mlp", screen=screen, progress=False)
        for model in (li.load_model("organism", device="cuda"), organism)
    ]
    assert str(found[0].select().cell) == str(found[1].select().cell)
    chosen = [one.cells[one.cells["cell"] == str(found[0].select().cell)] for one in found]
    pd.testing.assert_frame_equal(*(one.reset_index(drop=True) for one in chosen), rtol=1e-4)


@on_a_gpu
def test_a_full_gpu_gets_smaller_passes(organism, facts):
    model = li.load_model("organism", device="cuda")
    edits = {str(rank): li.laser(model, "0.in", rank=rank) for rank in range(1, 33)}
    some = facts.keep(facts.facts[:300])
    expected = li.score(organism, some, {name: li.laser(organism, "0.in", rank=int(name)) for name in edits})
    total = torch.cuda.get_device_properties(model.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (150 << 20)) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(200 << 20, dtype=torch.uint8, device=model.device)
        found = li.score(model, some, edits, memory="40GiB", progress=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (found["logprob"] - expected["logprob"]).abs().max() < 1e-4
