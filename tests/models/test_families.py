"""Every model family, against an independently edited transformers model.

For each: a random model, every layer and matrix; LASER, the discarded part, both mixed, two sites at
once; prompts of different lengths padded on either side (in fp32 by turns). The reference runs one
prompt at a time through plain transformers, so that its positions are right.
"""

import os

import pytest
import torch
from families import FAMILIES, LAYERS, edited, loaded, ours, prefix, read_weight, reference

import laser_interp as li

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
EDITS = {
    "laser": (lambda m, s: li.laser(m, s, rank=3), lambda r: prefix(r, 3)),
    "discarded": (lambda m, s: li.laser(m, s, rank=3).discarded(), lambda r: 1 - prefix(r, 3)),
    "injected": (lambda m, s: li.laser(m, s, rank=3).inject(0.5), lambda r: 0.5 + 0.5 * prefix(r, 3)),
    "all_ones": (lambda m, s: li.laser(m, s, rho=1.0), lambda r: prefix(r, r)),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family, dtype, record_property):
    hf, model = loaded(family, dtype)
    matrices = FAMILIES[family][3]
    assert model.matrices == matrices
    paddings = ("right", "left") if family != "openai-gpt" else ("right",)
    worst, n_tried = 0.0, 0
    for layer in range(LAYERS):
        for matrix in matrices:
            n_tried += 1  # so that each edit meets both paddings
            assert torch.equal(model.weight(layer, matrix), read_weight(family, hf, layer, matrix))
            for name, (make_edit, gains) in EDITS.items():
                expected = reference(edited(family, hf, {(layer, matrix): gains}))
                n_tried += 1
                for padding in paddings if dtype is torch.float64 else [paddings[n_tried % len(paddings)]]:
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
