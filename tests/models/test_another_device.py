"""Every tensor's device comes from the model or the data: all of it runs where the model is not on the processor."""

import pytest
import torch
from another_device import DEVICE, AnotherDevice, Elsewhere, move
from families import make, numbers_tokenizer

import laser_interp as li

FACTS = li.FactSet(
    tuple(
        li.Fact(fact_id=str(i), subject="5", relation="r", object=str(22 + i), prompt=f"5 {72 + i} 9" + " 88" * (i % 3))
        for i in range(6)
    )
)


def test_it_notices_what_a_gpu_would():
    here, there = torch.ones(3), Elsewhere(torch.ones(3))
    with AnotherDevice():
        assert (
            (there + 1).device == there.to(torch.float64).device == torch.zeros(2, device=there.device).device == DEVICE
        )
        assert torch.equal((there * 2).cpu(), here * 2)
        with pytest.raises(RuntimeError, match="mixes tensors"):
            there + here
        with pytest.raises(RuntimeError, match="mixes tensors"):
            here[torch.zeros(1, dtype=torch.long, device=DEVICE)]


# Each with another way to store, to rotate, to norm or to share heads
@pytest.mark.parametrize("family", ["gpt2", "gptj", "gpt_neox", "llama_gqa", "phi3", "gemma3", "openai-gpt"])
def test_scores_and_gradients_are_those_of_the_processor(family):
    def results(model):
        edit = li.laser(model, "1.in", rank=3)
        control = li.random_equal_energy(model, edit, seed=0)
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

    def load():
        return li.load_model((make(family), numbers_tokenizer()), device="cpu")

    expected = results(load())
    elsewhere = move(load())
    assert elsewhere.device == DEVICE
    with AnotherDevice():
        found = results(elsewhere)
    for engine in ("fast", "reference"):
        difference = (found[0][engine]["logprob"] - expected[0][engine]["logprob"]).abs().max()
        assert difference < 1e-5, engine
    columns = expected[1].select_dtypes("number").columns
    assert (found[1][columns] - expected[1][columns]).abs().max().max() < 1e-4
    assert (found[2]["answer"] == expected[2]["answer"]).all()
