"""The unembedding in blocks is the whole product; `scoring/test_engine.py` takes blocks in every family."""

import pytest
import torch
from torch.nn.functional import linear

from laser_interp.models import unembedding
from laser_interp.models.unembedding import product_in_blocks


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("d_vocab", [1, 99, 100, 101, 350])
def test_a_product_in_blocks_is_the_whole_product(monkeypatch, dtype, tolerance, d_vocab):
    monkeypatch.setattr(unembedding, "BLOCK", 100 * 8)  # 100 tokens of 8 numbers each
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 5, 8), (d_vocab, 8), (d_vocab,)
    x, weight, bias = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes)
    for added in (None, bias):
        found = product_in_blocks(x, weight, added)
        assert float((found - linear(x, weight, added)).abs().max()) < tolerance


def test_a_wide_model_has_blocks_of_at_least_one_token(monkeypatch):
    monkeypatch.setattr(unembedding, "BLOCK", 4)
    x, weight = torch.arange(8.0)[None], torch.arange(24.0).reshape(3, 8)
    assert product_in_blocks(x, weight, None).tolist() == linear(x, weight).tolist()


def test_memory_for_logits_is_used_again():
    """By a product of as many rows or fewer; a larger one, or other numbers, take new memory."""
    weight, scratch = torch.randn(40, 8), {}
    x = torch.randn(6, 8)
    first = product_in_blocks(x, weight, None, scratch)
    assert torch.equal(first, product_in_blocks(x, weight, None))
    fewer = product_in_blocks(x[:2] + 1, weight, None, scratch)
    assert fewer.data_ptr() == first.data_ptr()
    assert torch.equal(fewer, product_in_blocks(x[:2] + 1, weight, None))
    more = torch.randn(9, 8)
    assert torch.equal(product_in_blocks(more, weight, None, scratch), product_in_blocks(more, weight, None))
    double = product_in_blocks(x.double(), weight.double(), None, scratch)
    assert double.dtype == torch.float64
