"""Every model family, against an independently edited transformers model.

For each: a random model, every layer and matrix; LASER, the discarded part, both mixed, two sites at
once; prompts of different lengths padded on either side. The reference runs one prompt at a time
through plain transformers, so that its positions are right.
"""

import copy
import os

import pytest
import torch
from families import FAMILIES, LAYERS, Tokens, make, read_weight, write_weight

import laser_interp as li

PROMPTS = [[5, 9, 17, 33, 60, 4, 8], [7, 3, 22], [50, 51, 52, 53], [90, 91, 92, 93, 94, 95, 2]]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
MASKED = ("bert", "roberta")


def prefix(r, k):
    return (torch.arange(r) < k).double()


def edited(family, hf, gains):
    """A copy whose matrices are replaced through torch.linalg.svd in float64."""
    out = copy.deepcopy(hf)
    for (layer, matrix), make_gains in gains.items():
        weight = read_weight(family, out, layer, matrix)
        U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
        write_weight(family, out, layer, matrix, ((U * (S * make_gains(len(S)))) @ Vh).to(weight.dtype))
    return out


def reference(hf):
    with torch.no_grad():
        return torch.stack([hf(torch.tensor([row])).logits[0, -1].log_softmax(-1) for row in PROMPTS])


def ours(model, edit, padding):
    reads = [(i, len(row) - 1) for i, row in enumerate(PROMPTS)]
    out = torch.empty(len(PROMPTS), model.d_vocab, dtype=torch.promote_types(model.dtype, torch.float32))
    with edit.on(model):
        for indices, logits in model.logits_at(PROMPTS, reads, padding=padding):
            out[indices] = logits.log_softmax(-1)
    assert model.n_hooks() == 0
    return out


def masked_tokens(family):
    tokenizer = Tokens()
    if family in MASKED:
        tokenizer.mask_token, tokenizer.mask_token_id = "3", 3
    return tokenizer


_loaded: dict = {}


def loaded(family, dtype):
    if (family, dtype) not in _loaded:
        hf = make(family, dtype)
        _loaded[family, dtype] = hf, li.load_model((hf, masked_tokens(family)), device="cpu")
    return _loaded[family, dtype]


EDITS = {
    "laser": (lambda m, s: li.laser(m, s, rank=3), lambda r: prefix(r, 3)),
    "discarded": (lambda m, s: li.laser(m, s, rank=3).discarded(), lambda r: 1 - prefix(r, 3)),
    "injected": (lambda m, s: li.laser(m, s, rank=3).inject(0.5), lambda r: 0.5 + 0.5 * prefix(r, 3)),
    "all_ones": (lambda m, s: li.laser(m, s, rho=1.0), lambda r: prefix(r, r)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family, dtype, record_property):
    hf, model = loaded(family, dtype)
    matrices = FAMILIES[family][3]
    assert model.matrices == matrices
    paddings = ("right", "left") if family != "openai-gpt" else ("right",)
    worst = 0.0
    for layer in range(LAYERS):
        for matrix in matrices:
            assert torch.equal(model.weight(layer, matrix), read_weight(family, hf, layer, matrix))
            for name, (make_edit, gains) in EDITS.items():
                expected = reference(edited(family, hf, {(layer, matrix): gains}))
                for padding in paddings:
                    found = ours(model, make_edit(model, li.Site(layer, matrix)), padding)
                    error = float((found - expected).abs().max())
                    worst = max(worst, error)
                    assert error < TOLERANCE[dtype], (layer, matrix, name, padding)
    for one, other in (((0, "in"), (2, "out")), ((1, "q"), (1, "v")), ((2, "o"), (2, matrices[-2]))):
        expected = reference(edited(family, hf, {one: EDITS["laser"][1], other: EDITS["injected"][1]}))
        edit = li.laser(model, li.Site(*one), rank=3) + li.laser(model, li.Site(*other), rank=3).inject(0.5)
        for padding in paddings:
            error = float((ours(model, edit, padding) - expected).abs().max())
            worst = max(worst, error)
            assert error < TOLERANCE[dtype], (one, other)
    record_property("family", family)
    record_property("dtype", str(dtype).removeprefix("torch."))
    record_property("matrices", " ".join(matrices))
    record_property("worst", worst)
    if path := os.environ.get("LASER_INTERP_SUPPORT"):
        with open(path, "a", encoding="utf-8") as out:
            out.write(f"{family}\t{str(dtype).removeprefix('torch.')}\t{' '.join(matrices)}\t{worst:.1e}\n")
