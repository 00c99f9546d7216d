"""Gradients by the gains, what is read off directions, and a component planted to be found."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from families import build
from tokenizers import Tokenizer, models, pre_tokenizers

import laser_interp as li
from laser_interp.discarded.attribution import attribute
from laser_interp.discarded.direction_tokens import bands, importance, read_band, stability
from laser_interp.discarded.selective_edits import choose_selective, selective
from laser_interp.edits.spectra import spectrum
from laser_interp.facts.files import facts_from_rows
from laser_interp.models.forward import activations


@pytest.fixture(scope="module")
def validation(facts):
    return facts.split("validation")


@pytest.fixture(scope="module")
def attribution(organism, validation):
    return attribute(organism, validation, progress=False)


def differences(model, facts, site, direction, step=1e-5):
    """∂ log p / ∂ gain by central differences, through `li.score`."""
    r = spectrum(model, li.Site.parse(site)).max_rank
    runs = {}
    for sign in (1, -1):
        vector = np.ones(r)
        vector[direction] += sign * step
        runs[str(sign)] = li.gains(model, {site: vector})
    scores = li.score(model, facts, runs, candidates=False, progress=False)
    up, down = (scores.loc[scores["edit"] == sign, "logprob"].to_numpy() for sign in ("1", "-1"))
    return (up - down) / (2 * step)


@pytest.mark.slow
def test_gradients_equal_finite_differences(facts):
    model = li.load_model("organism", device="cpu", dtype="float64")
    few = facts.keep(facts.facts[::40])
    found = attribute(model, few, progress=False)
    assert len(found.sites) == 24
    for site in found.sites:
        for direction in (0, 5, 63):
            expected = differences(model, few, str(site), direction)
            error = np.abs(found.gradients[site][:, direction] - expected).max()
            assert error <= 1e-3 * np.abs(expected).max() + 1e-9, (site, direction)
    scores = li.score(model, few, {"base": None}, progress=False)
    assert np.allclose(found.prompts["logprob"], scores["logprob"], atol=1e-9)


@pytest.mark.parametrize("family", ["llama", "gptj", "bert", "gemma3", "olmo", "olmo2", "smollm3", "qwen3_tied"])
def test_gradients_of_other_families_and_of_long_answers(family):
    model = build(family)
    facts = facts_from_rows(
        [
            {"fact_id": "1", "subject": "waa", "relation": "r", "object": "wba wbb", "prompt": "waa wab wac"},
            {"fact_id": "2", "subject": "wcc", "relation": "r", "object": "wcd", "prompt": "wcc wce"},
        ]
    )
    found = attribute(model, facts, progress=False)
    for site in ("1.q", "0.in", "2.out"):
        expected = differences(model, facts, site, 0, step=1e-2)
        assert np.allclose(found.gradients[li.Site.parse(site)][:, 0], expected, rtol=0.02, atol=2e-3), site
    scores = li.score(model, facts, {"base": None}, candidates=False, progress=False)
    assert np.allclose(found.prompts["logprob"], scores["logprob"], atol=1e-4)


def test_predictions_agree_with_ablations(organism, validation, attribution):
    few = validation.keep(validation.facts[:40])
    found = attribution.keep(np.arange(len(few) * 2))
    table = found.against_ablation(organism, few, "3.mlp", progress=False).set_index("site")
    assert (table["spearman_prompts"] > 0.8).all()
    assert table.loc["3.out", "spearman"] > 0.95
    assert table.loc["3.in", "ratio"] == pytest.approx(1, abs=0.3)
    blocks = found.against_ablation(organism, few, "3.in", block=8, n_blocks=4, progress=False)
    assert blocks["n_blocks"].tolist() == [4]
    with pytest.raises(ValueError, match="made from other facts"):
        found.against_ablation(organism, validation, "3.in")


@pytest.mark.slow
def test_the_screen_proposes_what_the_sweep_selects(organism, facts, attribution, validation):
    hundred = attribution.keep(np.arange(200))  # of 100 facts
    best = hundred.propose().iloc[0]
    chosen = li.search(organism, facts, method="grid", matrices="mlp", progress=False).select()
    assert best["site"] == str(chosen.cell.site)
    top = li.score(organism, validation, {"x": li.laser(organism, best["site"], rank=int(best["rank"]))})["top1"].mean()
    assert top > chosen.score - 0.02
    control, own = li.load_model("organism-control", device="cpu"), li.load_facts("organism-control")
    there = attribute(control, own.split("validation"), progress=False).propose()
    assert there["predicted"].iloc[0] < 0.5 * best["predicted"]


def test_selective_edits(organism, facts, attribution):
    edits, table = choose_selective(organism, facts, attribution, "3.in", 1, progress=False)
    top1 = table.pivot(index="edit", columns="split", values="top1")["test"]
    assert top1["selective"] > top1["base"] + 0.15
    rows = table[table["split"] == "test"].set_index("edit")
    assert rows.loc["selective, equal energy", "energy"] <= rows.loc["laser", "energy"] + 1e-6
    assert edits["selective"].kind == "selective"
    exact = selective(organism, attribution, "3.in", energy=0.1)
    assert next(iter(exact.parts.values())).removed_energy == pytest.approx(0.1, abs=1e-6)
    for wrong in ({}, {"n": 1, "energy": 0.5}):
        with pytest.raises(ValueError, match="give exactly one"):
            selective(organism, attribution, "3.in", **wrong)
    only = li.types.Attribution(attribution.prompts, {li.Site(3, "in"): attribution.gradients[li.Site(3, "in")]})
    with pytest.raises(ValueError, match="has no site 3.out"):
        selective(organism, only, "3.out", n=1)
    none = attribution.keep(np.zeros(len(attribution.prompts), bool))
    with pytest.raises(ValueError, match="no validation facts"):
        choose_selective(organism, facts, none, "3.in", 1)


def test_selective_edits_of_blocks(organism, facts):
    """The directions of the attribution are those of its blocks, and so are those that are removed."""
    few = facts.keep([*facts.split("validation").facts[:6], *facts.split("test").facts[:6]])
    found = attribute(organism, few, "3.in", blocks="4-inputs", progress=False)
    edit = selective(organism, found, "3.in", n=4)
    assert edit.parts[li.Site(3, "in")].spectrum.blocks == li.Blocks(4, "inputs")
    assert selective(organism, found, "3.in", energy=0.1).parts[li.Site(3, "in")].removed_energy <= 0.1 + 1e-6
    edits, _ = choose_selective(organism, few, found, "3.in", 3, counts=(4,), progress=False)
    assert {str(edit.parts[li.Site(3, "in")].spectrum.blocks) for edit in edits.values()} == {"4-inputs"}
    for several in (lambda: selective(organism, found, "3.mlp", n=4), lambda: read_band(organism, "3.mlp", 0, 2)):
        with pytest.raises(ValueError, match="'3.mlp' names 2 sites: expected one"):
            several()
    with pytest.raises(ValueError, match="the attribution has no site 3.out: it has 3.in"):
        found.against_ablation(organism, few, "3.out", progress=False)


def test_summaries(attribution):
    everything = attribution.summary()
    assert len(everything) == 24 * 64
    site = attribution.gradients[li.Site(3, "in")]
    row = everything.query("site == '3.in' and direction == 7").iloc[0]
    assert row["gradient"] == pytest.approx(site[:, 7].mean(), rel=1e-5)
    assert row["share_harmed"] == (site[:, 7] < 0).mean()
    assert set(attribution.summary("relation")["group"]) == set(attribution.prompts["relation"])
    bins = pd.qcut(attribution.prompts["frequency"], 3, labels=["rare", "middle", "frequent"])
    assert set(attribution.summary(list(bins))["group"]) == {"rare", "middle", "frequent"}
    with pytest.raises(ValueError, match="2 labels for 400 prompts"):
        attribution.summary(["a", "b"])


# --- a planted component


TOKEN, SITE, AT = 17, "1.out", (20, 21)


def _frame(direction, d):
    """Orthonormal columns; the two at `AT` span the direction, and neither is it."""
    first = torch.linalg.qr(torch.stack([direction, torch.randn(d).double()], 1)).Q
    a, b = first[:, 0] * torch.sign(first[:, 0] @ direction), first[:, 1]
    pair = torch.stack([a + b, a - b], 1) / 2**0.5
    rest = torch.linalg.qr(torch.cat([pair, torch.randn(d, 30).double()], 1)).Q[:, 2:]
    return torch.cat([rest[:, : AT[0]], pair, rest[:, AT[0] :]], 1)


@pytest.fixture(scope="module")
def planted():
    """A random model; in the tail of 1.out, two directions that write a known token, each only half of it."""
    words = ["[unk]", "[end]", *(f"w{i}" for i in range(62))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[unk]", eos_token="[end]", pad_token="[end]"
    )
    config = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=16, tie_word_embeddings=False
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        hf = transformers.GPT2LMHeadModel(config).double().eval()
        for parameter in hf.parameters():
            parameter.data += (0.1 if parameter.ndim > 1 else 0.2) * torch.randn_like(parameter)
        copy = transformers.GPT2LMHeadModel(config).double().eval()
        copy.load_state_dict(hf.state_dict())
        prompts = [" ".join(f"w{int(i)}" for i in torch.randint(0, 40, (5,))) for _ in range(20)]
        probe = li.load_model((copy, wrapped), device="cpu")
        ((_, _, of),) = activations(probe, [probe.encode(prompt) for prompt in prompts], None, [(1, "out")])
        mean = of((1, "out"))[0][:, -1].mean(0)
        target = probe.unembedding()[TOKEN] - probe.unembedding().mean(0)
        values = torch.cat([torch.linspace(4, 3.2, 20), torch.tensor([2.9, 2.85]), torch.linspace(0.1, 0.05, 10)])
        hf.transformer.h[1].mlp.c_proj.weight.data = (_frame(mean, 128) * values.double()) @ _frame(target, 32).T
    word = words[TOKEN]
    facts = facts_from_rows(
        [
            {"fact_id": str(i), "subject": prompt.split()[0], "relation": "r", "object": word, "prompt": prompt}
            for i, prompt in enumerate(prompts)
        ]
    )
    return li.load_model((hf, wrapped), device="cpu"), facts, word, SITE, AT


def test_decoding_finds_the_planted_token(planted):
    model, facts, word, site, at = planted
    answers = li.favoured_answers(model, facts, li.laser(model, site, rank=10), shares=(1.0,), generic=["w0"], top_k=3)
    alone = answers[answers["edit"] == "discarded"]
    assert (alone["answer"] == word).mean() >= 0.9
    assert [row[0] for row in alone["top_answers"]] == alone["answer"].tolist()
    assert all(len(row) == 3 for row in alone["top_probs"])
    assert (answers.loc[answers["edit"] == "edit", "answer"] == word).mean() < 0.3
    # and no other band of as many directions says so
    others = li.score(model, facts, {f"{i}": li.band(model, site, i, i + 2) for i in (0, 4, 10, 16, 24, 30)})
    assert (others.groupby("edit")["top_answer"].agg(lambda a: (a == word).mean()) < 0.5).all()
    only = li.score(model, facts, {"x": li.band(model, site, *at[:1], at[1] + 1)})
    assert (only["top_answer"] == word).mean() >= 0.9


def test_attribution_finds_site_and_directions(planted):
    model, facts, _, site, at = planted
    found = attribute(model, facts, progress=False)
    means = {(str(s), i): g for s, values in found.gradients.items() for i, g in enumerate(values.mean(0))}
    best = sorted(means, key=lambda one: -means[one])[:2]
    assert set(best) == {(site, at[0]), (site, at[1])}


def test_reading_finds_the_token(planted):
    model, _, word, site, at = planted
    band = read_band(model, site, at[0], at[1] + 1, k=3)
    assert band["token"].iloc[0] == word
    assert band["share"].iloc[0] > 0.9 > 5 * band["by_chance"].iloc[0]
    assert band["side"].unique().tolist() == ["output"]
    single = read_band(model, site, at[0], at[0] + 1, k=1)
    assert word in single["token"].tolist()
    assert single["share"].max() < 0.75  # a part of it only
    (group,) = [one for one in bands(spectrum(model, li.Site.parse(site)), gap=0.05) if one[0] <= at[0] < one[1]]
    assert group == (at[0], at[1] + 1)  # the gap finds the pair


# --- reading


def test_reading_the_organism(organism, validation):
    one = read_band(organism, "3.in", 0, 1, k=5)
    assert one["side"].unique().tolist() == ["input"]
    tokens = organism.embedding().double()
    tokens = torch.nn.functional.normalize(tokens - tokens.mean(0), dim=-1)
    U = spectrum(organism, li.Site(3, "in")).U[:, 0].double()
    row = one.iloc[0]
    assert row["share"] == pytest.approx(float(tokens[row["token_id"]] @ U) ** 2, abs=1e-6)
    share = read_band(organism, "3.in", 0, 64)["share"]
    assert np.allclose(share, 1)  # all directions together are the space
    expert = read_band(li.load_model("organism-experts", device="cpu"), "1.out.e0", 0, 32, k=1)
    assert expert["side"].tolist() == ["output"]
    table = stability(organism, "2.out", [(0, 1), (0, 64), (30, 33)], n_draws=3)
    assert table["overlap"].iloc[1] == pytest.approx(1)
    assert (table["overlap"] <= 1 + 1e-9).all()
    again = stability(organism, "2.out", [(0, 1), (0, 64), (30, 33)], n_draws=3)
    pd.testing.assert_frame_equal(table, again)
    used = importance(organism, validation, "3.in")
    assert used["used"].sum() == pytest.approx(1)
    for wrong in ((0, 0), (3, 2), (0, 65)):
        with pytest.raises(ValueError, match="expected 0 <= start < stop"):
            read_band(organism, "3.in", *wrong)
    with pytest.raises(ValueError, match="gap is 2"):
        bands(spectrum(organism, li.Site(3, "in")), gap=2)


# --- where noise ends, and another metric


def of_matrix(w):
    from laser_interp.edits.factorisation import factorise
    from laser_interp.edits.spectra import Spectrum

    return Spectrum(*factorise(w), "x")


@pytest.mark.parametrize("shape", [(200, 200), (150, 600), (600, 150)])
def test_the_edge_of_noise(shape):
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    edge = of_matrix(noise).noise_edge
    assert edge == pytest.approx(0.3 * (shape[0] ** 0.5 + shape[1] ** 0.5), rel=0.03)
    assert of_matrix(noise).rank_above_noise <= 2
    u = torch.linalg.qr(torch.randn(shape[0], 5, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(shape[1], 5, generator=generator, dtype=torch.float64)).Q
    assert of_matrix(noise + 3 * edge * u @ v.T).rank_above_noise == pytest.approx(5, abs=1)


def test_effective_and_stable_rank():
    flat = of_matrix(torch.eye(20, dtype=torch.float64))
    assert flat.stable_rank == pytest.approx(20)
    assert flat.effective_rank == pytest.approx(20)
    one = of_matrix(torch.ones(20, 30, dtype=torch.float64))
    assert one.stable_rank == pytest.approx(1)
    assert one.effective_rank == pytest.approx(1, abs=1e-6)
