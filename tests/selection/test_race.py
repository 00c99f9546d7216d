"""The race and its baselines: what they look at, what they choose, and that they go on where they were stopped."""

import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.selection.marchenko_pastur import kept_rank
from laser_interp.selection.plan import rounds_of
from laser_interp.selection.race import FINALISTS, survivors

pytestmark = pytest.mark.filterwarnings("ignore:.*lifted to rank 1 or dropped")


def race(model, facts, **changes):
    return li.search(model, facts, **{"method": "race", "progress": False} | changes)


@pytest.mark.slow
def test_what_it_chooses_is_what_the_grid_says_of_it(organism, facts):
    """The finalists' numbers are the grid's, and only the chosen cell has seen the test facts."""
    found = race(organism, facts, matrices="mlp")
    chosen = found.select()
    assert chosen.cell.site == li.Site(3, "in")
    assert chosen.score > chosen.base_score + 0.15
    names = [name for name in dict.fromkeys(found.cells["cell"]) if name]
    assert len(names) == FINALISTS
    layers = sorted({EditSpec.parse(n).site.layer for n in names})
    grid = li.search(organism, facts, method="grid", matrices="mlp", layers=layers, progress=False)
    wanted = found.cells[(found.cells["split"] == "validation") & (found.cells["cell"] != "")].set_index("cell")
    same = grid.cells[grid.cells["split"] == "validation"].set_index("cell").loc[wanted.index]
    assert wanted["score"].tolist() == same["score"].tolist()
    assert wanted["loss"].to_numpy() == pytest.approx(same["loss"].to_numpy(), abs=1e-5)
    test = found.cells[found.cells["split"] == "test"]
    assert test["cell"].tolist() == ["", str(chosen.cell)]
    assert found.spent.share_of_grid < 0.25
    assert found.rounds["n_facts"].max() == len(facts.split("validation"))
    assert found.rounds.groupby("round")["cell"].nunique().is_monotonic_decreasing
    assert str(found.spent).startswith("race: ")


@pytest.mark.parametrize("method", ["gradient", "random"])
def test_the_baselines(organism, facts, method):
    few = facts.keep([*facts.split("validation")][:30] + [*facts.split("test")][:20])
    found = li.search(organism, few, method=method, matrices="mlp", rhos=[0.2, 0.05], progress=False)
    looked_at = {"gradient": 1, "random": 16}[method]  # of 16 cells
    assert found.spent.n_cells == looked_at
    assert (found.spent.n_attributed > 0) == (method == "gradient")
    assert len(found.cells[found.cells["split"] == "validation"]) == looked_at + 1
    again = li.search(organism, few, method=method, matrices="mlp", rhos=[0.2, 0.05], progress=False)
    pd.testing.assert_frame_equal(again.cells, found.cells)


def test_nothing_to_propose(organism, facts):
    with pytest.raises(ValueError, match="every rho keeps the whole rank"):
        race(organism, facts, matrices="in", layers=[3], rhos=[1.0])


def test_rounds_double_and_hold_every_fact_once(facts):
    validation = facts.split("validation")
    parts = rounds_of(validation, 3)
    assert [sum(len(fact.prompts) for fact in part) for part in parts] == [16, 16, 32, 64, 272]
    assert sorted(f.fact_id for part in parts for f in part) == sorted(f.fact_id for f in validation)
    assert [f.fact_id for f in parts[0]] == [f.fact_id for f in rounds_of(validation, 3)[0]]
    assert [f.fact_id for f in parts[0]] != [f.fact_id for f in rounds_of(validation, 4)[0]]
    assert [len(part) for part in rounds_of(validation.keep(validation.facts[:5]), 0)] == [5]


def test_who_survives():
    rng = np.random.default_rng(0)
    keys = {"fact_id": [f"f{i}" for i in range(40)], "prompt_id": 0, "subject": [f"s{i}" for i in range(40)]}
    noise = rng.normal(0, 0.1, 40)

    def cell(rank, mean):
        return EditSpec(li.Site(0, "in"), ranks=rank), pd.DataFrame(keys | {"logprob": mean + noise * rank})

    # Ten near each other and six far behind, one of these not a number
    close = dict(cell(rank, -1 - 0.001 * rank) for rank in range(1, 11))
    far = dict(cell(rank, -9.0) for rank in range(11, 16)) | dict([cell(16, np.nan)])
    kept = survivors(close | far)
    assert set(kept) <= set(close)
    assert len(kept) == 8  # the better half
    leader = dict([cell(1, 0.0)])
    assert len(survivors(leader | far)) == FINALISTS


def test_a_cell_that_is_no_number_never_leads():
    """It would drop all others: nothing is better than NaN beyond doubt."""
    keys = {"fact_id": [f"f{i}" for i in range(40)], "prompt_id": 0, "subject": [f"s{i}" for i in range(40)]}
    noise = np.random.default_rng(0).normal(0, 0.01, 40)
    cells = {
        EditSpec(li.Site(0, "in"), ranks=rank): pd.DataFrame(keys | {"logprob": np.full(40, mean) + noise})
        for rank, mean in ((1, np.nan), (2, -9.0), (3, -1.0), (4, -1.1), (5, np.nan), (6, -9.0), (7, -9.0), (8, -9.0))
    }
    kept = [cell.rank for cell in survivors(cells)]
    assert kept[:2] == [3, 4]
    assert not {1, 5} & set(kept)
    many = cells | {
        EditSpec(li.Site(1, "in"), ranks=r): cells[EditSpec(li.Site(0, "in"), ranks=2)] for r in range(1, 9)
    }
    assert [cell.rank for cell in survivors(many)][:2] == [3, 4]
    assert len(survivors(many)) == FINALISTS  # those far behind the leader go, which they would not behind a NaN


def test_the_last_round_drops_nobody(organism, facts):
    """All who enter it are finalists, and each has seen every validation fact."""
    found = race(organism, facts, matrices="mlp")
    last = found.rounds[found.rounds["round"] == found.rounds["round"].max()]
    assert last["kept"].all()
    finalists = {name for name in found.cells["cell"] if name}
    assert set(last["cell"]) == finalists
    before = found.rounds[found.rounds["round"] == found.rounds["round"].max() - 1]
    assert set(before.loc[before["kept"], "cell"]) == finalists


@pytest.mark.slow
def test_it_goes_on_where_it_was_stopped(organism, facts, tmp_path):
    found = race(organism, facts, matrices="in", out=tmp_path / "run")
    for name in ("raced/00002", "chosen/00005", "proposal"):
        (tmp_path / "run" / "parts" / f"{name}.parquet").unlink()
    (tmp_path / "run" / "tables" / "cells.parquet").unlink()
    again = race(organism, facts, matrices="in", out=tmp_path / "run")
    pd.testing.assert_frame_equal(again.cells, found.cells)
    pd.testing.assert_frame_equal(again.rounds, found.rounds)
    with pytest.raises(ValueError, match="other settings"):
        li.search(organism, facts, method="random", matrices="in", out=tmp_path / "run", progress=False)
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "run"), "-o", str(page), "--quiet"]) == 0
    assert page.is_file()


@pytest.mark.slow
def test_the_command_line(tmp_path, capsys):
    words = ["search", "--model", "organism", "--facts", "organism", "--matrices", "in", "--method", "race", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "Validation selects 3.in laser" in (out := capsys.readouterr().out)
    assert "of the grid's cost)" in out
    for folder in ([], ["--out", str(tmp_path / "unused")]):
        assert main([*words, "--dry-run", *folder]) == 0
        assert "this is for the whole grid" in capsys.readouterr().out
    assert not (tmp_path / "unused").exists()
    assert main([*words, "--control", "zeroed", "--out", str(tmp_path / "x")]) == 2
    assert "controls is for the method grid alone" in capsys.readouterr().err
    text = tmp_path / "text.txt"
    text.write_text("The capital of Lorvia is Keld. " * 20)
    rmt = ["search", "--model", "organism", "--facts", "organism", "--matrices", "in", "--method", "rmt", "--quiet"]
    assert main([*rmt, "--out", str(tmp_path / "y")]) == 2
    assert "--text" in capsys.readouterr().err
    assert main([*rmt, "--text", str(text), "--out", str(tmp_path / "y")]) in (0, 2)
    shutil.rmtree(tmp_path / "run")


def test_the_method_follows_what_is_asked():
    assert li.types.SearchSettings().method_for("next_token", 100) == "race"
    assert li.types.SearchSettings().method_for("next_token", 64) == "grid"  # all of them would race
    assert li.types.SearchSettings().method_for("generation", 100) == "grid"
    assert li.types.SearchSettings(controls=["zeroed"]).method_for("next_token", 100) == "grid"
    assert li.types.SearchSettings(test="all").method_for("next_token", 100) == "grid"
    with pytest.raises(ValueError, match="test=all is for the method grid alone"):
        li.types.SearchSettings(method="race", test="all")


def test_the_noise_edge_is_that_of_the_practitioners():
    """Written out as laserRMT's users have it: σ from the interquartile range, times 1 + √β."""
    S = torch.linspace(10, 0.1, 40)
    sigma = float(torch.quantile(S, 0.75) - torch.quantile(S, 0.25)) / 1.349
    edge = sigma * (1 + (40 / 160) ** 0.5)
    assert kept_rank(S, 40, 160) == sum(value > edge for value in S.tolist())
    assert kept_rank(S, 160, 40) == kept_rank(S, 40, 160)


@pytest.mark.slow
def test_rmt_accepts_what_lowers_perplexity_and_sees_no_facts(organism, facts, tmp_path):
    """Its edits are those of the same walk written out; the facts are only scored with what it chose."""
    text = " ".join(fact.prompt + " " + fact.object + " ." for fact in facts.facts[:40])
    settings = {"matrices": ["in", "out"], "method": "rmt", "text": text, "progress": False}
    found = li.search(organism, facts, out=tmp_path / "a", **settings)
    kept, best = [], li.perplexity(organism, text, window=512, stride=256)["loss"]
    for layer in (3, 2, 1, 0):
        for matrix in ("in", "out"):
            site = li.Site(layer, matrix)
            rank = max(kept_rank(li.spectrum(organism, site).S, *organism.weight(layer, matrix).shape), 1)
            edits = [li.laser(organism, s, rank=r) for s, r in [*kept, (site, rank)]]
            edit = edits[0]
            for more in edits[1:]:
                edit = edit + more
            now = li.perplexity(organism, text, edit, window=512, stride=256)["loss"]
            if now < best and len(kept) < 5:
                best, kept = now, [*kept, (site, rank)]
    tried = found.rounds
    assert [(row.site, row.rank) for row in tried[tried["kept"] & (tried["step"] > 0)].itertuples()] == [
        (str(site), rank) for site, rank in kept
    ]
    if kept:
        assert found.select().cell.sites == tuple(site for site, _ in kept)
    else:
        with pytest.raises(ValueError, match="no edit was accepted"):
            found.select()
    assert found.spent.n_texts == len(tried)
    (tmp_path / "a" / "tables" / "cells.parquet").unlink()
    again = li.search(organism, facts, out=tmp_path / "a", **settings)
    pd.testing.assert_frame_equal(again.cells, found.cells)
    with pytest.raises(ValueError, match="give one, by text="):
        li.search(organism, facts, method="rmt", progress=False)


@pytest.mark.slow
def test_learned_gains_buy_at_least_what_laser_does_on_what_they_learn_from(organism, facts, tmp_path):
    found = li.search(organism, facts, method="learned", matrices="mlp", out=tmp_path, progress=False)
    chosen = found.select()
    assert chosen.cell.kind == "gains"
    edit = chosen.edit(organism)
    assert all(0 <= float(part.gains.min()) <= float(part.gains.max()) <= 1 for part in edit.parts.values())
    scores = li.score(organism, facts.split("test"), {"learned": edit}, progress=False)
    row = found.cells[(found.cells["kind"] == "gains") & (found.cells["split"] == "test")].iloc[0]
    assert scores["top1"].mean() == pytest.approx(row["score"])
    assert -scores["logprob"].mean() == pytest.approx(row["loss"], abs=1e-5)
    assert found.rounds["held_out"].max() > found.rounds["held_out"].iloc[0] + 0.1  # it learned something
    assert chosen.score > chosen.base_score
    # Gradients of the race and, in each step, of one half; scores of the other half are in the cost too
    assert 0 < found.spent.n_attributed - 200 * len(found.rounds) <= 100
    assert found.spent.cell_prompts > 200 * len(found.rounds)
    with pytest.raises(ValueError, match="take the edit from the search"):
        EditSpec.parse(str(chosen.cell)).edit(organism)
    assert repr(found).startswith(f"Search over {len(chosen.cell.sites)} sites")
    assert str(chosen.cell) in repr(found)
    assert found.changes("validation").empty  # by layer, and this cell has several
    with pytest.raises(ValueError, match="no LASER at a single site"):
        found.plot()
    again = li.search(organism, facts, method="learned", matrices="mlp", out=tmp_path, progress=False)
    assert again.select() == chosen


def test_gains_of_ones_are_the_model_as_trained(organism, facts):
    ones = li.gains(organism, {"3.in": torch.ones(64)})
    scores = li.score(organism, facts.split("test"), {"base": None, "ones": ones}, progress=False)
    base, edited = (scores.loc[scores["edit"] == name, "logprob"].to_numpy() for name in ("base", "ones"))
    assert edited == pytest.approx(base, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 1, 16), (4, 2, 8), (2, 1, 16), (1, 1, 32)])
def test_attribution_where_heads_are_few_or_of_another_size(organism, heads, kv_heads, head_dim):
    """Attribution equals finite differences with one key-value head, and where heads are not d_model / n_heads wide."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=organism.d_vocab, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, max_position_embeddings=32,
        initializer_range=0.3,  # the norms compute in fp32: differences must be larger than that
    )  # fmt: skip
    hf_model = transformers.LlamaForCausalLM(config).double().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = li.load_model((hf_model, organism.tokenizer), device="cpu")
    facts = li.load_facts("organism")[:3]
    found = li.attribute(model, facts, "1.attn", progress=False)
    for matrix in model.matrices[:4]:
        site = li.Site(1, matrix)
        assert found.gradients[site].shape[1] == min(model.linear(1, matrix).weight.shape)
        step = torch.zeros(found.gradients[site].shape[1], dtype=torch.float64)
        step[2] = 0.01
        edits = {name: li.gains(model, {site: 1 + sign * step}) for name, sign in (("a", -1), ("b", 1))}
        scores = li.score(model, facts, edits, engine="reference", candidates=False, progress=False)
        by_edit = scores.pivot(index=["fact_id", "prompt_id"], columns="edit", values="logprob")
        slope = (by_edit["b"] - by_edit["a"]) / 0.02
        keys = pd.MultiIndex.from_frame(found.prompts[["fact_id", "prompt_id"]])
        assert found.gradients[site][:, 2] == pytest.approx(slope.reindex(keys).to_numpy(), rel=0.02, abs=2e-3)
