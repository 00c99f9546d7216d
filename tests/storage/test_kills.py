"""Every command that writes may be killed at any moment: nothing is left behind, no process stays, and the same command
then gives the same result."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from preloaded_commands import PreloadedCommand

import laser_interp as li

pytestmark = pytest.mark.slow
BOTH = ["--model", "organism", "--device", "cpu", "--facts", "few.jsonl"]
COMMANDS = {
    "search": ["search", *BOTH, "--matrices", "in", "--rho", "0.2,0.05", "--out", "out"],
    "compose": ["compose", *BOTH, "--rho", "0.4,0.05", "--out", "out"],
    "discarded": ["discarded", *BOTH, "--edit", "3.in:0.05", "--out", "out.parquet"],
    "attribute": ["attribute", *BOTH, "--sites", "3.in", "--out", "out.parquet"],
    "count": ["count", "--facts", "few.jsonl", "--corpus", "text.jsonl.zst", "--out", "out.parquet"],
    "count in processes": [
        "count",
        "--facts",
        "few.jsonl",
        "--corpus",
        "parts",
        "--workers",
        "2",
        "--out",
        "out.parquet",
    ],
    "index": ["index", "--corpus", "parts", "--out", "out"],
    "export": ["export", "--model", "organism", "--device", "cpu", "--edit", "3.in:0.05", "--out", "out"],
}


def start(words, folder):
    return PreloadedCommand(
        ["laser-interp", *words], folder, os.environ | {"LASER_INTERP_CACHE": str(folder / "cache")}
    )


def left_of(session):
    """Processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(path.name)
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, facts):
    """The files that all commands read, made once."""
    from backports import zstd

    folder = tmp_path_factory.mktemp("corpus")
    few = facts.keep([*facts.split("validation")][:20] + [*facts.split("test")][:20])
    few.save(folder / "few.jsonl")
    names = [name for fact in few for name in (fact.subject, fact.object)]
    rng = random.Random(0)
    lines = "".join(f'{{"text": "{" ".join(rng.choices(names, k=12))}"}}\n' for _ in range(60_000))
    with zstd.open(folder / "text.jsonl.zst", "wt", encoding="utf-8") as file:
        file.write(lines)
    (folder / "parts").mkdir()
    for i in range(4):
        (folder / "parts" / f"{i}.jsonl").write_text(lines[: 6 << 20].rpartition("\n")[0] + "\n")
    return folder


@pytest.fixture
def folder(corpus, tmp_path):
    """The files, linked into a folder of the test's own."""
    return shutil.copytree(corpus, tmp_path / "run", copy_function=os.link)


SIGNALS = (signal.SIGTERM, signal.SIGKILL)
# At every run of the tests each command is killed once, and each way to write is stopped by both signals: a run of a
# search, a table of scores, counts, and a folder that is whole or not there. Each night every command by both.
ONCE = dict(zip(COMMANDS, 4 * SIGNALS, strict=True))
KILLS = [
    *(pytest.param(name, (how,), id=f"{name}-{how.name}") for name, how in ONCE.items()),
    *(pytest.param(name, SIGNALS, id=f"{name}-both", marks=pytest.mark.nightly) for name in COMMANDS),
]


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("name", "signals"), KILLS)
def test_killed_at_any_moment(folder, name, signals):
    words, rng = COMMANDS[name], random.Random(name)
    before = {path.name for path in folder.iterdir()} | {"cache"}
    began = time.monotonic()
    done = start(words, folder)
    assert done.wait() == 0, done.stderr
    takes = time.monotonic() - began
    out = folder / words[-1]
    expected = result(out)
    remove(out)
    for number, how in enumerate(signals):
        process = start(words, folder)
        try:
            process.wait(rng.uniform(0.35, 1.0) * takes)
        except subprocess.TimeoutExpired:
            process.send_signal(how)
        code = process.wait()
        said = process.stderr
        assert code in (0, 143, -how), said
        assert "Traceback" not in said
        if code == 143:
            assert "continues from what is saved" in said
        deadline = time.monotonic() + 10
        while left_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left_of(process.pid) == [], number
        if how == signal.SIGTERM:  # it could clean up
            assert not [path for path in folder.rglob("*.partial")]
        if out.exists() and words[0] in ("index", "export"):  # it came to its end, and its folder must not exist
            remove(out)
    done = start(words, folder)
    assert done.wait() == 0, done.stderr
    assert result(out) == expected
    left = {path.name for path in folder.iterdir()} - before
    assert left == {out.name}, left
    assert not [path for path in folder.rglob("*.partial")]


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def result(path):
    """What a command wrote, as text."""
    if path.is_file():
        return pd.read_parquet(path).to_json()
    if (path / "index.json").is_file():
        return li.counts.Index(path).count(li.load_facts(path.parent / "few.jsonl"), progress=False).to_json()
    if (path / "config.json").is_file():
        return li.load_model(path, device="cpu").weights_sha256
    return "".join(pd.read_parquet(table).to_json() for table in sorted((path / "tables").glob("*.parquet")))
