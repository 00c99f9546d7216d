"""Composition: greedy, honest, resumable."""

import numpy as np
import pandas as pd
import pytest
import torch

import laser_interp as li
from laser_interp.edits.edit_loading import read_edit
from laser_interp.edits.edit_spec import describe_edits
from laser_interp.scoring.scorer import Scorer
from laser_interp.selection.composition import _improves
from laser_interp.selection.race import FINALISTS, survivors

SETTINGS = {"matrices": ["in", "out"], "layers": [1, 3], "rhos": (0.4, 0.05), "method": "greedy", "progress": False}


@pytest.fixture(scope="module")
def some(facts):
    return facts.keep([f for i, f in enumerate(facts) if i % 4 == 0])


@pytest.fixture(scope="module")
def found(organism, some):
    return li.compose(organism, some, **SETTINGS)


@pytest.mark.slow
def test_each_step_is_what_greed_does(organism, some, found):
    """The same search written out, one full forward a step."""
    validation = some.split("validation")

    def measure(edit):
        row = li.summarise(li.score(organism, validation, {"x": edit}, engine="reference", progress=False)).iloc[0]
        return row["score"], -row["loss"]

    best, kept, rows = measure(None), {}, []
    for layer in (3, 1):
        for matrix in ("in", "out"):
            for rho in (0.05, 0.4):
                tried = kept | {li.Site(layer, matrix): rho}
                edit = None
                for site, one in tried.items():
                    part = li.laser(organism, site, rho=one)
                    edit = part if edit is None else edit + part
                now = measure(edit)
                rows.append((f"{layer}.{matrix}", rho, now > best))
                if now > best:
                    best, kept = now, tried
    assert [tuple(row) for row in found.steps[["site", "rho", "kept"]].itertuples(index=False)] == rows
    assert list(found.ranks) == list(kept)
    assert 0 < found.steps["kept"].sum() < len(rows)
    assert list(found.steps["step"]) == list(range(len(rows)))


def test_its_tables(found):
    assert list(found.scores["edit"]) == ["base"] * (len(found.scores) // 2) + ["composed"] * (len(found.scores) // 2)
    for table in (found.scores, found.by_step, found.test):
        assert "index" not in table


def test_its_edit_is_what_was_scored(organism, some, found):
    edit = found.edit(organism)
    scores = li.score(organism, some, {"base": None, "composed": edit})
    again = li.summarise(scores, ("edit", "split"))
    both = again.merge(found.scores, on=["edit", "split"], suffixes=("", "_found"))
    assert len(both) == 4
    assert both["loss"].to_numpy() == pytest.approx(both["loss_found"].to_numpy(), abs=1e-5)
    last = found.steps[found.steps["kept"]].iloc[-1]
    composed = found.scores.query("edit == 'composed' and split == 'validation'").iloc[0]
    assert last["loss"] == pytest.approx(composed["loss"], abs=1e-5)
    assert read_edit(organism, last["edit"]).sites == edit.sites


def test_resumes(organism, some, found, tmp_path, monkeypatch):
    original, calls = Scorer.run, []

    def interrupted(self, edits, **options):
        calls.append(list(edits))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, edits, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            li.compose(organism, some, out=tmp_path, **SETTINGS)
    assert [p.stem for p in (tmp_path / "parts").glob("*.parquet")] == ["3.in"]
    again = li.compose(organism, some, out=tmp_path, **SETTINGS)
    pd.testing.assert_frame_equal(again.steps, found.steps)
    pd.testing.assert_frame_equal(again.scores, found.scores)
    with pytest.raises(ValueError, match="other settings .*rhos"):
        li.compose(organism, some, out=tmp_path, **SETTINGS | {"rhos": (0.4,)})


def test_nothing_helps(organism, some):
    found = li.compose(organism, some, matrices="in", layers=0, rhos=(0.05,), progress=False)
    assert found.ranks == {}
    assert set(found.scores["edit"]) == {"base"}
    with pytest.raises(ValueError, match="nothing to compose"):
        found.edit(organism)


GUIDED = {"matrices": ["in", "out"], "rhos": (0.4, 0.05), "progress": False}


@pytest.fixture(scope="module")
def guided(organism, facts):
    return li.compose(organism, facts, **GUIDED)


@pytest.mark.slow
def test_guided_each_edit_raises_validation_and_its_numbers_are_those_of_the_edit(organism, facts, guided):
    """What each step says of itself is what scoring that many edits says, on test too."""
    assert guided.cell.sites[0] == li.Site(3, "in")
    kept = guided.steps[guided.steps["kept"]]
    assert len(kept) == len(guided.ranks)
    assert kept["score"].is_monotonic_increasing
    assert guided.by_step["n_edits"].tolist() == list(range(len(guided.ranks) + 1))
    edits, edit = {"0": None}, None
    for n, (site, rank) in enumerate(guided.ranks.items(), start=1):
        part = li.laser(organism, site, rank=rank)
        edit = part if edit is None else edit + part
        edits[str(n)] = edit
    scores = li.summarise(li.score(organism, facts, edits, candidates=False, progress=False), ("edit", "split"))
    for split in ("validation", "test"):
        rows = scores[scores["split"] == split]
        assert guided.by_step[f"{split}_score"].tolist() == pytest.approx(rows["score"].tolist())
        assert guided.by_step[f"{split}_loss"].tolist() == pytest.approx(rows["loss"].tolist(), abs=1e-5)
    assert pd.isna(guided.by_step["change"].iloc[0])
    assert guided.by_step["change"].iloc[1:].notna().all()


@pytest.mark.slow
def test_guided_begins_where_it_is_told_to_and_resumes(organism, facts, guided, tmp_path):
    first = next(iter(guided.ranks.items()))
    start = li.EditSpec(first[0], ranks=first[1])
    found = li.compose(organism, facts, start=start, out=tmp_path, **GUIDED)
    assert found.ranks == guided.ranks
    for part in [*(tmp_path / "parts").rglob("*.parquet")][::2]:
        part.unlink()
    again = li.compose(organism, facts, start=start, out=tmp_path, **GUIDED)
    pd.testing.assert_frame_equal(again.by_step, found.by_step)
    pd.testing.assert_frame_equal(again.steps, found.steps)
    with pytest.raises(ValueError, match="start is for the method guided alone"):
        li.compose(organism, facts, start=start, method="greedy", progress=False)
    with pytest.raises(ValueError, match="expected LASER"):
        li.compose(organism, facts, start=li.EditSpec(first[0], "zeroed"), progress=False)


def test_gradients_at_an_edited_model_are_those_of_its_weights(organism, facts):
    """Finite differences of a gain at another site, with an edit on."""
    some, edit = facts.keep(facts.facts[:6]), li.laser(organism, "3.in", rho=0.05)
    found = li.attribute(organism, some, "2.out", edit=edit, progress=False).gradients[li.Site(2, "out")]
    step, direction = 1e-2, 0
    losses = []
    for sign in (1, -1):
        values = torch.ones(64, dtype=torch.float64)
        values[direction] += sign * step
        both = edit + li.gains(organism, {"2.out": values})
        losses.append(li.score(organism, some, {"x": both}, candidates=False, progress=False)["logprob"].to_numpy())
    assert found[:, direction] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=2e-3)


@pytest.mark.parametrize("method", ["guided", "greedy"])
def test_blocks_are_composed_as_whole_matrices_are(organism, some, method):
    """Each step edits the matrix in blocks, and its numbers are those of that edit."""
    found = li.compose(
        organism, some, matrices="in", layers=[2, 3], rhos=(0.2, 0.05), blocks="2-inputs", method=method, progress=False
    )
    assert found.ranks
    assert "blocks=2-inputs" in str(found)
    edit = found.edit(organism)
    for site, rank in found.ranks.items():
        assert edit.parts[site].spectrum.blocks == li.Blocks.parse("2-inputs")
        assert int((edit.parts[site].gains != 0).sum()) == 2 * rank
    validation = some.split("validation")
    scores = li.score(organism, validation, {"x": read_edit(organism, str(found))}, candidates=False, progress=False)
    last = found.steps[found.steps["kept"]].iloc[-1]
    assert last["score"] == pytest.approx(scores["score"].mean())
    assert -last["loss"] == pytest.approx(scores["logprob"].mean(), abs=1e-5)
    with pytest.raises(ValueError, match="expected the blocks, path and positions"):
        li.compose(organism, some, start=found.cell, progress=False)


def test_what_is_worse_than_the_edits_so_far_does_not_stay_in_the_race():
    """Ten cells, one of which may be better: it stays alone. Where all are worse, their leader stays."""
    frame = lambda gain: pd.DataFrame(  # noqa: E731
        {
            "fact_id": range(40),
            "subject": range(40),
            "prompt_id": 0,
            "logprob": [gain - 0.1 * (i % 3) for i in range(40)],
        }
    )
    cells = [li.EditSpec(li.Site(layer, "in"), ranks=1) for layer in range(10)]
    so_far = {cell: frame(0.5 if cell is cells[4] else -0.5 - 1e-3 * place) for place, cell in enumerate(cells)}
    assert survivors(so_far, frame(0.0)) == [cells[4]]
    assert survivors(so_far, frame(1.0)) == [cells[4]]
    assert len(survivors(so_far)) == FINALISTS


@pytest.mark.slow
def test_it_stops_at_so_many_edits(organism, some, found):
    assert len(found.ranks) > 1
    one = li.compose(organism, some, **SETTINGS, most_edits=1)
    assert list(one.ranks.items()) == list(found.ranks.items())[:1]
    guided = li.compose(organism, some, **SETTINGS | {"method": "guided"}, most_edits=1)
    assert len(guided.ranks) == 1
    more = li.compose(organism, some, **SETTINGS | {"method": "guided"}, most_edits=99)  # than there are sites
    assert more.ranks == li.compose(organism, some, **SETTINGS | {"method": "guided"}).ranks
    with pytest.raises(ValueError, match="most_edits is 0"):
        li.compose(organism, some, **SETTINGS, most_edits=0)
    with pytest.raises(ValueError, match="most_edits is 0"):
        li.types.StudySettings(most_edits=0)


def test_a_further_edit_has_to_help_by_more_than_chance():
    """A higher score is not enough: of many edits that are tried, one has it by chance."""
    rng = np.random.default_rng(0)
    n = 60
    keys = {"fact_id": [f"f{i}" for i in range(n)], "prompt_id": 0, "subject": [f"s{i}" for i in range(n)]}
    before = pd.DataFrame(keys | {"logprob": rng.normal(-3, 1, n), "score": [1.0] * 20 + [0.0] * (n - 20)})
    noise = rng.normal(0, 0.5, n)
    by_chance = before.assign(
        logprob=before["logprob"] + noise - noise.mean() + 0.01, score=[1.0] * 22 + [0.0] * (n - 22)
    )
    for_sure = by_chance.assign(logprob=before["logprob"] + 0.3 + noise / 5)
    assert by_chance["score"].mean() > before["score"].mean()
    assert by_chance["logprob"].mean() > before["logprob"].mean()
    assert _improves(by_chance, before, has_edits=False)  # the first edit: by score, then by loss
    assert not _improves(by_chance, before, has_edits=True)
    assert _improves(for_sure, before, has_edits=True)
    assert not _improves(for_sure.assign(score=before["score"]), before, has_edits=True)


def test_a_composition_begins_with_no_more_edits_than_it_may_have(organism, facts):
    start = describe_edits(organism, "3.in:0.05+3.out:0.05")
    with pytest.raises(ValueError, match="start has 2 edits, and most_edits is 1"):
        li.compose(organism, facts, start=start, most_edits=1, progress=False)
