"""Ray, on this machine: the tables are the local ones, and a lost actor costs nothing but time."""

import os
import signal
import threading
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pandas as pd
import pytest
import torch

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.facts.tasks import task_of
from laser_interp.organism.checkpoint_corpus import organism_corpus
from laser_interp.parallel import ray_cluster
from laser_interp.selection.execution import Unit, _Actor, _pieces
from laser_interp.selection.settings import SearchSettings

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.slow

SETTINGS = {"matrices": ["in"], "layers": (1, 3), "rhos": (0.4, 0.05), "test": "all", "progress": False}


@pytest.fixture(scope="module")
def some(facts):
    return facts.keep([f for i, f in enumerate(facts) if i % 8 == 0])


@pytest.fixture(scope="module")
def local(organism, some):
    return li.search(organism, some, **SETTINGS)


@pytest.fixture(scope="module", autouse=True)
def _one_cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_the_tables_are_the_local_ones_also_where_a_worker_is_lost(organism, some, local, tmp_path, monkeypatch):
    """Of two workers, the first that is seen at work is killed from outside, with most of the units still to do."""
    monkeypatch.setattr("laser_interp.selection.plan.UNIT_PROMPTS", 20)
    killed = []
    over = threading.Event()

    def kill():
        while not killed and not over.is_set():
            for folder in os.listdir("/proc"):
                if folder.isdigit() and b"ray::_Actor" in _command(folder):
                    if not list((tmp_path / "parts").rglob("*.parquet")):
                        continue  # let it do something first
                    os.kill(int(folder), signal.SIGKILL)
                    killed.append(int(folder))
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    found = li.search(organism, some, executor="ray", workers=2, out=tmp_path, **SETTINGS)
    over.set()
    thread.join()
    assert killed
    pd.testing.assert_frame_equal(found.cells, local.cells, rtol=1e-5)
    again = li.search(organism, some, out=tmp_path, **SETTINGS)  # a local run goes on from it
    pd.testing.assert_frame_equal(again.cells, found.cells)


def _command(folder):
    try:
        with open(f"/proc/{folder}/cmdline", "rb") as f:
            return f.read()
    except OSError:
        return b""


def test_an_actor_stays_on_its_group():
    def following(mine, taken):
        return ray_cluster._next(["a1", "b0", "b1", "c0"], lambda item: item[0], mine, taken)

    assert following("c", ["a", "c"]) == "c0"
    assert following(None, []) == "b0"  # most items are left there
    assert following("f", ["b", "b"]) == "a1"


def test_a_round_is_divided_among_the_workers():
    cells = tuple(li.EditSpec(li.Site(layer, "in"), ranks=3) for layer in range(5))
    for n, sizes in ((1, [5]), (2, [2, 3]), (7, [1] * 5)):
        pieces = _pieces(Unit("raced", 0, cells), n)
        assert sorted(piece.share.n_cells for piece in pieces) == sizes
        assert sum((piece.share.cells for piece in pieces), ()) == cells
    assert [piece.name for piece in _pieces(Unit("base", 3, ()), 2)] == ["base/00003"]


def test_a_worker_that_stays_away_is_given_up():
    class Worker:
        __ray_ready__, run = Mock(), Mock()

    class Away(ray_cluster.Actors):
        def _connect(self):
            wait = lambda refs, num_returns: (refs[:1], [])  # noqa: E731
            self._ray = SimpleNamespace(wait=wait, get=self._get, exceptions=ray.exceptions)
            self._n, self._start = 1, Worker

        def _get(self, ready):
            if ready is Worker.__ray_ready__.remote():
                return
            tries.append(ready)
            raise ray.exceptions.ActorUnavailableError("it does not answer", None)

    tries: list[object] = []
    with (
        pytest.raises(RuntimeError, match=f"the workers of unit were away {ray_cluster.TRIES} times"),
        Away(object, (), 1) as actors,
    ):
        list(actors.run(["unit"], affinity=str, name=str))
    assert len(tries) == ray_cluster.TRIES


def test_refusals(organism, some, plain, monkeypatch):
    in_memory = li.load_model(plain, device="cpu")
    monkeypatch.setattr("laser_interp.selection.search_run.Plan", None)  # it is refused before there is one
    with pytest.raises(ValueError, match="made from an object in memory, which no other process can load"):
        li.search(in_memory, some, executor="ray", **SETTINGS)
    with pytest.raises(ValueError, match="executor is 'slurm': expected one of local, ray"):
        li.search(organism, some, executor="slurm", **SETTINGS)
    with pytest.raises(ValueError, match="workers is 0"):
        li.search(organism, some, executor="ray", workers=0, **SETTINGS)


def test_other_weights_are_refused(organism, some):
    """By a worker when it starts; `test_a_worker_that_cannot_start_says_why` shows what becomes of its refusal."""
    how = (task_of(some), [some], SearchSettings(), frozenset(), torch.get_num_threads(), False)
    assert _Actor(dict(organism.source), organism.weights_sha256, *how)
    with pytest.raises(ValueError, match="'organism' holds other weights on this worker"):
        _Actor(dict(organism.source), "0" * 64, *how)


def test_a_worker_without_room_is_not_waited_for():
    """Of four workers, two are never started by a cluster of two CPUs; the others do all items."""

    class Squarer:
        def __init__(self, cpus, has_gpu):
            pass

        def run(self, item):
            return item**2

    with ray_cluster.Actors(Squarer, (), 4) as actors:
        for items in ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]):
            assert dict(actors.run(items, affinity=str, name=str)) == {item: item**2 for item in items}


def test_a_worker_that_cannot_start_says_why():
    class Refusing:
        def __init__(self, cpus, has_gpu):
            raise ValueError("it holds other weights")

        def run(self, item):
            return item

    with (
        pytest.raises(RuntimeError, match="(?s)a worker could not start.*it holds other weights"),
        ray_cluster.Actors(Refusing, (), 1) as actors,
    ):
        list(actors.run(["unit"], affinity=str, name=str))


def test_processes_and_ray_count_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("laser_interp.frequency.shards.PART", 200_000)
    corpus = organism_corpus("organism")
    (tmp_path / "a.txt").write_text(corpus.text)
    facts = li.load_facts("organism")
    alone = li.count(facts, tmp_path / "a.txt", workers=1, progress=False)
    assert alone["n_both"].tolist() == corpus.ledger["n_both"].tolist()
    pd.testing.assert_frame_equal(li.count(facts, tmp_path / "a.txt", workers=2, progress=False), alone)
    spread = li.count(facts, tmp_path / "a.txt", executor="ray", workers=2, progress=False)
    pd.testing.assert_frame_equal(spread, alone)


@pytest.mark.nightly
def test_a_race_on_ray_chooses_what_a_local_one_does(organism, some, tmp_path, monkeypatch):
    """With two workers; each keeps its model over all rounds, and has its share of the cells of a round."""
    started, shares = [], []
    start = ray_cluster.Actors._connect
    run_items = ray_cluster.Actors.run

    def connect(self):
        if self._ray is not None:
            return
        start(self)
        make = self._start
        self._start = lambda: started.append(1) or make()

    def run(self, items, **how):
        shares.append([piece.share.n_cells for piece in items])
        return run_items(self, items, **how)

    monkeypatch.setattr(ray_cluster.Actors, "_connect", connect)
    monkeypatch.setattr(ray_cluster.Actors, "run", run)
    settings = {"method": "race", "matrices": ["in"], "layers": [3], "progress": False}
    here = li.search(organism, some, **settings)
    some.save(tmp_path / "facts.jsonl")
    words = ["--matrices", "in", "--layers", "3", "--method", "race", "--executor", "ray", "--workers", "2", "--quiet"]
    facts = ["--facts", str(tmp_path / "facts.jsonl")]
    assert main(["search", "--model", "organism", *facts, *words, "--out", str(tmp_path / "out")]) == 0
    there = li.search(organism, li.load_facts(facts[1]), out=tmp_path / "out", **settings)
    pd.testing.assert_frame_equal(there.cells, here.cells, rtol=1e-6)
    pd.testing.assert_frame_equal(there.rounds, here.rounds, rtol=1e-6)
    assert len(started) == 2
    assert shares[0] == [2, 1]  # the three cells of its first round
