"""Logits in blocks are the logits of the whole product; `scoring/test_engine.py` takes blocks in every family."""

import pytest
import torch
from families import loaded, whole
from torch.nn.functional import linear

from laser_interp.models import unembedding
from laser_interp.models.unembedding import Logits, multiplies_in_blocks


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("d_vocab", [1, 99, 100, 101, 350])
@pytest.mark.parametrize("in_cache", [1, 1000, 10**6])
def test_blocks_are_the_whole_product(monkeypatch, dtype, tolerance, d_vocab, in_cache):
    monkeypatch.setattr(unembedding, "BLOCK", 100 * 8)  # 100 tokens of 8 numbers each
    monkeypatch.setattr(unembedding, "IN_CACHE", in_cache)
    generator = torch.Generator().manual_seed(0)
    shapes = (5, 8), (d_vocab, 8), (d_vocab,)
    x, weight, bias = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes)
    rows = torch.arange(5).repeat(2)
    tokens = torch.randint(d_vocab, (10,), generator=generator)
    for added in (None, bias):
        expected = linear(x, weight, added)
        starts = [start for start, _ in Logits(x, weight, added).blocks()]
        assert starts == list(range(0, d_vocab, max(in_cache // 5, 100)))
        for logits in (Logits(x, weight, added), Logits(expected)):
            assert logits.d_vocab == d_vocab
            assert float((whole(logits) - expected).abs().max()) < tolerance
            assert float((logits.at(rows, tokens) - expected[rows, tokens]).abs().max()) < tolerance


def test_a_wide_model_has_blocks_of_at_least_one_token(monkeypatch):
    monkeypatch.setattr(unembedding, "BLOCK", 4)
    x, weight = torch.arange(8.0)[None], torch.arange(24.0).reshape(3, 8)
    assert whole(Logits(x, weight)).tolist() == linear(x, weight).tolist()


def test_half_precision_is_returned_in_single():
    x, weight = torch.randn(3, 8).bfloat16(), torch.randn(40, 8).bfloat16()
    logits = Logits(x, weight)
    assert whole(logits).dtype == torch.float32
    assert torch.equal(whole(logits), linear(x, weight).float())
    assert logits.at(torch.tensor([1]), torch.tensor([3])).dtype == torch.float32


@pytest.mark.parametrize(("family", "in_blocks"), [("llama", True), ("gpt2", True), ("gemma2", False)])
def test_where_something_follows_the_unembedding_logits_are_the_models_own(family, in_blocks):
    """Gemma 2 caps its logits."""
    assert multiplies_in_blocks(loaded(family, torch.float32)[1]) == in_blocks
