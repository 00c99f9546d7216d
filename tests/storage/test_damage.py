"""One changed byte in any kind of file that is read back is noticed: it is refused, or computed again to the same."""

import shutil
import sqlite3
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import laser_interp as li
from laser_interp.edits import spectrum_files
from laser_interp.frequency.infinigram import _Kept
from laser_interp.frequency.infinigram_sources import Answer
from laser_interp.report.run_reader import read_run
from laser_interp.storage.atomic import replacing
from laser_interp.storage.cache import cache_dir
from laser_interp.storage.checksums import read_checked_json, with_checksum
from laser_interp.storage.tables import read_table, write_table

pytestmark = pytest.mark.slow

FLIPS = 12  # bytes of each file
REFUSED = (ValueError, OSError)


def flipped(path, seed, n=FLIPS):
    """The file with one bit of one byte changed, n times; as it was afterwards."""
    good = path.read_bytes()
    rng = np.random.default_rng(seed)
    for at in sorted(rng.choice(len(good), min(n, len(good)), replace=False).tolist()):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        yield at
    path.write_bytes(good)


def refuses(read, path):
    try:
        read(path)
    except REFUSED:
        return True
    return False


@pytest.fixture(scope="module")
def run_folder(organism, facts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    some = facts.keep([*facts.split("validation")][:12] + [*facts.split("test")][:12])
    found = li.search(
        organism, some, matrices="in", layers=[2, 3], rhos=[0.2, 0.05], test="all", out=folder, progress=False
    )
    return folder, some, found


def shown(folder):
    run = read_run(folder)
    return run.facts.sha256, run.cells.to_json(), {k: v.tobytes() for k, v in run.right.items()}, run.selected


def test_every_file_of_a_run_that_the_page_reads(run_folder):
    folder, _, _ = run_folder
    as_it_was = shown(folder)
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    assert {p.suffix for p in files} == {".json", ".jsonl", ".parquet"}
    for i, path in enumerate(files):
        for at in flipped(path, i):
            try:
                same = shown(folder) == as_it_was
            except REFUSED:
                continue
            assert same, (path.name, at)
    assert shown(folder) == as_it_was


def test_every_part_of_a_run_that_is_resumed(run_folder, organism, tmp_path):
    folder, some, found = run_folder
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    for i, path in enumerate(sorted(copy.glob("parts/*/*.parquet"))):
        for _ in flipped(path, i, 4):
            with pytest.warns(UserWarning, match="is not used and is computed again"):
                again = li.search(
                    organism, some, matrices="in", layers=[2, 3], rhos=[0.2, 0.05], test="all", out=copy, progress=False
                )
            pd.testing.assert_frame_equal(again.cells, found.cells)


def test_parts_of_other_runs_and_shortened_parts_are_not_used(run_folder, organism, tmp_path):
    folder, some, found = run_folder
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    path = next(copy.glob("parts/layer-003/*.parquet"))
    frame = read_table(path)
    about = frame.attrs["provenance"]
    spoilt = [
        (frame, {**about, "settings_sha256": "0" * 64}),
        (frame, {k: v for k, v in about.items() if k != "settings_sha256"}),
        (frame.head(5), about),
    ]
    for rows, provenance in spoilt:
        write_table(rows, path, "search_part", provenance)
        with pytest.raises(ValueError, match="belongs to a run with other settings|is damaged"):
            read_run(copy)
        with pytest.warns(UserWarning, match="computed again"):
            again = li.search(
                organism, some, matrices="in", layers=[2, 3], rhos=[0.2, 0.05], test="all", out=copy, progress=False
            )
        pd.testing.assert_frame_equal(again.cells, found.cells)


def test_facts_of_another_run_are_refused(run_folder, facts, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run_folder[0], copy)
    facts[:24].save(copy / "facts.jsonl")
    with pytest.raises(ValueError, match="does not hold the facts of this run"):
        read_run(copy)


def test_every_file_of_an_index(tmp_path, facts):
    folder = tmp_path / "index"
    expected = li.counts.build_index("organism", folder, progress=False).count(facts, progress=False)
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock"]
    for i, path in enumerate(files):
        for at in flipped(path, i, 5):
            assert refuses(li.counts.Index, folder), (path.name, at)
    pd.testing.assert_frame_equal(li.counts.Index(folder).count(facts, progress=False), expected)
    missing = next(p for p in files if p.parent.name == "sqlite" and p.stat().st_size > 100)
    missing.unlink()
    with pytest.raises(ValueError, match=f"{missing.name} is missing"):
        li.counts.Index(folder)


def test_every_file_of_an_exported_checkpoint(tmp_path, organism, laser):
    folder = tmp_path / "dense"
    li.export_dense(organism, laser, folder)
    for i, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        for at in flipped(path, i, 6):
            assert refuses(li.load_model, folder), (path.name, at)
    assert li.load_model(folder, device="cpu").n_params == organism.n_params


def test_the_cache_of_spectra(organism):
    known = li.spectrum(organism, "3.in")
    spectrum_files.write(known.weight_sha256, {"U": known.U, "S": known.S, "Vh": known.Vh})
    path = cache_dir() / "spectra" / f"{known.weight_sha256}.safetensors"
    for at in flipped(path, 0, 60):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = spectrum_files.read(known.weight_sha256)
        assert stored is None or all(torch.equal(stored[k], getattr(known, k)) for k in ("U", "S", "Vh")), at


def test_the_cache_of_answers(tmp_path):
    path = tmp_path / "answers.sqlite"
    kept = _Kept(path)
    answers = {f"key {i}": Answer(i * 7919, bool(i % 2)) for i in range(40)}
    for key, answer in answers.items():
        kept.put(key, f"asked {key}", answer)
    kept.close()
    for at in flipped(path, 0, 150):
        try:
            again = _Kept(path)
            found = {key: again.get(key) for key in answers}
            again.close()
        except sqlite3.DatabaseError:
            continue
        assert all(found[key] in (None, answer) for key, answer in answers.items()), at


def test_numbers_that_were_changed_in_json(tmp_path):
    path = tmp_path / "summary.json"
    from laser_interp.storage.atomic import write_json

    write_json(with_checksum({"accuracy": 0.185, "notes": ["a"]}), path)
    assert read_checked_json(path) == {"accuracy": 0.185, "notes": ["a"]}
    path.write_text(path.read_text().replace("0.185", "0.285"))
    with pytest.raises(ValueError, match="not as it was written"):
        read_checked_json(path)


def test_files_appear_whole_or_not_at_all_and_keep_the_umask(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(tmp_path / "b.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "b.txt").stat().st_mode == path.stat().st_mode


# --- files that were changed in any way -------------------------------------------------------------

RUN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HURRIED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@HURRIED
@given(value=RUN_JSON)
def test_any_run_json_is_refused_in_a_sentence(run_folder, organism, tmp_path_factory, value):
    import json

    folder, some, _ = run_folder
    path = folder / "run.json"
    good = path.read_text()
    try:
        path.write_text(json.dumps(value))
        with pytest.raises(ValueError, match=r"run\.json|other settings"):
            li.search(
                organism, some, matrices="in", layers=[2, 3], rhos=[0.2, 0.05], test="all", out=folder, progress=False
            )
        with pytest.raises(REFUSED):
            read_run(folder)
    finally:
        path.write_text(good)


@HURRIED
@given(data=st.data())
def test_any_change_of_a_fact_file_is_read_or_refused(facts, tmp_path, data):
    """Never another kind of error, and what is read can be written and read again."""
    suffix = data.draw(st.sampled_from([".jsonl", ".csv"]))
    path = facts[:3].save(tmp_path / f"facts{suffix}")
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if what == "flip":
            raw[at] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "cut":
            raw = raw[:at] or bytearray(b"x")
        elif what == "insert":
            raw[at:at] = data.draw(st.binary(max_size=4))
        else:
            raw[at:at] = raw[at : at + 40]
    path.write_bytes(raw)
    try:
        read = li.load_facts(path)
    except ValueError:
        pass
    else:
        again = li.load_facts(read.save(tmp_path / "again.jsonl"))
        assert again.facts == read.facts
