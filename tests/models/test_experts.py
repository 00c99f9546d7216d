"""Mixtures of experts, as a user meets them. The families are compared with edited weights in test_more_families.py."""

import copy

import numpy as np
import pytest
import torch
import transformers
from families import _LLAMA_LIKE, numbers_tokenizer

import laser_interp as li
from laser_interp.models.experts import expert_of


def plain_mixture(n_experts=3):
    config = transformers.MixtralConfig(**_LLAMA_LIKE | {"num_local_experts": n_experts, "sliding_window": None})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = transformers.MixtralForCausalLM(config).eval()
        for parameter in hf.parameters():
            parameter.data += 0.15 * torch.randn_like(parameter)
    return hf


@pytest.fixture(scope="module")
def hf():
    return plain_mixture()


@pytest.fixture(scope="module")
def mixture(hf):
    return li.load_model((hf, numbers_tokenizer()))


@pytest.fixture
def facts():
    texts = [" ".join(str(22 + (7 * i + j) % 60) for j in range(3 + i % 4)) for i in range(2, 14)]
    return li.load_facts(
        [{"subject": str(i), "relation": "r", "object": str(60 + i), "prompt": t} for i, t in enumerate(texts)]
    )


@pytest.mark.parametrize(
    ("where", "sites"),
    [
        ("1.in.e2", ["1.in.e2"]),
        ("1.*.e2", ["1.gate.e2", "1.in.e2", "1.out.e2"]),
        ("*.out.e0", ["0.out.e0", "1.out.e0", "2.out.e0"]),
        ("1.router", ["1.router"]),
        ("model.layers.1.mlp.gate.weight", ["1.router"]),
        ("model.layers.1.block_sparse_moe.gate.weight", ["1.router"]),
        ("-1.in.e*", ["2.in.e0", "2.in.e1", "2.in.e2"]),
        ("model.layers.0.mlp.experts.down_proj", ["0.out.e0", "0.out.e1", "0.out.e2"]),
        ("model.layers.0.mlp.experts.1.down_proj.weight", ["0.out.e1"]),
        ("model.layers.2.block_sparse_moe.experts.0.w3.weight", ["2.in.e0"]),
    ],
)
def test_sites(mixture, where, sites):
    assert [str(site) for site in li.laser(mixture, where, rank=2).sites] == sites
    assert li.Site.parse(sites[0]).matrix == sites[0].partition(".")[2]


def test_groups_and_refusals(mixture):
    assert len(li.laser(mixture, "0.experts", rank=2).sites) == len(li.laser(mixture, "0.mlp", rank=2).sites) == 9
    assert len(li.laser(mixture, "0.all", rank=2).sites) == 13  # a router is only meant by its name
    assert "0.router" in mixture.sites
    with pytest.raises(ValueError, match="has no matrix"):
        li.laser(mixture, "0.rout*", rank=2)
    assert (expert_of("in.e12"), expert_of("in.shared"), expert_of("in")) == (12, None, None)
    with pytest.raises(
        ValueError, match=r"has no matrix 'in': expected one of q, .* in.e0, gate.e0, out.e0, .* experts"
    ):
        li.laser(mixture, "0.in", rank=2)
    with pytest.raises(ValueError, match=r"has no matrix 'in.e7'.*; experts are e0 to e2, and in.e\* are those of all"):
        li.laser(mixture, "0.in.e7", rank=2)
    with pytest.raises(ValueError, match="has no experts"):
        li.expert_shares(li.load_model("organism"), li.load_facts("organism"))


def test_two_edits_of_one_layer_may_be_on_together(hf, mixture):
    """Their hooks stand on the same module; the weights never change, after an exception neither."""
    ids = torch.tensor([[22, 29, 36, 43, 57, 64, 78]])
    experts = [module for module in mixture.bridge.modules() if hasattr(module, "is_concatenated")]
    weights = copy.deepcopy([list(module.parameters()) for module in experts])
    one, other = li.laser(mixture, "0.in.e0", rank=2), li.laser(mixture, "0.out.e1", rank=2)

    def found():
        with torch.no_grad():
            return mixture.bridge(ids, return_type="logits")

    with (one + other).on(mixture):
        both = found()
    with other.on(mixture):
        alone = found()
    with other.on(mixture):
        with one.on(mixture):
            assert torch.allclose(found(), both, atol=1e-5)
        assert torch.equal(found(), alone)
    with pytest.raises(RuntimeError, match="on purpose"), one.on(mixture):
        raise RuntimeError("on purpose")
    with torch.no_grad():
        assert torch.allclose(found(), hf(ids).logits, atol=1e-5)
    for module, before in zip(experts, weights, strict=True):
        assert all(torch.equal(now, then) for now, then in zip(module.parameters(), before, strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in experts)


def test_engines_placement_and_attribution(mixture, facts):
    edit = li.laser(mixture, "1.in.e1", rho=0.25) + li.laser(mixture, ["0.out.e0", "1.router"], rho=0.5)
    edits = {"base": None, "edit": edit, "rest": edit.discarded(), "last": edit.at(mixture, "last", facts)}
    fast, reference = (li.score(mixture, facts, edits, engine=engine) for engine in ("fast", "reference"))
    assert (fast["logprob"] - reference["logprob"]).abs().max() < 1e-5
    few = facts.keep(facts.facts[:3])
    directions = li.attribute(mixture, few, ["0.in.e1", "1.out.e2", "1.gate.e0", "1.router"], progress=False)
    for site, gradients in directions.gradients.items():  # against finite differences
        ones = torch.ones(gradients.shape[1])
        more, less = (ones.index_fill(0, torch.tensor([0]), 1 + step) for step in (0.01, -0.01))
        edits = {"more": li.gains(mixture, {site: more}), "less": li.gains(mixture, {site: less})}
        scores = li.score(mixture, few, edits, candidates=False)
        found = [scores[scores["edit"] == name]["logprob"].to_numpy() for name in edits]
        assert gradients[:, 0] == pytest.approx((found[0] - found[1]) / 0.02, rel=0.02, abs=2e-3), site


def test_an_observer_and_an_edit_of_one_expert_see_each_other(mixture, facts):
    """Gradients at the gains of an edit of the same expert, against finite differences; shares while it is on."""
    few = facts.keep(facts.facts[:4])
    edit = li.laser(mixture, "0.out.e0", rho=0.25)
    directions = li.attribute(mixture, few, ["0.in.e0", "0.out.e0"], edit=edit, progress=False)
    for site, gradients in directions.gradients.items():
        assert np.abs(gradients).max() > 1e-3, site
    ones = torch.ones(directions.gradients[li.Site(0, "in.e0")].shape[1])
    more, less = (
        edit + li.gains(mixture, {"0.in.e0": ones.index_fill(0, torch.tensor([0]), 1 + step)}) for step in (0.01, -0.01)
    )
    scores = li.score(mixture, few, {"more": more, "less": less}, candidates=False)
    found = [scores[scores["edit"] == name]["logprob"].to_numpy() for name in ("more", "less")]
    slopes = (found[0] - found[1]) / 0.02
    assert directions.gradients[li.Site(0, "in.e0")][:, 0] == pytest.approx(slopes, rel=0.02, abs=2e-3)
    with edit.on(mixture):
        under = li.expert_shares(mixture, few).query("layer == 0")
    before = li.expert_shares(mixture, few).query("layer == 0")
    assert np.allclose(under["weight"], before["weight"])


def test_tokens_of_other_experts_may_overflow():
    """The numbers of an expert that is not chosen are too large: an edit of it changes nothing."""
    hf = plain_mixture(8)
    facts = li.load_facts([{"subject": "1", "relation": "r", "object": "60", "prompt": "22 29"}])
    shares = li.expert_shares(li.load_model((hf, numbers_tokenizer())), facts)
    (other, *_) = set(range(8)) - set(shares.query("layer == 1")["expert"])
    with torch.no_grad():
        hf.model.layers[1].mlp.experts.gate_up_proj[other] *= 1e25
    model = li.load_model((hf, numbers_tokenizer()), self_check=False)
    expected = model.next_token_logprobs("22 29")
    assert torch.isfinite(expected).all()
    edit = li.laser(model, f"1.out.e{other}", rank=2)
    assert torch.allclose(model.next_token_logprobs("22 29", edit), expected, atol=1e-5)


def test_paths_of_attention_in_a_mixture():
    """What an edit of o does directly and through the rest: neither is possible for an expert, which is said."""
    model, facts = li.load_model("organism-experts"), li.load_facts("organism-experts")[:20]
    edit = li.laser(model, "3.o", rank=2)
    edits = {"whole": edit, "direct": edit.via("direct"), "indirect": edit.via("indirect"), "base": None}
    found = li.score(model, facts, edits, progress=False).groupby("edit")["logprob"].mean()
    assert found["direct"] != pytest.approx(found["base"], abs=1e-3)
    assert found["whole"] != pytest.approx(found["direct"], abs=1e-3)
    with pytest.raises(ValueError, match="does not write into the residual stream as it is"):
        li.score(model, facts, li.laser(model, "3.out.e0", rank=2).via("direct"), progress=False)


def test_models_of_one_bridge_know_each_others_edits(mixture, facts):
    other = li.load_model(mixture.bridge, tokenizer=mixture.tokenizer)
    with (
        li.laser(mixture, "1.o", rank=1).on(mixture),
        pytest.raises(ValueError, match="scoring needs the model as trained"),
    ):
        li.score(other, facts, {"base": None})
    copied = li.load_model(copy.deepcopy(mixture.bridge), tokenizer=mixture.tokenizer)
    with li.laser(mixture, "1.o", rank=1).on(mixture):
        alone = li.score(copied, facts, {"base": None}, progress=False)["logprob"]
    assert (alone - li.score(mixture, facts, {"base": None}, progress=False)["logprob"]).abs().max() < 1e-6
    with pytest.raises(ValueError, match="is inside a bridge of TransformerLens already"):
        li.load_model((mixture.hf_model, mixture.tokenizer))


def test_an_edited_mixture_is_exported(mixture, facts, tmp_path):
    edit = li.laser(mixture, "1.in.e1", rho=0.25) + li.laser(mixture, ["0.out.e0", "2.router"], rho=0.5)
    li.export_dense(mixture, edit, tmp_path / "dense")
    again = li.load_model(tmp_path / "dense")
    scores = li.score(mixture, facts, {"edit": edit})
    assert np.abs(li.score(again, facts, {"base": None})["logprob"] - scores["logprob"]).max() < 1e-5
    for site, what in (("0.out.e0", "one expert"), ("0.router", "the router")):
        with pytest.raises(ValueError, match=f"{site} is {what} of a mixture, which no adapter of peft holds"):
            li.export_adapter(mixture, li.laser(mixture, site, rank=1), tmp_path / "adapter")


def test_shares_are_those_of_the_router(hf, mixture, facts):
    shares = li.expert_shares(mixture, facts)
    assert (shares.groupby(["fact_id", "prompt_id", "layer"])["tokens"].sum() - 2).abs().max() < 1e-9
    text = facts.facts[3].prompts[0]
    with torch.no_grad():
        logits = hf(torch.tensor([mixture.encode(text)]), output_router_logits=True).router_logits
    for layer, of_layer in enumerate(logits):
        weights, chosen = of_layer.softmax(-1).topk(2)
        own = shares[(shares["fact_id"] == facts.facts[3].fact_id) & (shares["layer"] == layer)].set_index("expert")
        for expert in range(3):
            here = (chosen == expert).any(-1)
            assert own["tokens"].get(expert, 0.0) == pytest.approx(float(here.float().mean()))
            assert bool(own["last"].get(expert, False)) == bool(here[-1])
            if here.any():
                normed = (weights / weights.sum(-1, keepdim=True))[chosen == expert]
                assert own.loc[expert, "weight"] == pytest.approx(float(normed.mean()), rel=1e-4)


def test_what_no_answer_reaches_is_not_proposed(facts):
    """Of many experts in the last layer, those that the router chooses for no last token."""
    model = li.load_model((plain_mixture(12), numbers_tokenizer()))
    found = li.search(model, facts, method="race", matrices="experts", layers=[2], progress=False)
    gradients = li.attribute(model, found.facts.split("validation"), "2.experts", progress=False).gradients
    gone = [str(site) for site, values in gradients.items() if not values.any()]
    short = facts.keep([fact for fact in facts.facts if 62 <= int(fact.object) <= 69])  # answers of one token
    table = li.attribute(model, short, "2.experts", progress=False).summary().set_index(["site", "direction"])
    last = li.expert_shares(model, short).query("layer == 2 and last").groupby("expert").size() / len(short)
    for expert in range(12):  # in the last layer, an answer depends on what its last token asks
        reached = table["share_reached"][f"2.out.e{expert}", 0]
        assert reached == pytest.approx(last.get(expert, 0.0)), expert
    assert 0 < len(gone) < 36
    assert any(note.startswith(f"{len(gone)} sites change no answer of the validation") for note in found.notes)
    assert not set(gone) & set(found.cells["site"])


def test_an_edited_router_chooses_other_experts(hf, mixture, facts):
    """Also inside a block that edits an expert, and after an exception inside the router."""
    ids = torch.tensor([[22, 29, 36, 43, 57, 64, 78]])
    edited = copy.deepcopy(hf)
    router = edited.model.layers[1].mlp.gate
    U, S, Vh = torch.linalg.svd(router.weight.detach().double(), full_matrices=False)
    router.weight.data = ((U[:, :1] * S[:1]) @ Vh[:1]).float()
    edit = li.laser(mixture, "1.router", rank=1)
    with torch.no_grad(), li.gains(mixture, {"1.in.e0": torch.ones(32)}).on(mixture), edit.on(mixture):
        assert torch.allclose(mixture.bridge(ids, return_type="logits"), edited(ids).logits, atol=1e-5)
        under = li.expert_shares(mixture, facts).query("layer == 1")
    before = li.expert_shares(mixture, facts).query("layer == 1")
    tokens, tokens_before = (shares.groupby("expert")["tokens"].sum() for shares in (under, before))
    assert (tokens - tokens_before).abs().max() > 1

    def fail(module, args, y):
        raise KeyboardInterrupt

    with edit.on(mixture):
        handle = mixture.maps[1, "router"].of_mixture.register_forward_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            mixture.bridge(ids)
        handle.remove()
    assert not torch.overrides._get_current_function_mode_stack()
    with torch.no_grad():
        assert torch.allclose(mixture.bridge(ids, return_type="logits"), hf(ids).logits, atol=1e-5)


@pytest.mark.slow
def test_which_expert_holds_the_tail():
    """What docs/organism.md says of the shipped mixture."""
    from analyses.experts import by_expert, experts, in_words

    table = by_expert(li.load_model("organism-experts"), li.load_facts("organism-experts"), [3])
    best = table.iloc[0]
    assert (best["site"], best["rank"], best["answers"]) == ("3.gate.e2", 1, 1.0)
    assert best["nats"] == pytest.approx(0.383, abs=0.002)
    assert best["generic"] == pytest.approx(0.374, abs=0.002)
    assert best["accuracy"] == pytest.approx(0.1975, abs=0.003)
    assert best["deleted"] == pytest.approx(-0.863, abs=0.002)
    assert best["random_best"] < -0.8
    others = table[table["expert"] != 2]
    assert (others["deleted"] > others["nats"] - 0.02).all()  # there, deleting does as much
    assert "to this expert" in in_words(table)[1]
    assert len(experts(table).axes) == 1


@pytest.mark.slow
def test_a_mixture_in_float64():
    """transformers' product in groups refuses it, so the experts run one by one."""
    scores = {}
    facts = li.load_facts("organism-experts")[:20]
    for dtype, engine in (("float32", "fast"), ("float64", "fast"), ("float64", "reference")):
        model = li.load_model("organism-experts", dtype=dtype)
        edits = {"base": None, "laser": li.laser(model, "3.gate.e2", rank=1)}
        scores[dtype, engine] = li.score(model, facts, edits, engine=engine, progress=False)["logprob"].to_numpy()
    exact = scores["float64", "reference"]
    assert abs(scores["float64", "fast"] - exact).max() < 1e-10
    assert abs(scores["float32", "fast"] - exact).max() < 1e-4
