"""Truncated differences of checkpoints, and pruning: against weights that are edited by hand."""

import pytest
import torch
from families import edited, make, numbers_tokenizer, read_weight, write_weight

import laser_interp as li

ROWS = torch.tensor([[5, 9, 17, 33, 60, 4, 8], [7, 2, 22, 40, 41, 42, 43]])


def logprobs(hf):
    with torch.no_grad():
        return hf(ROWS).logits.log_softmax(-1)


@pytest.fixture(scope="module")
def pair():
    """A model, and what it began with: other weights in two matrices."""
    tuned, began = make("llama"), make("llama")
    for layer, matrix in ((1, "in"), (2, "out")):
        weight = read_weight("llama", began, layer, matrix)
        generator = torch.Generator().manual_seed(layer)
        write_weight("llama", began, layer, matrix, weight + 0.1 * torch.randn(weight.shape, generator=generator))
    models = [li.load_model((hf, numbers_tokenizer()), device="cpu") for hf in (tuned, began)]
    return tuned, began, *models


def test_rank_0_is_the_base_and_the_full_rank_the_model(pair):
    tuned, began, model, base = pair
    where = ["1.in", "2.out"]
    with li.laser_of_difference(model, base, where, rank=0).on(model):
        assert (logprobs(model.hf_model) - logprobs(began)).abs().max() < 1e-5
    with li.laser_of_difference(model, base, where, rho=1).on(model):
        assert (logprobs(model.hf_model) - logprobs(tuned)).abs().max() < 1e-5


def test_a_truncated_difference_is_what_it_says(pair):
    tuned, began, model, base = pair
    change = read_weight("llama", tuned, 1, "in").double() - read_weight("llama", began, 1, "in").double()
    U, S, Vh = torch.linalg.svd(change, full_matrices=False)
    by_hand = edited("llama", tuned, {})
    kept = read_weight("llama", began, 1, "in").double() + (U[:, :3] * S[:3]) @ Vh[:3]
    write_weight("llama", by_hand, 1, "in", kept.float())
    edit = li.laser_of_difference(model, base, "1.in", rank=3)
    with edit.on(model):
        assert (logprobs(model.hf_model) - logprobs(by_hand)).abs().max() < 1e-5
    found = li.difference_spectrum(model, base, "1.in")
    assert torch.allclose(found.S, S, atol=1e-6)
    with pytest.raises(ValueError, match="give exactly one"):
        li.laser_of_difference(model, base, "1.in")
    with pytest.raises(ValueError, match="ranks 0 to 32"):
        li.laser_of_difference(model, base, "1.in", rank=99)
    with pytest.raises(ValueError, match="rank is 2.7: expected a whole number"):
        li.laser_of_difference(model, base, "1.in", rank=2.7)
    other = li.load_model((make("gpt2"), numbers_tokenizer()), device="cpu")
    with pytest.raises(ValueError, match="two checkpoints of one architecture|no matrix"):
        li.laser_of_difference(model, other, "1.gate", rank=1)


@pytest.mark.parametrize("site", ["1.in", "2.out", "0.q"])
def test_pruning_zeroes_the_smallest_weights(pair, site, tmp_path):
    tuned, _, model, _ = pair
    layer, matrix = site.split(".")
    weight = read_weight("llama", tuned, int(layer), matrix)
    small = weight.abs() <= weight.abs().flatten().kthvalue(round(0.7 * weight.numel())).values
    by_hand = edited("llama", tuned, {})
    write_weight("llama", by_hand, int(layer), matrix, torch.where(small, 0.0, weight))
    edit = li.controls.pruned(model, site, 0.7)
    with edit.on(model):
        assert (logprobs(model.hf_model) - logprobs(by_hand)).abs().max() < 1e-5
    edit.save(tmp_path / "pruned.json", model=model)  # it is an edit like any other
    again = li.load_edit(tmp_path / "pruned.json", model)
    assert torch.allclose(again.parts[li.Site.parse(site)].weight, edit.parts[li.Site.parse(site)].weight)
    with pytest.raises(ValueError, match="share is 0"):
        li.controls.pruned(model, site, 0)
