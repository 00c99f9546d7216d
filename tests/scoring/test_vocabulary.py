"""One pass over the vocabulary finds what the whole table of logits says."""

import pytest
import torch

from laser_interp.models import unembedding
from laser_interp.models.unembedding import Logits
from laser_interp.scoring.vocabulary import LogitQuery, logit_statistics


def asked(rows, tokens, ranked_rows, ranked_tokens, columns, top_k=0):
    return LogitQuery(*map(torch.tensor, (rows, tokens, ranked_rows, ranked_tokens, columns)), top_k)


ASKED = {
    "a token each": asked([0, 3], [18, 2], [0, 1, 2, 3, 4, 5, 6], [4, 4, 0, 4, 18, 9, 1], [0, 5, 18], 3),
    "several of some reads": asked([1, 1, 6], [3, 7, 7], [6, 0, 0, 6], [3, 18, 2, 3], [7]),
    "nothing": LogitQuery(*(torch.zeros(0, dtype=torch.long),) * 5),
}


@pytest.mark.parametrize("wanted", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("in_cache", [1, 40, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_seen_is_what_the_whole_table_says(monkeypatch, wanted, in_cache, dtype):
    monkeypatch.setattr(unembedding, "IN_CACHE", in_cache)
    monkeypatch.setattr(unembedding, "BLOCK", 7)
    generator = torch.Generator().manual_seed(0)
    logits = 9 * torch.randn(7, 19, dtype=dtype, generator=generator) + 400
    logits[1, [2, 4, 17]] = logits.max() + 1  # equal logits, of which the first is taken
    logits[3] = logits[3, 4]
    logits[4, :3] = -torch.inf
    seen = logit_statistics(Logits(logits), wanted)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-11
    assert seen.norm.dtype == seen.values.dtype == dtype
    assert torch.allclose(seen.norm, logits.logsumexp(-1), atol=tolerance, rtol=0)
    assert torch.equal(seen.highest, logits.max(-1).values)
    assert torch.equal(seen.top, logits.max(-1).indices)
    assert torch.equal(seen.values, logits[wanted.rows, wanted.tokens])
    assert torch.equal(seen.columns, logits[:, wanted.columns])
    own = logits[wanted.ranked_rows, wanted.ranked_tokens]
    assert torch.equal(seen.ranked, own)
    table = logits[wanted.ranked_rows]
    assert torch.equal(seen.below, (table < own[:, None]).sum(-1))
    others = table.scatter(1, wanted.ranked_tokens[:, None], -torch.inf)
    assert torch.equal(seen.others, others.amax(-1) if len(own) else own)
    assert torch.equal(seen.most, logits.topk(wanted.top_k).values)
    assert torch.equal(logits.gather(1, seen.most_probable), seen.most)


@pytest.mark.parametrize("in_cache", [1, 40, 10**6])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so(monkeypatch, in_cache, value):
    monkeypatch.setattr(unembedding, "IN_CACHE", in_cache)
    monkeypatch.setattr(unembedding, "BLOCK", 7)
    logits = torch.randn(3, 19)
    logits[0, 8] = value
    logits[1] = value
    none, rows = torch.zeros(0, dtype=torch.long), torch.arange(3)
    seen = logit_statistics(Logits(logits), LogitQuery(none, none, rows, torch.full((3,), 2), none))
    assert torch.equal(seen.norm.isnan(), logits.logsumexp(-1).isnan())
    assert torch.allclose(seen.norm, logits.logsumexp(-1), equal_nan=True)
    assert seen.below[1] == 0  # a constant or NaN row never puts its answer first
    assert seen.below[2] == (logits[2] < logits[2, 2]).sum()


def test_a_product_ranks_an_answer_by_its_own_logit(monkeypatch):
    """However the product's sums are ordered, no logit is above or below itself."""
    monkeypatch.setattr(unembedding, "IN_CACHE", 1)
    monkeypatch.setattr(unembedding, "BLOCK", 64 * 5)
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(200, 64, generator=generator), torch.randn(301, 64, generator=generator)
    weight[300] = weight[7]
    own = torch.randint(300, (200,), generator=generator)
    rows, none = torch.arange(200), torch.zeros(0, dtype=torch.long)
    seen = logit_statistics(Logits(x, weight), LogitQuery(none, none, rows, own, own))
    double = x.double() @ weight.double().T
    expected = (double < double[rows, own][:, None] - 1e-4).sum(-1)
    assert torch.equal(seen.columns[rows, rows], seen.ranked)
    assert bool((seen.below - expected >= 0).all())
    assert float((seen.below == expected).double().mean()) > 0.95
    assert torch.allclose(seen.norm.double(), double.logsumexp(-1), atol=1e-5)
