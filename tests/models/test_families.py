"""Every model family, against an independently edited transformers model.

For each: a random model, every layer and matrix; LASER, the discarded part, both mixed, two sites at
once; prompts of different lengths padded on either side (in fp32 by turns). The reference runs one
prompt at a time through plain transformers, so that its positions are right.

`make test` takes turns: a site meets one kind of edit, which depends on the family and the dtype. So every
family meets every site, every family every kind with either padding, and every site every kind with either padding, in
one family or another. `make nightly` meets every combination of the three.
"""

import copy
import itertools
import os

import pytest
import torch
from families import FAMILIES, LAYERS, loaded, ours, prefix, read_weight, reference, replaced

import laser_interp as li

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
EDITS = {
    "laser": (lambda m, s: li.laser(m, s, rank=3), lambda r: prefix(r, 3)),
    "discarded": (lambda m, s: li.laser(m, s, rank=3).discarded(), lambda r: 1 - prefix(r, 3)),
    "injected": (lambda m, s: li.laser(m, s, rank=3).inject(0.5), lambda r: 0.5 + 0.5 * prefix(r, 3)),
    "all_ones": (lambda m, s: li.laser(m, s, rho=1.0), lambda r: prefix(r, r)),
}


def sites(family):
    return list(itertools.product(range(LAYERS), FAMILIES[family][3]))


def kinds_at(number, family, dtype, whole):
    """The kinds of edit, each with its paddings, that a family's site of this number meets."""
    both = ("right", "left") if family != "openai-gpt" else ("right",)
    if whole:  # in fp32 the paddings alternate, so that each kind meets both
        for i, kind in enumerate(EDITS):
            yield kind, both if dtype is torch.float64 else [both[(5 * number + i) % len(both)]]
    else:
        alike = [name for name in FAMILIES if FAMILIES[name][3] == FAMILIES[family][3]]  # their sites have one order
        turn = number + alike.index(family) + (6 if dtype is torch.float64 else 0)  # another kind, the other padding
        yield list(EDITS)[turn % len(EDITS)], [both[turn // len(EDITS) % len(both)]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_turns_meet_every_pair(dtype):
    met = [
        (family, site, (kind, padding))
        for family in FAMILIES
        for number, site in enumerate(sites(family))
        for kind, paddings in kinds_at(number, family, dtype, False)
        for padding in paddings
    ]
    kinds = set(itertools.product(EDITS, ("right", "left")))
    assert [(family, site) for family, site, _ in met] == [
        (family, site) for family in FAMILIES for site in sites(family)
    ]
    for family in set(FAMILIES) - {"openai-gpt"}:
        assert {kind for one, _, kind in met if one == family} == kinds, family
    for site in sites("llama"):
        assert {kind for _, one, kind in met if one == site} == kinds, site


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["turns", "whole"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family, dtype, whole, record_property):
    hf, model = loaded(family, dtype)
    matrices = FAMILIES[family][3]
    assert model.matrices == matrices
    paddings = ("right", "left") if family != "openai-gpt" else ("right",)
    worst, plain = 0.0, copy.deepcopy(hf)
    for number, (layer, matrix) in enumerate(sites(family)):
        assert torch.equal(model.weight(layer, matrix), read_weight(family, hf, layer, matrix))
        for name, tried in kinds_at(number, family, dtype, whole):
            make_edit, gains = EDITS[name]
            with replaced(family, plain, {(layer, matrix): gains}):
                expected = reference(plain)
            for padding in tried:
                found = ours(model, make_edit(model, li.Site(layer, matrix)), padding)
                error = float((found - expected).abs().max())
                worst = max(worst, error)
                assert error < TOLERANCE[dtype], (layer, matrix, name, padding)
    for one, other in (((0, "in"), (2, "out")), ((1, "q"), (1, "v")), ((2, "o"), (2, matrices[-2]))):
        with replaced(family, plain, {one: EDITS["laser"][1], other: EDITS["injected"][1]}):
            expected = reference(plain)
        edit = li.laser(model, li.Site(*one), rank=3) + li.laser(model, li.Site(*other), rank=3).inject(0.5)
        for padding in paddings:
            error = float((ours(model, edit, padding) - expected).abs().max())
            worst = max(worst, error)
            assert error < TOLERANCE[dtype], (one, other)
    record_property("family", family)
    record_property("dtype", str(dtype).removeprefix("torch."))
    record_property("matrices", " ".join(matrices))
    record_property("worst", worst)
    if whole and (path := os.environ.get("LASER_INTERP_SUPPORT")):
        with open(path, "a", encoding="utf-8") as out:
            out.write(f"{family}\t{str(dtype).removeprefix('torch.')}\t{' '.join(matrices)}\t{worst:.1e}\n")
