"""The search: its cells, its choice, its resumption."""

import dataclasses
import re
import subprocess
import sys
from typing import get_args

import pandas as pd
import pytest
from families import whole

import laser_interp as li
from laser_interp.choices import ControlName
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.models.hooks import count_hooks
from laser_interp.models.unembedding import Logits
from laser_interp.scoring.engine import Engine
from laser_interp.selection.execution import Unit, Worker, _pieces
from laser_interp.selection.grid import grid_cells
from laser_interp.selection.plan import Plan
from laser_interp.selection.search_result import Search
from laser_interp.selection.settings import SearchSettings
from laser_interp.storage.run_folder import open_run


@pytest.fixture(scope="module")
def some(facts):
    return facts.keep([f for i, f in enumerate(facts) if i % 8 == 0])


def run(model, facts, **changed):
    settings = {"matrices": ["in", "out"], "layers": [0, 3], "rhos": (0.4, 0.05, 0.01), "test": "all", **changed}
    with pytest.warns(UserWarning, match="lifted to rank 1 or dropped"):
        return li.search(model, facts, **settings)


def test_rates_of_the_published_scripts_are_rhos():
    assert SearchSettings(rates=(9.9, 9, 0)) == SearchSettings(rhos=(0.01, 0.1, 1.0))
    assert SearchSettings(rates=[9.5]).identity() == SearchSettings(rhos=[0.05]).identity()
    with pytest.raises(ValueError, match="rhos or rates, and both were given"):
        SearchSettings(rhos=(0.5,), rates=(9.5,))
    with pytest.raises(ValueError, match="rate is 10"):
        SearchSettings(rates=(10,))


@pytest.mark.slow
def test_cells_are_means_of_scores(organism, some):
    search = run(organism, some)
    assert len(search.cells) == (2 * 2 * 3 + 1) * 2
    for rank, rho in ((25, 0.4), (3, 0.05), (1, 0.01)):
        for split in ("validation", "test"):
            (cell,) = search.cells.query("site == '3.in' and rank_kept == @rank and split == @split").to_dict("records")
            scores = li.score(organism, some.split(split), {"x": li.laser(organism, "3.in", rank=rank)})
            (expected,) = li.summarise(scores).to_dict("records")
            assert cell["rho"] == rho
            for metric in ("n", "top1", "top5", "top10", "loss", "p_generic", "generic_masked_top1", "candidate_top1"):
                assert cell[metric] == pytest.approx(expected[metric], abs=1e-5), metric
    base = search.cells.query("kind == 'base' and split == 'test'").iloc[0]
    assert base["loss"] == pytest.approx(
        -li.score(organism, some.split("test"), {"b": None})["logprob"].mean(), abs=1e-5
    )
    change = search.changes("test").query("site == '3.in' and rank_kept == 3").iloc[0]
    assert change["d_loss"] == pytest.approx(change["loss"] - base["loss"])


def test_ranks_that_coincide_are_run_once_and_told(organism, some):
    search = run(organism, some, matrices="in", layers=3, rhos=(0.05, 0.06, 0.02, 0.01, 0.001))
    ranks = search.cells.query("kind == 'laser' and split == 'test'")[["rho", "rank_kept"]].values.tolist()
    assert ranks == [[0.06, 3.0], [0.02, 1.0]]
    assert search.notes == (
        "3.in: rho 0.05 is rank 3, as is rho 0.06: dropped",
        "3.in: rho 0.01 is rank 1, as is rho 0.02: dropped",
        "3.in: rho 0.001 is rank 1, as is rho 0.02: dropped",
    )
    plan = Plan(organism, li.tasks.own_task(some), SearchSettings(matrices=("in", "out"), rhos=(0.4, 0.01)))
    assert plan.lifted == ["8 sites, the first 0.in: rho 0.01 rounds to rank 0: lifted to rank 1"]


def test_selection_is_by_accuracy_then_loss():
    rows = [
        ("", "base", None, None, 0.5, 1.0),
        ("0.q", "laser", 0.1, 4, 0.6, 0.9),
        ("0.k", "laser", 0.2, 8, 0.6, 0.8),
        ("0.v", "laser", 0.3, 9, 0.5, 0.1),
        ("0.o", "laser", 0.3, 9, 0.9, float("nan")),
    ]
    cells = pd.DataFrame(rows, columns=["site", "kind", "rho", "rank_kept", "score", "loss"])
    cells["cell"] = [f"{row[0]} {row[1]} rho={row[2]} rank={row[3]}" for row in rows]
    cells["split"], cells["n_not_finite"] = "validation", cells["loss"].isna().astype(int)
    chosen = Search(cells).select()
    assert (str(chosen.cell.site), chosen.cell.rho, chosen.cell.rank, chosen.improves) == ("0.k", 0.2, 8, True)
    assert (chosen.base_score, chosen.base_loss) == (0.5, 1.0)
    worse = cells[~cells["site"].isin(["0.q", "0.k"])].assign(
        score=lambda c: c["score"].where(c["kind"] == "base", 0.4)
    )
    assert not Search(worse).select().improves
    with pytest.raises(ValueError, match=r"no split 'test': it has \['validation'\]"):
        Search(cells).select("test")
    with pytest.raises(ValueError, match="nothing can be selected"):
        Search(cells[cells["kind"] == "base"]).select()


def test_at_full_rank_nothing_is_discarded_and_controls_stand(organism):
    settings = SearchSettings(matrices="in", layers=3, rhos=[1.0], controls=("bottom_kept", "discarded", "zeroed"))
    of_site, _ = grid_cells(organism, [li.Site(3, "in")], settings)
    assert [cell.kind for cell in of_site[li.Site(3, "in")]] == ["laser", "bottom_kept", "zeroed"]
    settings = SearchSettings(matrices="in", layers=0, rhos=[0.1], controls=("bottom_kept", "layer_0"))
    of_site, _ = grid_cells(organism, [li.Site(0, "in")], settings)
    assert [cell.kind for cell in of_site[li.Site(0, "in")]] == ["laser", "bottom_kept"]


def test_its_display_ranks_by_validation(organism, facts):
    some = facts.keep([f for split in ("validation", "test") for f in facts.split(split).facts[:20]])
    found = li.search(organism, some, matrices=["in"], layers=[2, 3], rhos=[0.1, 0.05], test="all", progress=False)
    shown = found._repr_html_()
    assert "<th>0</th>" not in shown  # rows without numbers
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", shown, re.DOTALL)]
    best = found.select()
    test = found.cells[(found.cells["split"] == "test") & (found.cells["cell"] == str(best.cell))].iloc[0]
    assert rows[0][0] == "as trained"
    assert rows[1] == [str(best.cell), *(f"{v:.3f}" for v in (best.score, best.loss, test["score"], test["loss"]))]


def test_selection_sees_validation_only(organism, some):
    """Test facts may say anything: the choice does not move."""
    search = run(organism, some)
    spoiled = search.cells.copy()
    spoiled.loc[spoiled["split"] == "test", ["score", "loss"]] = 0.0
    assert Search(spoiled).select() == search.select()


def counting(monkeypatch, stop_at=None):
    """Calls of the function that computes a unit; the one numbered `stop_at` is interrupted."""
    original, calls = Worker.run, []

    def run_one(self, unit, tick=None):
        calls.append(unit.name)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return original(self, unit, tick)

    monkeypatch.setattr(Worker, "run", run_one)
    return calls


@pytest.mark.slow
def test_resumes_what_is_done_and_mends_what_is_broken(organism, some, tmp_path, monkeypatch):
    whole = run(organism, some, out=tmp_path / "run")
    parts = sorted((tmp_path / "run" / "parts").rglob("*.parquet"))
    names = [f"{p.parent.name}/{p.stem}" for p in parts]
    assert names == [f"{n}/0000{i}" for n in ("base", "layer-000", "layer-003") for i in (0, 1)]
    parts[0].unlink()
    parts[3].write_bytes(parts[3].read_bytes()[:200])
    from laser_interp.storage.atomic import _partial

    with _partial(parts[3]) as temporary:
        stale = temporary.with_name(temporary.name.rpartition("-")[0] + "-999999999.partial")
    stale.write_bytes(b"half")  # of a process that is dead
    calls = counting(monkeypatch)
    with pytest.warns(UserWarning, match=r"layer-000/00001\.parquet is not used and is computed again"):
        again = run(organism, some, out=tmp_path / "run")
    assert calls == ["base/00000", "layer-000/00001"]
    assert not stale.exists()
    pd.testing.assert_frame_equal(whole.cells, again.cells)


def test_an_interrupted_sweep_keeps_what_it_has(organism, some, tmp_path, monkeypatch):
    expected = run(organism, some)
    with monkeypatch.context() as patch:
        counting(patch, stop_at=3)
        with pytest.raises(KeyboardInterrupt):
            run(organism, some, out=tmp_path)
    assert len(list((tmp_path / "parts").rglob("*.parquet"))) == 2
    pd.testing.assert_frame_equal(run(organism, some, out=tmp_path).cells, expected.cells)
    assert count_hooks(organism) == 0


@pytest.mark.slow
def test_a_full_disk_keeps_what_there_is(organism, some, tmp_path, monkeypatch):
    import errno
    import os

    original, written = os.replace, []

    def full(source, target):
        if str(target).endswith(".parquet"):
            written.append(target)
            if len(written) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        return original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match=r"could not be written \(No space left on device\).*kept in .*make room"):
            run(organism, some, out=tmp_path)
    left = [path.name for path in (tmp_path / "parts").rglob("*") if path.is_file()]
    assert len(left) == 2
    assert not [name for name in left if name.startswith(".")]
    pd.testing.assert_frame_equal(run(organism, some, out=tmp_path).cells, run(organism, some).cells)


def test_an_error_that_is_not_of_the_disk_is_told_as_it_is(tmp_path):
    """transformers raises an OSError where a checkpoint has no weights."""
    with pytest.raises(OSError, match=r"^no file named model\.safetensors$"), open_run(tmp_path, {}):
        raise OSError("no file named model.safetensors")


def test_two_processes_on_one_folder(organism, some, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from laser_interp.storage.run_folder import _locked\n"
        "with _locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process is writing to"):
            run(organism, some, out=tmp_path)
    finally:
        holder.kill()
        holder.wait()
    run(organism, some, out=tmp_path)  # the dead hold nothing


KILLED = """
import os, random, signal, sys, threading, time, warnings
import torch; torch.set_num_threads(1)
import laser_interp as li
from laser_interp.selection import plan
from tqdm import tqdm
plan.UNIT_PROMPTS = 20
warnings.simplefilter("ignore")
# tqdm's lock is shared with forked children: one that is killed while it holds it would stop everything
tqdm.monitor_interval = 0; tqdm.set_lock(threading.RLock())
model, facts = li.load_model("organism", device="cpu"), li.load_facts("organism")
some = facts.keep([f for i, f in enumerate(facts) if i % 8 == 0])
settings = {"matrices": ["in", "out"], "layers": [0, 3], "rhos": (0.4, 0.05, 0.01), "test": "all", "progress": False}
run = lambda out: li.search(model, some, out=out, **settings)
rng, folder, kills, runs = random.Random(0), sys.argv[1], 0, 0
run(folder + "/warm-up")
started = time.perf_counter(); run(folder + "/whole"); whole = time.perf_counter() - started
while kills < 20:
    child = os.fork()
    if not child:
        run(f"{folder}/killed-{runs}"); os._exit(0)
    time.sleep(rng.uniform(0.02, 0.5) * whole)
    os.kill(child, signal.SIGKILL)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        kills += 1
    else:
        runs += 1  # it came to its end, after it was killed some times
run(f"{folder}/killed-{runs}")
print(kills, runs + 1)
"""


@pytest.mark.slow
def test_killed_at_any_moment_the_tables_are_the_same(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    kills, runs = map(int, done.stdout.split())
    assert kills == 20
    whole = (tmp_path / "whole" / "tables" / "cells.parquet").read_bytes()
    for i in range(runs):
        assert (tmp_path / f"killed-{i}" / "tables" / "cells.parquet").read_bytes() == whole


def test_cells_can_be_written_down(organism):
    settings = SearchSettings(
        rhos=(0.4, 1 / 3, 0.05),
        alphas=(0.5, -1 / 3),
        bands=((0, 5),),
        controls=get_args(ControlName),
        control_seeds=(0, 2**70),
    )
    by_site, _ = grid_cells(organism, [li.Site(3, "in")], settings)
    cells = by_site[li.Site(3, "in")]
    # at each rho: LASER, two strengths, three that are not random, four random ones with two seeds
    assert len(cells) == 3 * (1 + 2 + 3 + 4 * 2) + 1 + 1
    assert len(set(map(str, cells))) == len(cells)
    for cell in cells:
        assert EditSpec.parse(str(cell)) == cell
        assert cell.edit(organism).sites == (li.Site(0 if cell.kind == "layer_0" else 3, "in"),)
    composed = EditSpec((li.Site(3, "in"), li.Site(2, "out")), rho=None, ranks=(1, 12))
    assert str(composed) == "3.in+2.out laser rank=1+12"
    assert EditSpec.parse(str(composed)) == composed
    assert composed.edit(organism).sites == (li.Site(2, "out"), li.Site(3, "in"))
    with pytest.raises(ValueError, match="describes no edit"):
        EditSpec.parse("3.in laser depth=3")


def test_alphas_bands_and_controls_are_the_edits_they_say(organism, some):
    search = run(
        organism, some, matrices="in", layers=3, rhos=(0.05, 0.01), alphas=(2.0,), bands=((0, 5),),
        controls=("discarded", "zeroed", "random_kept"), control_seeds=(0, 1),
    )  # fmt: skip
    laser = li.laser(organism, "3.in", rank=3)
    expected = {
        "3.in inject rho=0.05 rank=3 alpha=2.0": laser.inject(2.0),
        "3.in discarded rho=0.05 rank=3": laser.discarded(),
        "3.in zeroed": li.zeroed(organism, "3.in"),
        "3.in random_kept rho=0.05 rank=3 seed=1": li.controls.random_kept(organism, laser, seed=1),
        "3.in band start=0 stop=5": li.band(organism, "3.in", 0, 5),
    }
    test = search.cells[search.cells["split"] == "test"].set_index("cell")
    means = li.summarise(li.score(organism, some.split("test"), expected, engine="reference")).set_index("edit")
    for name in expected:
        assert test.loc[name, "loss"] == pytest.approx(means.loc[name, "loss"], abs=1e-5)
        assert test.loc[name, "n"] == means.loc[name, "n"]
    assert set(search.select().edit(organism).describe()["kind"].split()) == {"laser"}
    assert str(search.select(kinds=("band",)).cell) == "3.in band start=0 stop=5"
    with pytest.raises(ValueError, match="unknown controls shuffled"):
        li.search(organism, some, controls=("shuffled",))


@pytest.mark.slow
def test_the_papers_split_is_the_first_fifth(organism, facts):
    bare = facts.keep(dataclasses.replace(fact, split=None) for fact in facts)
    paper = bare.with_split(0.2, by="order")
    assert [f.split for f in paper] == ["validation"] * 80 + ["test"] * 320
    search = run(organism, bare, matrices="in", layers=3, split="paper", rhos=(0.05, 0.01))
    base = search.cells.query("kind == 'base'").set_index("split")["n"]
    assert (base["validation"], base["test"]) == (160, 640)


def test_not_finite_scores_are_rows_that_say_so(organism, some, monkeypatch):
    original = Engine.run

    def broken(self, edits):
        for which, reads, logits in original(self, edits):
            table = whole(logits).reshape(len(which), len(reads), -1)
            table[[edits[i] is not None and edits[i].rank == 3 for i in which]] = float("nan")
            yield which, reads, Logits(table.flatten(0, 1))

    monkeypatch.setattr(Engine, "run", broken)
    search = run(organism, some, matrices="in", layers=3)
    cells = search.cells.query("split == 'validation'").set_index("rank_kept")
    assert cells.loc[3.0, "n_not_finite"] == cells.loc[3.0, "n"]
    assert cells.loc[3.0, "top1"] == 0
    assert search.select().cell.rank != 3


@pytest.mark.slow
def test_an_estimate(organism, facts):
    told = li.estimate(organism, facts, matrices=["in", "out"], rhos=(0.4, 0.05))
    assert (told.n_cells, told.n_prompts) == (4 * 2 * 2, 400)  # those of validation
    everything = li.estimate(organism, facts, matrices=["in", "out"], rhos=(0.4, 0.05), test="all")
    assert everything.n_prompts == 800
    assert told.seconds > 0
    assert told.memory > organism.n_bytes
    assert str(told).startswith("16 cells x 400 prompts: about ")


@pytest.mark.slow
def test_a_folder_with_another_run_is_refused(organism, some, facts, tmp_path):
    run(organism, some, out=tmp_path)
    with pytest.raises(ValueError, match="other settings .*rhos"):
        run(organism, some, out=tmp_path, rhos=(0.2, 0.01))
    with pytest.raises(ValueError, match="other settings .*facts_sha256"):
        run(organism, facts, out=tmp_path)


def test_provenance_travels_with_the_table(organism, some, tmp_path):
    from laser_interp.storage.tables import read_table

    run(organism, some, out=tmp_path)
    told = read_table(tmp_path / "tables" / "cells.parquet", "cells").attrs["provenance"]
    assert told["weights_sha256"] == organism.weights_sha256
    assert told["facts_sha256"] == some.sha256
    assert told["code_version"]
    with pytest.raises(FileNotFoundError, match="run the step that writes it"):
        read_table(tmp_path / "none.parquet")


def test_refusals(organism, facts):
    with pytest.raises(ValueError, match="rhos is empty"):
        li.search(organism, facts, rhos=())
    with pytest.raises(ValueError, match="rho is 1.5"):
        li.search(organism, facts, rhos=(1.5,))
    with pytest.raises(ValueError, match="no matrix 'up'"):
        li.search(organism, facts, matrices="up")
    with pytest.raises(ValueError, match="layer 9 is out of range"):
        li.search(organism, facts, layers=[0, 9])
    with pytest.raises(ValueError, match="layers is 'first'"):
        li.search(organism, facts, layers="first")


@pytest.mark.slow
def test_the_command_line(tmp_path, capsys):
    import json

    from laser_interp.cli.app import main

    command = ["search", "--model", "organism", "--facts", "organism", "--layers", "3", "--matrices", "in", "--quiet"]
    out = ["--rho", "0.4", "0.05", "--band", "0:5", "--out", str(tmp_path), "--json"]
    assert main([*command, *out]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["selected"] == "3.in laser rho=0.05 rank=3"
    assert told["improves_validation"]
    assert told["test"]["edit"]["score"] > told["test"]["base"]["score"]
    cells = pd.read_parquet(told["cells"])
    assert set(cells["kind"]) == {"base", "laser", "band"}
    assert main([*command, *out]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert main([*command, "--rho", "0.4", "--out", str(tmp_path)]) == 2
    assert "holds a run with other settings" in capsys.readouterr().err
    for wrong, why in (
        ([], "--out is missing"),
        (["--band", "5", "--dry-run"], "the band '5' is not of the form START:STOP"),
        (["--memory", "much", "--dry-run"], "memory is 'much'"),
        (["--executor", "ray", "--workers", "0", "--out", str(tmp_path / "x")], "workers is 0"),
    ):
        assert main([*command, *wrong]) == 2
        assert why in capsys.readouterr().err


def test_no_cell_need_see_the_test_facts(organism, facts, tmp_path):
    some = facts.keep(facts.facts[::8])
    settings = dict(matrices="in", layers=[2, 3], rhos=(0.2, 0.05), progress=False)
    chosen = li.search(organism, some, **settings)
    none = li.search(organism, some, method="grid", test="none", out=tmp_path, **settings)
    assert set(none.cells["split"]) == {"validation"}
    assert str(none.select().cell) == str(chosen.select().cell)
    with pytest.raises(ValueError, match="test=none is for the method grid alone"):
        li.search(organism, some, method="race", test="none", **settings)


def test_a_piece_of_a_unit_says_which_it_is():
    cells = tuple(EditSpec((li.Site(3, "in"),), ranks=(rank,)) for rank in (1, 2, 3))
    unit = Unit("layer-003", 0, cells)
    assert [piece.name for piece in _pieces(unit, 1)] == [unit.name]
    pieces = _pieces(unit, 2)
    assert [piece.name for piece in pieces] == [f"{unit.name}, part 1 of 2", f"{unit.name}, part 2 of 2"]
    assert sum((piece.share.cells for piece in pieces), ()) == cells
