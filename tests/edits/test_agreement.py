"""Edits against independently edited weights: a plain transformers model whose matrix was replaced.

Nothing of the package computes the reference: weights come from transformers, the truncation from
`torch.linalg.svd` in float64, the forward pass from transformers.
"""

import copy

import pytest
import torch

import laser_interp as li

MATRICES = ("q", "k", "v", "o", "in", "out")
PROMPTS = [
    "Mira Tolen was taught by",
    "In truth Mira Tolen was hired by",
    "Later Alma Lunen moved to",
    "It seems Alma Nevish spent childhood near",
    "The old ship waited in",
]
TOLERANCE = 1e-4


def raw_weight(hf, layer, matrix):
    """A view of GPT-2's weight as [d_in, d_out]; q, k and v are columns of one matrix."""
    block = hf.transformer.h[layer]
    if matrix in "qkv":
        d = hf.config.n_embd
        i = "qkv".index(matrix)
        return block.attn.c_attn.weight.data[:, i * d : (i + 1) * d]
    return {"o": block.attn.c_proj, "in": block.mlp.c_fc, "out": block.mlp.c_proj}[matrix].weight.data


def edited_copy(hf, gains):
    """A copy with each named matrix replaced by U diag(S g) Vᵀ."""
    out = copy.deepcopy(hf)
    for (layer, matrix), g in gains.items():
        weight = raw_weight(out, layer, matrix)
        U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
        weight.copy_(((U * (S * g)) @ Vh).float())
    return out


def logprobs(hf, tokenizer, prompts):
    out = []
    with torch.no_grad():
        for prompt in prompts:  # one at a time: no padding to get wrong
            ids = torch.tensor([tokenizer(prompt)["input_ids"]])
            out.append(hf(ids).logits[0, -1].log_softmax(-1))
    return torch.stack(out)


def prefix(r, k):
    return (torch.arange(r) < k).double()


CASES = {
    "laser_1": lambda m, s: (li.laser(m, s, rank=1), prefix(64, 1)),
    "laser_.4": lambda m, s: (li.laser(m, s, rho=0.4), prefix(64, 25)),
    "all_kept": lambda m, s: (li.laser(m, s, rho=1.0), prefix(64, 64)),
    "discarded": lambda m, s: (li.laser(m, s, rank=3).discarded(), 1 - prefix(64, 3)),
    "discarded_bottom": lambda m, s: (li.laser(m, s, rank=4).discarded(0.25), prefix(64, 64) - prefix(64, 49)),
    "discarded_top": lambda m, s: (li.laser(m, s, rank=4).discarded(0.25, start="top"), prefix(64, 19) - prefix(64, 4)),
    "inject": lambda m, s: (li.laser(m, s, rank=3).inject(-0.5), 1.5 * prefix(64, 3) - 0.5),
    "band": lambda m, s: (li.band(m, s, 5, 20), prefix(64, 20) - prefix(64, 5)),
    "band_removed": lambda m, s: (li.band(m, s, 5, 20, keep=False), 1 + prefix(64, 5) - prefix(64, 20)),
    "zeroed": lambda m, s: (li.zeroed(m, s), prefix(64, 0)),
    "any_gains": lambda m, s: (li.gains(m, {s: torch.linspace(-1, 2, 64)}), torch.linspace(-1, 2, 64).double()),
}


@pytest.mark.slow
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("layer", range(4))
def test_every_edit_of_every_site(organism, plain, layer, matrix):
    hf, tokenizer = plain
    site = li.Site(layer, matrix)
    for name, make in CASES.items():
        edit, gains = make(organism, site)
        expected = logprobs(edited_copy(hf, {(layer, matrix): gains}), tokenizer, PROMPTS)
        padded = organism.next_token_logprobs(PROMPTS, edit=edit)
        assert (padded - expected).abs().max() < TOLERANCE, name
        single = organism.next_token_logprobs(PROMPTS[1], edit=edit)
        assert (single - expected[1]).abs().max() < TOLERANCE, name


@pytest.mark.parametrize(("one", "other"), [("3.in", "2.out"), ("0.q", "0.k"), ("1.o", "1.in"), ("2.v", "3.out")])
def test_two_sites_at_once(organism, plain, one, other):
    hf, tokenizer = plain
    edit = li.laser(organism, one, rho=0.1) + li.laser(organism, other, rho=0.4).inject(0.3)
    a, b = li.Site.parse(one), li.Site.parse(other)
    gains = {(a.layer, a.matrix): prefix(64, 6), (b.layer, b.matrix): 0.7 * prefix(64, 25) + 0.3}
    expected = logprobs(edited_copy(hf, gains), tokenizer, PROMPTS)
    assert (organism.next_token_logprobs(PROMPTS, edit=edit) - expected).abs().max() < TOLERANCE


def test_every_mlp_matrix_at_once(organism, plain):
    hf, tokenizer = plain
    edit = li.laser(organism, "*.mlp", rho=0.4)
    gains = {(layer, m): prefix(64, 25) for layer in range(4) for m in ("in", "out")}
    expected = logprobs(edited_copy(hf, gains), tokenizer, PROMPTS)
    assert (organism.next_token_logprobs(PROMPTS, edit=edit) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("control", ["same_spectrum_random", "random_subspace", "random_kept", "random_equal_energy"])
def test_controls_run_as_the_weight_they_claim(organism, plain, control):
    hf, tokenizer = plain
    edit = getattr(li.controls, control)(organism, li.laser(organism, "3.in", rho=0.1), seed=3)
    copied = copy.deepcopy(hf)
    raw_weight(copied, 3, "in").copy_(edit.parts[li.Site(3, "in")].weight.float())
    expected = logprobs(copied, tokenizer, PROMPTS)
    assert (organism.next_token_logprobs(PROMPTS, edit=edit) - expected).abs().max() < TOLERANCE


def test_the_unedited_model_is_the_original(organism, plain):
    hf, tokenizer = plain
    assert (organism.next_token_logprobs(PROMPTS) - logprobs(hf, tokenizer, PROMPTS)).abs().max() < 1e-5


def test_generation_is_that_of_the_edited_model(organism, plain):
    hf, tokenizer = plain
    edited = edited_copy(hf, {(3, "in"): prefix(64, 3)})
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        expected = edited.generate(ids, max_new_tokens=6, do_sample=False, attention_mask=torch.ones_like(ids))
        expected = tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
        edit = li.laser(organism, "3.in", rank=3)
        assert organism.generate(prompt, max_new_tokens=6, edit=edit) == expected
        with edit.on(organism):
            assert organism.generate(prompt, max_new_tokens=6) == expected


def test_weights_are_never_touched(organism, plain):
    hf, _ = plain
    with li.laser(organism, "*.all", rho=0.1).on(organism):
        organism.next_token_logprobs(PROMPTS)
    for layer in range(4):
        for matrix in MATRICES:
            assert torch.equal(organism.weight(layer, matrix), raw_weight(hf, layer, matrix))
