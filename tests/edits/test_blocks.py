"""Blocks: one block is LASER, blocks add up to the weight, and every edit works on them as on a whole matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import laser_interp as li
from laser_interp.edits.blocks import Blocks
from laser_interp.edits.factorisation import factorise, factorise_blocks

HOW = ["4", "4-inputs", "3-outputs-kmeans", "3-inputs-kmeans", "5-outputs"]
PROMPTS = ["Mira Tolen was taught by", "In truth Mira Tolen was hired by"]


@given(
    st.integers(2, 30),
    st.integers(2, 30),
    st.integers(2, 6),
    st.sampled_from(["outputs", "inputs"]),
    st.sampled_from(["contiguous", "kmeans"]),
    st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_blocks_add_up(d_in, d_out, number, side, grouped, seed):
    number = min(number, d_in, d_out)
    w = torch.randn(d_in, d_out, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    U, S, Vh, place, _ = factorise_blocks(w, Blocks(number, side, grouped))
    assert torch.allclose((U * S) @ Vh, w, atol=1e-10)
    assert float(S.square().sum()) == pytest.approx(float(w.square().sum()))
    assert torch.equal(place, place.sort().values)
    divided = U if side == "inputs" else Vh.T
    assert torch.allclose(divided.T @ divided, torch.eye(len(S), dtype=torch.float64), atol=1e-8)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_each_block_is_truncated_by_itself(k):
    """Against the obvious way: an SVD of each block alone."""
    w = torch.randn(12, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blocks = Blocks(3)
    U, S, Vh, place, _ = factorise_blocks(w, blocks)
    kept = (U * (S * (place < k))) @ Vh
    for columns in torch.arange(20).tensor_split(3):
        u, s, vh = factorise(w[:, columns])
        assert torch.allclose(kept[:, columns], (u[:, :k] * s[:k]) @ vh[:k], atol=1e-10)


@pytest.mark.parametrize("site", ["3.in", "1.q", "2.out"])
def test_one_block_is_laser(organism, site):
    whole = li.laser(organism, site, 0.1)
    for one in (1, "1", None, "1-inputs"):
        same = li.laser(organism, site, 0.1, blocks=one)
        assert same.parts[same.sites[0]].spectrum is whole.parts[whole.sites[0]].spectrum
        assert torch.equal(same.parts[same.sites[0]].gains, whole.parts[whole.sites[0]].gains)


@pytest.mark.parametrize("blocks", HOW)
def test_edits_of_blocks(organism, blocks):
    """LASER, the discarded part and injection, against edited weights; all blocks together are the model."""
    site = li.Site(3, "in")
    laser = li.laser(organism, site, 0.1, blocks=blocks)
    whole = organism.weight(3, "in").double()
    part = laser.parts[site]
    assert torch.allclose(part.weight + laser.discarded().parts[site].weight, whole, atol=1e-6)
    all_of_it = li.laser(organism, site, 1.0, blocks=blocks)
    assert all_of_it.rank == part.spectrum.max_rank
    as_trained = organism.next_token_logprobs(PROMPTS)
    assert torch.allclose(organism.next_token_logprobs(PROMPTS, all_of_it), as_trained, atol=1e-5)
    assert torch.allclose(organism.next_token_logprobs(PROMPTS, laser.inject(1)), as_trained, atol=1e-5)
    nearer = (whole - part.weight).norm()
    assert nearer < (whole - li.laser(organism, site, rank=part.spectrum.block_rank // 10).parts[site].weight).norm()


@pytest.mark.parametrize("blocks", HOW)
def test_both_engines_agree_on_blocks(organism, facts, blocks):
    few = facts.keep(facts.facts[:40])
    laser = li.laser(organism, "2.out", rank=3, blocks=blocks)
    edits = {"laser": laser, "tail": laser.discarded(), "whole": li.laser(organism, "2.out", rank=3)}
    edits["two"] = laser + li.laser(organism, "3.in", rank=2, blocks=blocks)
    fast, slow = (
        li.score(organism, few, edits, engine=engine, candidates=False, progress=False)
        for engine in ("fast", "reference")
    )
    assert (fast["logprob"] - slow["logprob"]).abs().max() < 1e-4


def test_every_control_can_be_made_of_blocks(organism):
    from laser_interp.edits.controls import CONTROLS

    laser = li.laser(organism, "3.in", 0.1, blocks=4)
    whole = organism.weight(3, "in").double()
    removed = (whole - laser.parts[li.Site(3, "in")].weight).square().sum()
    for name, control in CONTROLS.items():
        made = control.make(organism, laser, 0)
        organism.next_token_logprobs(PROMPTS, made)
        if control.is_placebo or name == "random_equal_energy":
            moved = (whole - made.parts[li.Site(3, "in")].weight).square().sum()
            assert float(moved) == pytest.approx(float(removed), rel=1e-4), name


def test_gradients_of_blocks(organism, facts):
    """Removing what one block discards changes log p by about minus the gradients, as for a whole matrix."""
    few = facts.keep(facts.split("validation").facts[:20])
    found = li.attribute(organism, few, ["3.in", "2.out"], blocks=4, progress=False)
    check = found.against_ablation(organism, few, block=8, progress=False)
    assert (check["spearman"] > 0.6).all()
    table = found.propose(rhos=(0.5, 0.1))
    row = table[(table["site"] == "3.in") & (table["rho"] == 0.1)].iloc[0]
    site = li.Site(3, "in")
    outside = found.places[site] >= int(row["rank"])
    assert row["predicted"] == pytest.approx(-found.gradients[site].mean(0)[outside].sum(), rel=1e-4)
    assert found.keep(found.prompts["split"].eq("validation").to_numpy()).blocks == Blocks(4)


def test_a_stored_spectrum_of_blocks_is_read_again(organism, monkeypatch, tmp_path):
    from laser_interp.edits.spectra import _of_weight

    monkeypatch.setenv("LASER_INTERP_CACHE", str(tmp_path))
    w = organism.weight(3, "in")
    made, read = (_of_weight(w, Blocks(4, "inputs", "kmeans")) for _ in range(2))
    assert len(list(tmp_path.rglob("*4-inputs-kmeans.safetensors"))) == 1
    assert all(torch.equal(getattr(made, name), getattr(read, name)) for name in ("U", "S", "Vh", "place", "block"))
    assert not torch.equal(_of_weight(w).U, made.U)


def test_an_export_of_blocks(organism, tmp_path):
    laser = li.laser(organism, "3.in", rank=1, blocks=4)
    li.export_dense(organism, laser, tmp_path / "dense")
    difference = li.load_model(str(tmp_path / "dense"), device="cpu").next_token_logprobs(
        PROMPTS
    ) - organism.next_token_logprobs(PROMPTS, laser)
    assert difference.abs().max() < 1e-4


@pytest.mark.parametrize("blocks", ["3-outputs-kmeans", "4-inputs-kmeans", "4-inputs"])
def test_the_smallest_directions_of_each_block_are_kept(organism, blocks):
    """Of blocks of any size: in each, as many directions as LASER keeps, and none is larger than one that is left."""
    laser = li.laser(organism, "3.in", rank=5, blocks=blocks)
    (part,) = li.controls.bottom_kept(organism, laser).parts.values()
    (kept,) = laser.parts.values()
    known = part.spectrum
    for block in known.block.unique():
        here = known.block == block
        assert int(part.gains[here].sum()) == int(kept.gains[here].sum())
        values, on = known.S[here], part.gains[here] != 0
        assert bool(on.all()) or float(values[on].max()) <= float(values[~on].min()) + 1e-12


def test_as_text(organism):
    from laser_interp.edits.edit_loading import read_edit

    laser = read_edit(organism, "3.in:rank=2:4-inputs")
    assert laser.rank == 8
    assert laser.describe()["kind"] == "laser[4-inputs]"
    band = li.EditSpec.parse("3.in+2.in band blocks=4-outputs start=0 stop=4").edit(organism)
    assert band.describe()["kind"] == "band[4-outputs]"
    assert len(band.sites) == 2
    cell = li.EditSpec.of(laser)
    assert str(cell) == "3.in laser rank=2 blocks=4-inputs"
    assert li.EditSpec.parse(str(cell)) == cell
    assert torch.equal(cell.edit(organism).parts[li.Site(3, "in")].gains, laser.parts[li.Site(3, "in")].gains)


@pytest.mark.slow
def test_a_search_over_blocks(organism, facts, tmp_path):
    """The race and the grid divide alike, and the chosen edit says so."""
    few = facts.keep(facts.split("validation").facts[:60] + facts.split("test").facts[:30])
    chosen = []
    for method in ("grid", "race"):
        found = li.search(
            organism, few, method=method, matrices="mlp", layers="2-3", rhos=(0.2, 0.1, 0.05, 0.01), blocks=4,
            out=tmp_path / method, progress=False,
        )  # fmt: skip
        chosen.append(found.select())
        assert str(chosen[-1].cell).endswith("blocks=4-outputs")
        assert chosen[-1].edit(organism).describe()["kind"] == "laser[4-outputs]"
    assert chosen[0].score == chosen[1].score
    again = li.search(
        organism, few, method="learned", matrices="in", layers=3, rhos=(0.1, 0.05), blocks=2, progress=False
    )  # fmt: skip
    assert again.select().edit(organism).describe()["kind"] == "gains[2-outputs]"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m, f: li.laser(m, "3.in", 0.1, blocks="many"), "blocks is 'many': expected a number"),
        (lambda m, f: li.laser(m, "3.in", 0.1, blocks=0), "blocks is 0"),
        (lambda m, f: li.laser(m, "3.in", 0.1, blocks=9999), "9999 blocks of 256 outputs"),
        (lambda m, f: li.search(m, f, blocks=4, bands=["0:4"]), "bands are parts of a whole matrix"),
        (lambda m, f: li.search(m, f, blocks=4, method="rmt", text="a"), "the method rmt looks at the spectrum"),
        (lambda m, f: li.spectrum(m, "3.in", blocks=4).noise_edge, "whole weight"),
    ],
)
def test_refused(organism, facts, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(organism, facts)


def test_other_directions_do_not_multiply(organism):
    with (
        li.laser(organism, "3.in", 0.1).on(organism),
        pytest.raises(ValueError, match="different directions"),
        li.laser(organism, "3.in", 0.1, blocks=4).on(organism),
    ):
        pass


def test_clusters_hold_what_points_the_same_way():
    one, other = torch.tensor([1.0, 0, 0, 1]), torch.tensor([0.0, 1, -1, 0])
    matrix = torch.stack([one, other, 2 * one, 3 * other, one, other], dim=1)
    _, _, Vh, _, block = factorise_blocks(matrix, Blocks(2, "outputs", "kmeans"))
    of_block = {tuple(Vh[block == number].abs().sum(0).nonzero().flatten().tolist()) for number in (0, 1)}
    assert of_block == {(0, 2, 4), (1, 3, 5)}
