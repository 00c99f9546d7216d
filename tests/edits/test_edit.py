"""Theorems about edits, and what they refuse."""

import pytest
import torch

import laser_interp as li
from laser_interp.choices import rho_of_rate
from laser_interp.edits.edit_spec import EditSpec, describe_edits
from laser_interp.edits.sites import resolve
from laser_interp.models.hooks import count_hooks
from laser_interp.models.in_use import active_edits

PROMPTS = ["Mira Tolen was taught by", "In truth Mira Tolen was hired by"]


def weights(edit, site):
    return edit.parts[li.Site.parse(site)].weight


def difference(model, a, b):
    return float((model.next_token_logprobs(PROMPTS, a) - model.next_token_logprobs(PROMPTS, b)).abs().max())


@pytest.mark.parametrize("site", ["0.q", "1.o", "3.in", "2.out"])
@pytest.mark.parametrize("rank", [1, 3, 40])
def test_kept_and_discarded_add_up(organism, site, rank):
    laser = li.laser(organism, site, rank=rank)
    whole = organism.weight(*_place(site)).double()
    assert torch.allclose(weights(laser, site) + weights(laser.discarded(), site), whole, atol=1e-6)


def _place(site):
    parsed = li.Site.parse(site)
    return parsed.layer, parsed.matrix


def test_eckart_young(organism):
    """No other matrix of that rank is nearer, and the distance is that of the discarded values."""
    whole = organism.weight(3, "in").double()
    laser = li.laser(organism, "3.in", rank=5)
    distance = (whole - weights(laser, "3.in")).norm()
    values = torch.linalg.svdvals(whole)
    assert torch.linalg.matrix_rank(weights(laser, "3.in"), atol=1e-5) == 5
    assert torch.allclose(distance, values[5:].norm(), rtol=1e-6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        basis, _ = torch.linalg.qr(torch.randn(64, 5, dtype=torch.float64, generator=generator))
        best_in_it = basis @ (basis.T @ whole)
        assert (whole - best_in_it).norm() >= distance


def test_a_rate_is_that_of_the_published_scripts(organism):
    """Their 9.9 keeps a hundredth, and 9 a tenth."""
    assert rho_of_rate(9.9) == 0.01
    assert str(li.laser(organism, "3.in", rate=9)) == str(li.laser(organism, "3.in", rho=0.1))
    assert li.laser(organism, "3.in", rate=9).rho == 0.1
    assert describe_edits(organism, "3.in:rate=9.5") == describe_edits(organism, "3.in:0.05")


def test_a_site_in_two_words_is_the_site(organism):
    said = li.laser(organism, layer=3, matrix="in", rho=0.05)
    assert str(said.describe()) == str(li.laser(organism, "3.in", rho=0.05).describe())
    for wrong in ({}, {"layer": 3}, {"matrix": "in"}, {"where": "3.in", "layer": 3, "matrix": "in"}):
        with pytest.raises(ValueError, match="where does LASER act"):
            li.laser(organism, rho=0.05, **wrong)


def test_gains_of_one_are_the_model(organism):
    one = li.gains(organism, {"3.in": torch.ones(64)})
    assert difference(organism, one, None) < 1e-5


def test_inject_runs_from_the_edit_to_the_model(organism, laser):
    assert difference(organism, laser.inject(0), laser) == 0
    assert difference(organism, laser.inject(1), None) < 1e-5
    half = laser.inject(0.5)
    assert torch.allclose(
        weights(half, "3.in"), (weights(laser, "3.in") + organism.weight(3, "in").double()) / 2, atol=1e-6
    )


def test_edits_commute_across_sites(organism, laser):
    other = li.laser(organism, "2.out", rho=0.2)
    assert difference(organism, laser + other, other + laser) == 0
    with laser.on(organism), other.on(organism):
        nested = organism.next_token_logprobs(PROMPTS)
    assert torch.equal(nested, organism.next_token_logprobs(PROMPTS, laser + other))


def test_laser_inside_laser_is_the_smaller_laser(organism):
    small, large = li.laser(organism, "3.in", rank=2), li.laser(organism, "3.in", rank=30)
    expected = organism.next_token_logprobs(PROMPTS, small)
    for outer, inner in ((small, large), (large, small), (small, small)):
        with outer.on(organism), inner.on(organism):
            assert torch.equal(organism.next_token_logprobs(PROMPTS), expected)


def test_nested_gains_multiply_and_unwind(organism):
    a = li.gains(organism, {"3.in": torch.linspace(0, 2, 64)})
    b = li.gains(organism, {"3.in": torch.linspace(1, -1, 64)})
    product = li.gains(
        organism, {"3.in": torch.linspace(0, 2, 64, dtype=torch.float64) * torch.linspace(1, -1, 64).double()}
    )
    alone = organism.next_token_logprobs(PROMPTS, a)
    with a.on(organism):
        with b.on(organism):
            inside = organism.next_token_logprobs(PROMPTS)
        assert torch.equal(organism.next_token_logprobs(PROMPTS), alone)
    assert torch.allclose(inside, organism.next_token_logprobs(PROMPTS, product), atol=1e-5)
    assert not torch.allclose(inside, alone, atol=0.1)


def test_a_sum_of_edits_says_what_they_have_in_common(organism):
    half, also, more = (
        li.laser(organism, s, rank=3).inject(a) for s, a in (("3.in", 0.5), ("2.in", 0.5), ("1.in", 0.7))
    )
    assert (half + also).alpha == 0.5
    assert (half + more).alpha is None


@pytest.mark.parametrize("ends", ["start=0", "stop=4", ""])
def test_a_band_has_two_ends(organism, ends):
    with pytest.raises(ValueError, match="is a band without its ends: expected start=10 stop=50"):
        EditSpec.parse(f"3.in band {ends}".strip()).edit(organism)


def test_an_edit_that_adds_a_matrix_is_not_nested(organism, laser):
    pruned = li.controls.pruned(organism, "3.in", 0.5)
    for outer, inner in ((pruned, laser), (laser, pruned), (pruned, pruned)):
        with pytest.raises(ValueError, match="cannot be nested"), outer.on(organism), inner.on(organism):
            pass


def test_nothing_is_left_after_an_exception(organism, laser):
    before = organism.next_token_logprobs(PROMPTS)
    with laser.on(organism):
        assert count_hooks(organism) > 0
    with pytest.raises(RuntimeError, match="boom"), laser.on(organism):
        raise RuntimeError("boom")
    assert count_hooks(organism) == 0
    with pytest.raises(RuntimeError, match="boom"), laser.on(organism), laser.inject(2).on(organism):
        raise RuntimeError("boom")
    assert count_hooks(organism) == 0
    assert active_edits(organism) == {}
    assert torch.equal(organism.next_token_logprobs(PROMPTS), before)


def test_an_error_in_the_forward_pass_leaves_nothing(organism, laser):
    with pytest.raises(IndexError), laser.on(organism):
        organism.bridge(torch.tensor([[10_000]]))
    assert count_hooks(organism) == 0


def test_shares_of_the_discarded_part_grow_from_either_end(organism):
    laser = li.laser(organism, "3.in", rank=4)
    r = 64
    for share, n in ((0.01, 1), (0.1, 6), (0.5, 30), (1.0, 60)):
        bottom = laser.discarded(share).parts[li.Site(3, "in")].gains
        top = laser.discarded(share, start="top").parts[li.Site(3, "in")].gains
        assert bottom.count_nonzero() == top.count_nonzero() == n
        assert bottom[r - n :].all()
        assert top[4 : 4 + n].all()


class TestControls:
    def test_equal_rank_and_equal_norm(self, organism):
        laser = li.laser(organism, "3.in", rank=3)
        removed = laser.parts[li.Site(3, "in")].removed_energy
        for name in ("same_spectrum_random", "random_subspace", "random_equal_energy"):
            control = getattr(li.controls, name)(organism, laser, seed=1)
            assert control.parts[li.Site(3, "in")].removed_energy == pytest.approx(removed, rel=1e-5), name
        assert li.controls.random_kept(organism, laser, seed=1).rank == 3
        assert li.controls.bottom_kept(organism, laser).parts[li.Site(3, "in")].gains[-3:].all()

    def test_same_spectrum_means_the_same_spectrum(self, organism):
        laser = li.laser(organism, "3.in", rank=3)
        control = li.controls.same_spectrum_random(organism, laser, seed=0)
        subtracted = organism.weight(3, "in").double() - weights(control, "3.in")
        values = torch.linalg.svdvals(organism.weight(3, "in").double())
        assert torch.allclose(torch.linalg.svdvals(subtracted)[:61], values[3:], atol=1e-5)

    def test_a_seed_is_a_control(self, organism, laser):
        same = li.controls.random_kept(organism, laser, seed=5).parts[li.Site(3, "in")].gains
        assert torch.equal(same, li.controls.random_kept(organism, laser, seed=5).parts[li.Site(3, "in")].gains)
        assert not torch.equal(same, li.controls.random_kept(organism, laser, seed=6).parts[li.Site(3, "in")].gains)
        state = torch.random.get_rng_state()
        li.controls.same_spectrum_random(organism, laser, seed=0)
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_random_directions_of_equal_energy_are_drawn(self, organism, laser):
        """With a fixed order, all else being right, every draw would be one control."""
        drawn = [
            li.controls.random_equal_energy(organism, laser, seed=seed).parts[li.Site(3, "in")].gains
            for seed in range(40)
        ]
        kept = torch.stack([gains == 1 for gains in drawn]).double()
        assert len({tuple(row.tolist()) for row in kept}) == 40
        share = kept.mean(0)  # each direction is kept in some draws and removed in others
        assert float(share.min()) > 0
        assert float(share.max()) < 1
        assert torch.equal(
            drawn[3], li.controls.random_equal_energy(organism, laser, seed=3).parts[li.Site(3, "in")].gains
        )

    def test_layer_0(self, organism, laser):
        assert li.controls.same_rank_in_layer(organism, laser).sites == (li.Site(0, "in"),)
        with pytest.raises(ValueError, match="is a site of the edit itself"):
            li.controls.same_rank_in_layer(organism, laser, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda m: li.laser(m, "3.in"), "give exactly one"),
        (lambda m: li.laser(m, "3.in", 0.1, rank=2), "give exactly one"),
        (lambda m: li.laser(m, "3.in", 0.1, rate=2), "give exactly one"),
        (lambda m: li.laser(m, "3.in", rate=10), "rate is 10: expected a number of the published scripts, from 0"),
        (lambda m: li.laser(m, "3.in", rho=0), r"rho is 0: .* \(0, 1\]"),
        (lambda m: li.laser(m, "3.in", rho=1.2), r"rho is 1.2: .* \(0, 1\]"),
        (lambda m: li.laser(m, "3.in", rho=float("nan")), r"rho is nan"),
        (lambda m: li.laser(m, "3.in", rho=0.01), r"rho = 0.01 of rank 64 at 3.in rounds to rank 0: use rho >= 0.0156"),
        (lambda m: li.laser(m, "3.in", rank=0), "rank is 0: 3.in has ranks 1 to 64"),
        (lambda m: li.laser(m, "3.in", rank=65), "rank is 65: 3.in has ranks 1 to 64"),
        (lambda m: li.laser(m, "3.up", rho=0.1), "no matrix 'up': expected one of q, k, v, o, in, out, attn"),
        (lambda m: li.laser(m, "3.gate", rho=0.1), "no matrix 'gate'"),
        (lambda m: li.laser(m, "4.in", rho=0.1), "layer 4 is out of range: 'organism' has layers 0 to 3"),
        (lambda m: li.laser(m, "in", rho=0.1), "'in' is no site: expected LAYER.MATRIX"),
        (lambda m: li.Site(3, "2 up"), "unknown matrix '2 up'"),
        (lambda m: li.Site(-1, "in"), "layers count from 0"),
        (lambda m: li.Site.parse("3-in"), "'3-in' is no site"),
        (lambda m: li.gains(m, {"3.in": [1.0] * 63}), r"\(63,\) gains for 3.in: expected 64"),
        (lambda m: li.gains(m, {"3.in": [float("inf")] * 64}), "not all finite"),
        (lambda m: li.gains(m, {"3.in": [1.0] * 64, li.Site(3, "in"): [1.0] * 64}), "3.in is named twice"),
        (lambda m: li.gains(m, {}), "no gains given"),
        (lambda m: li.band(m, "3.in", 5, 5), "band 5:5 at 3.in"),
        (lambda m: li.band(m, "3.in", 0, 65), "band 0:65 at 3.in"),
        (lambda m: li.laser(m, "3.in", rank=2) + li.laser(m, "*.in", rank=3), "both edits act on 3.in"),
        (lambda m: li.laser(m, "3.in", rank=2).discarded(0), "share is 0"),
        (lambda m: li.laser(m, "3.in", rank=2).discarded(start="middle"), "start is 'middle'"),
        (lambda m: li.laser(m, "3.in", rho=1.0).discarded(), "discards nothing"),
        (lambda m: li.laser(m, "3.in", rank=2).inject(float("nan")), "alpha is nan"),
    ],
)
def test_refusals_name_the_value_and_what_is_allowed(organism, make, says):
    with pytest.raises(ValueError, match=says):
        make(organism)


def test_an_edit_of_another_model_is_refused(organism, laser):
    control = li.load_model("organism-control", device="cpu")
    with pytest.raises(ValueError, match="made from other weights"), laser.on(control):
        pass
    assert count_hooks(control) == 0


def test_forms_of_a_site(organism):
    from laser_interp.edits.sites import resolve

    assert li.laser(organism, li.Site(3, "in"), rank=3).sites == li.laser(organism, "3.in", rank=3).sites
    assert [str(s) for s in resolve(organism, "1.attn")] == ["1.q", "1.k", "1.v", "1.o"]
    assert [str(s) for s in resolve(organism, "*.mlp")] == [f"{n}.{m}" for n in range(4) for m in ("in", "out")]
    assert len(resolve(organism, "*.all")) == 24
    assert [str(s) for s in resolve(organism, ["3.in", "3.mlp"])] == ["3.in", "3.out"]


def test_rho_is_rounded_as_a_decimal():
    from laser_interp.edits.constructors import rank_of

    assert rank_of(0.29, 100) == 29  # 0.29 * 100 is 28.999999999999996
    assert rank_of(0.05, 64) == 3
    assert rank_of(0.01, 4096) == 40
    assert rank_of(1.0, 7) == 7


def test_displays(organism, laser):
    assert repr(laser) == "Edit(site=3.in, kind=laser, rho=0.05, rank_kept=3)"
    assert "3 of 64" in laser._repr_html_()
    both = laser + li.laser(organism, "2.out", rho=0.4)
    assert both.describe()["site"] == "2.out 3.in"
    assert both.rho is None


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("-1.in", ["3.in"]),
        ((3, "in"), ["3.in"]),
        ((-1, "out"), ["3.out"]),
        ("blocks.3.mlp.W_in", ["3.in"]),
        ("blocks.3.mlp.in", ["3.in"]),
        ("blocks.2.attn.W_Q", ["2.q"]),
        ("transformer.h.3.mlp.c_fc.weight", ["3.in"]),
        ("transformer.h.1.attn.c_proj.weight", ["1.o"]),
        ("h.1.mlp.c_proj", ["1.out"]),
        ("transformer.h.0.attn.c_attn.weight", ["0.q", "0.k", "0.v"]),
        ([(0, "in"), "1.o"], ["0.in", "1.o"]),
    ],
)
def test_sites_by_the_names_of_libraries(organism, name, sites):
    assert [str(site) for site in resolve(organism, name)] == sites


@pytest.mark.slow
def test_names_of_parameters_are_where_the_checkpoint_stores_them():
    """Every family's parameters, by their own names, against where each matrix is found by its values."""
    from families import FAMILIES, make, numbers_tokenizer

    from laser_interp.models.weights import stored_at

    for family in FAMILIES:
        model = li.load_model((make(family), numbers_tokenizer()), device="cpu")
        stored: dict[str, set[str]] = {}
        for matrix in model.matrices:
            stored.setdefault(stored_at(model, 1, matrix).name, set()).add(f"1.{matrix}")
        for name, sites in stored.items():
            assert {str(site) for site in resolve(model, name)} == sites, (family, name)


def test_sites_that_are_none(organism):
    for name in ("-5.in", (9, "in"), "blocks.9.mlp.W_in", "blocks.0.mlp.W_gate", "h.0.ln_1.weight", "in"):
        with pytest.raises(ValueError, match="out of range|no matrix|is no site"):
            resolve(organism, name)
