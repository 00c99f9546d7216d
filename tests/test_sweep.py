"""The grid: its cells, its choice, its resumption."""

import pandas as pd
import pytest

import laser_interp as li
from laser_interp.sweep import Sweep


@pytest.fixture(scope="module")
def some(facts):
    return facts.keep([f for i, f in enumerate(facts) if i % 8 == 0])


def run(model, facts, **changed):
    settings = {"matrices": ["in", "out"], "layers": [0, 3], "rhos": (0.4, 0.05, 0.01), **changed}
    with pytest.warns(UserWarning, match="lifted to rank 1 or dropped"):
        return li.sweep(model, facts, **settings)


def test_cells_are_means_of_scores(organism, some):
    sweep = run(organism, some)
    assert len(sweep.cells) == (2 * 2 * 3 + 1) * 2
    for rank, rho in ((25, 0.4), (3, 0.05), (1, 0.01)):
        for split in ("validation", "test"):
            (cell,) = sweep.cells.query("site == '3.in' and rank_kept == @rank and split == @split").to_dict("records")
            scores = li.score(organism, some.split(split), {"x": li.laser(organism, "3.in", rank=rank)})
            (expected,) = li.summarise(scores).to_dict("records")
            assert cell["rho"] == rho
            for metric in ("n", "top1", "top5", "top10", "loss", "p_generic", "generic_masked_top1", "candidate_top1"):
                assert cell[metric] == pytest.approx(expected[metric], abs=1e-5), metric
    base = sweep.cells.query("kind == 'base' and split == 'test'").iloc[0]
    assert base["loss"] == pytest.approx(
        -li.score(organism, some.split("test"), {"b": None})["logprob"].mean(), abs=1e-5
    )
    change = sweep.changes("test").query("site == '3.in' and rank_kept == 3").iloc[0]
    assert change["d_loss"] == pytest.approx(change["loss"] - base["loss"])


def test_ranks_that_coincide_are_run_once_and_told(organism, some):
    sweep = run(organism, some, matrices="in", layers=3, rhos=(0.05, 0.06, 0.02, 0.01, 0.001))
    ranks = sweep.cells.query("kind == 'laser' and split == 'test'")[["rho", "rank_kept"]].values.tolist()
    assert ranks == [[0.06, 3.0], [0.02, 1.0]]
    assert sweep.notes == (
        "3.in: rho 0.05 is rank 3, as is rho 0.06: dropped",
        "3.in: rho 0.01 is rank 1, as is rho 0.02: dropped",
        "3.in: rho 0.001 is rank 1, as is rho 0.02: dropped",
    )


def test_selection_is_by_accuracy_then_loss():
    rows = [
        ("", "base", None, None, 0.5, 1.0),
        ("0.q", "laser", 0.1, 4, 0.6, 0.9),
        ("0.k", "laser", 0.2, 8, 0.6, 0.8),
        ("0.v", "laser", 0.3, 9, 0.5, 0.1),
        ("0.o", "laser", 0.3, 9, 0.9, float("nan")),
    ]
    cells = pd.DataFrame(rows, columns=["site", "kind", "rho", "rank_kept", "top1", "loss"])
    cells["split"], cells["n_not_finite"] = "validation", cells["loss"].isna().astype(int)
    chosen = Sweep(cells).select()
    assert (str(chosen.site), chosen.rho, chosen.rank, chosen.improves) == ("0.k", 0.2, 8, True)
    assert (chosen.base_top1, chosen.base_loss) == (0.5, 1.0)
    worse = cells[~cells["site"].isin(["0.q", "0.k"])].assign(top1=lambda c: c["top1"].where(c["kind"] == "base", 0.4))
    assert not Sweep(worse).select().improves
    with pytest.raises(ValueError, match=r"no split 'test': it has \['validation'\]"):
        Sweep(cells).select("test")
    with pytest.raises(ValueError, match="nothing can be selected"):
        Sweep(cells[cells["kind"] == "base"]).select()


def test_selection_sees_validation_only(organism, some):
    """Test facts may say anything: the choice does not move."""
    sweep = run(organism, some)
    spoiled = sweep.cells.copy()
    spoiled.loc[spoiled["split"] == "test", ["top1", "loss"]] = 0.0
    assert Sweep(spoiled).select() == sweep.select()


def test_resumes_what_is_done_and_mends_what_is_broken(organism, some, tmp_path, monkeypatch):
    whole = run(organism, some, out=tmp_path / "run")
    parts = sorted((tmp_path / "run" / "parts").iterdir())
    assert [p.stem for p in parts] == ["0.in", "0.out", "3.in", "3.out", "base"]
    parts[0].unlink()
    parts[1].write_bytes(parts[1].read_bytes()[:200])
    from laser_interp.score import Scorer

    calls = []
    original = Scorer.run
    monkeypatch.setattr(Scorer, "run", lambda self, *a, **k: calls.append(a) or original(self, *a, **k))
    with pytest.warns(UserWarning, match=r"0\.out\.parquet is damaged"):
        again = run(organism, some, out=tmp_path / "run")
    assert len(calls) == 6
    pd.testing.assert_frame_equal(whole.cells, again.cells)


def test_an_interrupted_sweep_keeps_what_it_has(organism, some, tmp_path, monkeypatch):
    from laser_interp.score import Scorer

    expected = run(organism, some)
    original, calls = Scorer.run, []

    def interrupted(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Scorer, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(organism, some, out=tmp_path)
    assert {p.name for p in (tmp_path / "parts").iterdir()} == {"base.parquet", "0.in.parquet"}
    monkeypatch.setattr(Scorer, "run", original)
    pd.testing.assert_frame_equal(run(organism, some, out=tmp_path).cells, expected.cells)
    assert organism.n_hooks() == 0


def test_a_folder_with_another_run_is_refused(organism, some, facts, tmp_path):
    run(organism, some, out=tmp_path)
    with pytest.raises(ValueError, match="other settings .*rhos"):
        run(organism, some, out=tmp_path, rhos=(0.2, 0.01))
    with pytest.raises(ValueError, match="other settings .*facts_sha256"):
        run(organism, facts, out=tmp_path)


def test_provenance_travels_with_the_table(organism, some, tmp_path):
    from laser_interp.results import read_table

    run(organism, some, out=tmp_path)
    told = read_table(tmp_path / "cells.parquet", "cells").attrs["provenance"]
    assert told["weights_sha256"] == organism.weights_sha256
    assert told["facts_sha256"] == some.sha256
    assert told["code_version"]
    with pytest.raises(FileNotFoundError, match="run the step that writes it"):
        read_table(tmp_path / "none.parquet")


def test_refusals(organism, facts):
    with pytest.raises(ValueError, match="no rhos given"):
        li.sweep(organism, facts, rhos=())
    with pytest.raises(ValueError, match="rho is 1.5"):
        li.sweep(organism, facts, rhos=(1.5,))
    with pytest.raises(ValueError, match="no matrix 'up'"):
        li.sweep(organism, facts, matrices="up")
    with pytest.raises(ValueError, match="layer 9 is out of range"):
        li.sweep(organism, facts, layers=[0, 9])
    with pytest.raises(ValueError, match="layers is 'first'"):
        li.sweep(organism, facts, layers="first")
