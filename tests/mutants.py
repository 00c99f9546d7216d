"""Change one line of the package at a time, and see whether a test fails: `make mutants`.

Cosmic Ray makes the changes. A sample is drawn by a seed from all that it would make in some rooms. The quick tests
run once, and it is noted which lines each of them runs. A worker has a copy of the checkout. For each
change it forks, and the fork, which has imported the large libraries already, runs the tests that run the changed line.
`tests/mutants.json` holds the changes that no test notices, and why each changes nothing that a user could see.
"""

import argparse
import ast
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
import coverage
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_db import WorkDB, use_db

ROOT = Path(__file__).parents[1]
ROOMS = ("edits", "scoring", "statistics", "selection", "discarded")
KNOWN = ROOT / "tests" / "mutants.json"  # the survivors, and why each changes nothing that a user could see
QUICK = [
    "-q",
    "-x",
    "-m",
    "not slow and not nightly",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore",
    "-p",
    "no:faulthandler",
]
# What changes no result: types, how what is computed is kept, and `is` where numbers and names are compared
SKIPPED = ("core/RemoveDecorator", "core/ReplaceBinaryOperator_BitOr")
SKIPPED_ENDS = ("_Is", "_IsNot")
LIBRARIES = (
    "matplotlib.backends.backend_agg",
    "scipy.stats",
    "seaborn",
    "statsmodels.api",
    "transformer_lens.model_bridge",
    "transformers.models.gpt2.modeling_gpt2",
)
SURVIVED = ("survived", "not run by any quick test")
LIMIT = 300.0  # seconds that a change may take, as where a loop no longer ends
_copy: list[Path] = []
_runs: dict[str, dict[int, list[str]]] = {}  # file -> line -> the tests that run it


def sample(rooms: list[str], size: int, seed: int) -> list[dict[str, object]]:
    """Changes: places drawn evenly from all that can be changed, and one change at each. They are drawn by hashes of
    their lines, so that the sample stays almost the same while the code is worked on."""
    paths = [path for room in rooms for path in sorted((ROOT / "laser_interp" / room).glob("*.py"))]
    with tempfile.TemporaryDirectory() as folder, use_db(f"{folder}/all.sqlite", WorkDB.Mode.create) as known:
        init(paths, known, {})
        items = sorted((item.mutations[0] for item in known.work_items), key=str)
    at: dict[tuple[Any, ...], list[Any]] = {}
    lines = {path: path.read_text(encoding="utf-8").splitlines() for path in paths}
    for item in items:
        line = lines[ROOT / item.module_path][item.start_pos[0] - 1]
        how_kept = line.lstrip().startswith("@") or line[item.start_pos[1] - 7 : item.start_pos[1]] == "strict="
        if not (item.operator_name.startswith(SKIPPED) or item.operator_name.endswith(SKIPPED_ENDS) or how_kept):
            text, column = line.strip(), item.start_pos[1] - len(line) + len(line.lstrip())
            path = item.module_path.relative_to(ROOT).as_posix()
            drawn = hashlib.sha256(f"{seed} {path} {text} {column}".encode()).hexdigest()
            at.setdefault((drawn, item.start_pos), []).append(item)
    places = sorted(at)[:size]
    chosen = [at[place][int(place[0], 16) % len(at[place])] for place in places]
    return [
        {
            "path": str(item.module_path.relative_to(ROOT)),
            "line": item.start_pos[0],
            "operator": item.operator_name.removeprefix("core/"),
            "occurrence": item.occurrence,
        }
        for item in chosen
    ]


def tests_of_lines(folder: str) -> dict[str, dict[int, list[str]]]:
    """Of each line, the quick tests that run it. A line that runs when its file is imported has all tests that run
    anything of this file."""
    data = Path(folder) / "coverage"
    os.environ["COVERAGE_FILE"] = str(data)
    of_tests = ["--cov=laser_interp", "--cov-context=test", "--cov-report="]
    done = subprocess.run([sys.executable, "-m", "pytest", *QUICK, *of_tests, "tests"], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit("the quick tests fail without any change: mend them first")
    found = coverage.CoverageData(str(data))
    found.read()
    out = {}
    for path in found.measured_files():
        by_line = {
            line: sorted({context.rpartition("|")[0] for context in contexts if context})
            for line, contexts in found.contexts_by_lineno(path).items()
        }
        anywhere = sorted({test for tests in by_line.values() for test in tests})
        out[str(Path(path).relative_to(ROOT))] = {line: tests or anywhere for line, tests in by_line.items()}
    return out


def _start(runs: dict[str, dict[int, list[str]]]) -> None:
    """A copy of the checkout for this worker, which tests run which line, and the libraries in memory."""
    _runs.update(runs)
    folder = Path(tempfile.mkdtemp(prefix="laser-interp-mutants-"))
    ignored = shutil.ignore_patterns(".git", ".venv", "_build", "__pycache__", "runs", "site")
    shutil.copytree(ROOT, folder / "copy", ignore=ignored)
    _copy.append(folder / "copy")
    os.chdir(_copy[0])
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in LIBRARIES:
        importlib.import_module(name)


def tried(change: dict[str, object]) -> dict[str, object]:
    """The change with what the line was and is now, its `outcome`, and the seconds that it took."""
    started = time.perf_counter()
    path = _copy[0] / str(change["path"])
    before = path.read_text(encoding="utf-8")
    operator = cosmic_ray.plugins.get_operator(f"core/{change['operator']}")()
    after = mutate_code(before, operator, change["occurrence"])
    if after is None or after == before:
        return change | {"outcome": "no change"}
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    was, now = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
    lines, run_by = _statement(before, int(str(change["line"]))), _runs.get(str(change["path"]), {})
    tests = {test for line in lines for test in run_by.get(line, ())}
    if not tests:  # Python tells nothing of some lines, such as `continue`: those that run what is before it
        above = next((line for line in range(lines.start - 1, lines.start - 4, -1) if run_by.get(line)), 0)
        tests = set(run_by.get(above, ()))
    room = Path(str(change["path"])).parts[1]
    own, others = sorted(t for t in tests if f"/{room}/" in t), sorted(t for t in tests if f"/{room}/" not in t)
    path.write_text(after, encoding="utf-8")
    try:
        code = next((code for some in (own, others) if some and (code := _run(some))), 0)
    finally:
        path.write_text(before, encoding="utf-8")
    outcome = "timeout" if code < 0 else "killed" if code else "survived" if tests else "not run by any quick test"
    seconds = round(time.perf_counter() - started, 1)
    about = {"was": was.strip(), "now": now.strip(), "n_tests": len(tests)}
    return change | about | {"outcome": outcome, "seconds": seconds}


def _statement(code: str, line: int) -> range:
    """The lines of the innermost statement at a line; of a statement with a body, those before its body."""
    around = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
    around = [node for node in around if node.lineno <= line <= (node.end_lineno or node.lineno)]
    if not around:  # a decorator
        return range(line, line + 1)
    inner = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)))
    body = getattr(inner, "body", None)
    end = body[0].lineno if body else (inner.end_lineno or inner.lineno) + 1
    return range(inner.lineno, max(end, inner.lineno + 1))


def _run(tests: list[str]) -> int:
    """The exit code of some tests; -1 where they do not end."""
    child = os.fork()
    if not child:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.path[:0] = [str(_copy[0]), str(_copy[0] / "tests")]
        import pytest

        os._exit(int(pytest.main([*QUICK, *tests])))
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) or 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", default=list(ROOMS), choices=ROOMS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/mutants.jsonl"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = {(row["path"], row["was"], row["now"]): row["why"] for row in json.loads(KNOWN.read_text(encoding="utf-8"))}
    counts: dict[str, int] = {}
    unexplained = []
    changes = sample(args.rooms, args.sample, args.seed)
    before = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    tried_before = {tuple(row[name] for name in changes[0]): row for row in before}  # a run that was stopped goes on
    waiting = [change for change in changes if tuple(change.values()) not in tried_before]
    done = [tried_before[key] for change in changes if (key := tuple(change.values())) in tried_before]
    with tempfile.TemporaryDirectory() as folder:
        runs = tests_of_lines(folder)
    pool = ProcessPoolExecutor(args.workers, initializer=_start, initargs=(runs,))
    with pool, args.out.open("a", encoding="utf-8") as out:
        for n, row in enumerate(chain(done, pool.map(tried, waiting)), 1):
            if n > len(done):
                out.write(json.dumps(row) + "\n")
                out.flush()
            counts[str(row["outcome"])] = counts.get(str(row["outcome"]), 0) + 1
            if row["outcome"] in SURVIVED and (row["path"], row["was"], row["now"]) not in known:
                unexplained.append(row)
            print(f"{n} of {len(changes)}: {counts}", flush=True)
    for row in unexplained:
        print(f"{row['path']}:{row['line']}\n- {row['was']}\n+ {row['now']}")
    share = len(unexplained) / max(len(changes) - counts.get("no change", 0), 1)
    print(f"{len(unexplained)} changes survive without a reason in {KNOWN.name}: {share:.1%}")
    sys.exit(share >= 0.05)


if __name__ == "__main__":
    main()
