"""What the README and the documentation say runs, as they say it; and they build."""

import ast
import html
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser_programs import CHROMIUM
from preloaded_commands import run_preloaded

import laser_interp as li

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# Later pages use what the commands of earlier ones have written.
PAGES = ["README.md", *(f"docs/{name}.md" for name in (
    "start", "organism", "models", "finding", "frequency", "statistics", "discarded", "mechanism", "training",
    "real_model", "tasks", "explore", "figures", "share", "questions",
    "command-line", "cluster", "index", "validation", "limits",
))]  # fmt: skip
BLOCKS = [
    (page, language, text)
    for page in PAGES
    for language, text in re.findall(
        r"^```([\w{}-]*)[^\n]*\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
    )
]
LINES = [line for _, language, text in BLOCKS if language == "sh" for line in text.splitlines() if line.strip()]
COMMANDS = list(dict.fromkeys(LINES))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Of the tests that are not of the documented commands."""
    return checkout(tmp_path_factory)


def checkout(tmp_path_factory):
    """A copy of what the commands use, so that they write nothing into the checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("analyses", "figures"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=pytest.mark.nightly)], ids=["few", "all"])
def facts_and_folder(request, few_facts, tmp_path_factory):
    """Where the documented commands are run one after the other, and the facts that they find by the organism's name.

    `make test` gives them a fifth of the facts: the commands are those of the pages, word by word, and take a fifth of
    the time. `make nightly` gives them all.
    """
    return None if request.param else few_facts, checkout(tmp_path_factory)


def run(command, folder, facts=None, **more):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **more}
    words = shlex.split(command)
    if words[0] == "laser-interp" or words[:2] == ["python", "-m"]:
        return run_preloaded(words, folder, environment, facts)
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip


def test_every_page_is_here():
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages - {"docs/changelog.md", "docs/contributing.md", "docs/gallery.md"} == set(PAGES) - {
        "README.md"
    }  # copies, and one that the build runs
    known = {"sh", "python", "bash", "text", "{toctree}", "{include}"}
    assert {language for _, language, _ in BLOCKS} <= known  # no block escapes the tests below under another name


@pytest.mark.slow
def test_python_blocks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for page, language, text in BLOCKS:
        if language == "python" and "HostedInfiniGram(" not in text:  # tests/frequency/test_infinigram.py runs that
            exec(compile(text, page, "exec"), scope)
    out = capsys.readouterr().out
    assert "Ranarik" in out
    assert ": on validation better than the model as trained, with a score of " in out
    assert out.count("enfold frequency") >= 2


# These run the whole suite, or are run by tests of their own.
ELSEWHERE = {
    "make test": "this is it",
    "make smollm2": "tests/models/test_smollm2.py runs a small study on it, where it is installed",
    "make gemma": "tests/models/test_gguf.py scores an edit on it, where it is installed",
    "python -m figures": "test_committed_figures_are_those_of_the_committed_tables",
    "laser-interp models": "tests/models/test_loading.py runs it",
    "make reproduce": "tests/studies/test_examples.py runs what it calls",
    "laser-interp reproduce --out runs/organism": "tests/studies/test_examples.py",
    "pip install .": "tests/project/test_packaging.py installs the wheel that this builds",
    "laser-interp organism train --out runs/my-organism": "tests/organism/test_training.py",
    "laser-interp search --model organism --facts organism --matrices in --layers 2-3 --method grid --executor ray "
    "--workers 2 --out runs/ray": "tests/parallel/test_ray_cluster.py runs such a command",
}


def test_every_command_is_accounted_for():
    assert set(ELSEWHERE) <= set(COMMANDS)
    makefile = (ROOT / "Makefile").read_text()
    assert "$(BIN)/laser-interp reproduce --out runs/organism" in makefile
    assert "$(BIN)/python -m pytest" in makefile


# Each night as they are written; at every run of the tests with fewer data sets.
SMALLER = {
    "laser-interp analyse frequency_trap --n 5 --out runs/frequency_trap": ("--n 5", "--n 1"),
    "laser-interp analyse frequency_simulation --n 2 --out runs/frequency_simulation": ("--n 2", "--n 1"),
}


IN_THE_HARNESS = "python -m laser_interp.lm_eval "


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE])
def test_commands(command, facts_and_folder):
    facts, folder = facts_and_folder
    if facts is not None and command.startswith(IN_THE_HARNESS):
        pytest.skip("project/test_lm_eval.py runs the harness with these options, and looks at what it gives")
    written, smaller = SMALLER.get(command, ("", ""))
    assert written in command
    done = run(command if facts is None else command.replace(written, smaller), folder, facts)
    assert done.returncode == 0, done.stderr
    asked = li.load_facts("organism" if facts is None else facts)
    paths = re.findall(r"^(\S+\.(?:png|pdf|parquet|yaml))$", done.stdout, re.MULTILINE)
    told = (
        "checkpoint is in",
        "edited model is in",
        "The adapter is in",
        "Right: on organism",
        "|organism_facts|",
        "All cells: ",
        "open it in a browser",
        "All steps: ",
        f"cells x {sum(len(fact.prompts) for fact in asked.split('validation'))} prompts",
        "All answers: ",
        "All results: ",
        "All counts: ",
        "All directions: ",
        "Probe of 'Once Mira Tolen was born in'",
        "The index of 38361 documents is in",
        "RunComparison of 2 runs",
        "From step ",
        "laser-interp 0.",
        "complete -",
        '"selected": "3.in ',
    )
    assert paths or any(text in done.stdout for text in told)
    for path in paths:
        assert (folder / path).stat().st_size > 0


def test_the_slurm_script_says_what_its_programs_understand(tmp_path):
    """Run with stand-ins for what a cluster has; what they were told is then parsed by the real programs."""
    from ray.scripts.scripts import start

    from laser_interp.cli.app import build_app

    (script,) = (text for _, language, text in BLOCKS if language == "bash")
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name in ("ray", "srun", "sleep", "laser-interp"):
        stub = stubs / name
        stub.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/told"\n')
        stub.chmod(0o755)
    environment = {"SCRATCH": str(tmp_path), "SLURM_NNODES": "4", "PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}"}
    done = run("bash -eu -c " + shlex.quote(script + "\nwait"), tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    told = [shlex.split(line) for line in (tmp_path / "told").read_text().splitlines()]
    (search,) = (words for words in told if words[0] == "laser-interp")
    _, bound, _ = build_app().parse_args(search[1:], exit_on_error=False, print_error=False)
    asked = bound.arguments
    assert (asked["executor"], asked["model"].model) == ("ray", "EleutherAI/gpt-j-6b")
    assert not asked["settings"].candidates
    rays = [words[words.index("ray") + 1 :] for words in told if "ray" in words and words[0] in ("ray", "srun")]
    assert len(rays) == 2
    for words in rays:
        assert words[0] == "start"
        start.make_context("start", words[1:])  # parses, runs nothing


@pytest.mark.slow
def test_every_test_that_validation_names_is_there():
    named = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "validation.md").read_text())
    assert len(named) > 40
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}, f"{file}::{name}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    """In the repository; those of the site are checked by its build."""
    for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text()):
        if target == "reference/index.md":
            continue  # written by the build of the site
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


def test_every_command_of_the_command_line_has_its_row():
    from laser_interp.cli.app import COMMANDS

    page = (ROOT / "docs" / "command-line.md").read_text()
    for name in COMMANDS:
        assert f"`laser-interp {name}" in page, name


def test_the_site_that_make_check_built_is_whole_and_loads_nothing_from_elsewhere():
    site = ROOT / "docs" / "_build" / "html"
    if not (site / "index.html").is_file():
        pytest.skip("the site is not built: make check builds it, and fails where there is a warning")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:[^"]+)"', page.read_text())
        assert not loaded, page
    assert 'id="laser_interp.edits.constructors.laser"' in (site / "reference" / "edits.html").read_text()
    assert "enfold frequency" in (site / "notebooks" / "rare_facts.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1300, 390])
def test_no_page_of_the_site_is_wider_than_its_window(width):
    site = ROOT / "docs" / "_build" / "html"
    if not (site / "index.html").is_file() or CHROMIUM is None:
        pytest.skip("needs Chromium, and the site that make check builds")
    from playwright.sync_api import sync_playwright

    too_wide = {}
    with sync_playwright() as p:
        page = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page(
            viewport={"width": width, "height": 900}
        )
        for path in sorted(site.rglob("*.html")):
            if "_modules" in path.parts or "_static" in path.parts:
                continue
            page.goto(path.as_uri(), wait_until="domcontentloaded")
            found = page.evaluate("document.documentElement.scrollWidth")
            if found > width:
                too_wide[str(path.relative_to(site))] = found
    assert too_wide == {}


@pytest.mark.slow
def test_committed_figures_are_those_of_the_committed_tables(elsewhere):
    """Vector files are compared byte for byte where the libraries are the pinned ones."""
    folder = elsewhere / "figures" / "organism"
    for path in folder.glob("*.pdf"):
        path.unlink()
    done = run("python -m figures", elsewhere)
    assert done.returncode == 0, done.stderr
    names = {p.name for p in (ROOT / "figures" / "organism").glob("*.pdf")}
    assert {p.name for p in folder.glob("*.pdf")} == names
    assert "decomposition.pdf" in names
    for name in names:
        data = (folder / name).read_bytes()
        assert b"/FontFile2" in data or b"/FontFile3" in data  # fonts are embedded
        assert b"/Type3" not in data


def test_the_table_of_families_is_that_of_the_tests():
    from families import FAMILIES
    from support_table import END, NOTES, START, table

    shown = (ROOT / "docs" / "models.md").read_text().split(START)[1].split(END)[0].strip()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()[2:]]
    results = []
    for family, cls, matrices, single, double, note in rows:
        assert note.startswith("refused") if not single else float(single) < 3e-5
        if family in FAMILIES:
            results += [[family, "float32", matrices, single], [family, "float64", matrices, double]]
            assert matrices.split() == list(FAMILIES[family][3])
            assert float(double) < 1e-12
        else:
            results.append([family, cls, matrices, single, note])
    assert shown == table(results)
    assert set(NOTES) <= set(FAMILIES)


@pytest.mark.slow
def test_figures_say_what_is_missing(elsewhere, tmp_path):
    done = run(f"laser-interp figures {tmp_path}", elsewhere)
    assert done.returncode == 2
    assert "laser-interp reproduce" in done.stderr
    done = run("python -m figures", tmp_path)
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nothing", 'Unknown command "nothing"'),
        ("controls --model elsewhere", "--facts is needed"),
        ("controls --edit 3.in", "not of the form SITE:RHO"),
        ("controls --edit 3.up:0.1", "no matrix 'up'"),
    ],
)
def test_analyses_refuse_what_they_do_not_know(words, says, capsys, tmp_path, monkeypatch):
    from laser_interp.cli.app import main

    monkeypatch.chdir(tmp_path)
    assert main(["analyse", *words.split()]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_an_analysis_of_ones_own_facts_and_edit(elsewhere, tmp_path):
    """A fact file without a split, counted in a text file."""
    from laser_interp.organism.checkpoint_corpus import organism_corpus
    from laser_interp.storage.tables import read_table

    facts = li.load_facts("organism")
    li.load_facts(facts.to_frame().head(60).drop(columns=["split", "frequency"])).save(tmp_path / "facts.csv")
    (tmp_path / "corpus.txt").write_text(organism_corpus("organism").text)
    done = run(
        f"laser-interp analyse rare_facts --facts {tmp_path}/facts.csv --corpus {tmp_path}/corpus.txt "
        f"--edit 3.in:0.05 --out {tmp_path}/out",
        elsewhere,
    )
    assert done.returncode == 0, done.stderr
    assert "tenfold" in done.stdout, done.stdout
    counts = read_table(tmp_path / "out" / "tables" / "counts.parquet", "counts")
    known = {fact.fact_id: fact.frequency for fact in facts}
    assert [known[i] for i in counts["fact_id"]] == counts["n_both"].tolist()
    assert (tmp_path / "out" / "figures" / "rare_facts.pdf").is_file()


def test_no_page_has_the_name_of_one_that_sphinx_writes():
    """Sphinx writes its own search.html over that of a page."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert not pages & {"search", "genindex", "py-modindex"}


@pytest.mark.parametrize("page", sorted(path.stem for path in (ROOT / "docs").glob("*.md")))
def test_each_built_page_has_the_title_of_its_source(page):
    built = (ROOT / "docs/_build/html") / f"{page}.html"
    if not built.is_file():
        pytest.skip("needs the site: `make docs` builds it")
    source = next(line for line in (ROOT / f"docs/{page}.md").read_text().splitlines() if line.startswith("# "))
    title = re.findall(r"<title>(.*?)</title>", built.read_text(), re.DOTALL)[0]  # the others are of icons
    words, shown = (re.sub(r"[^\w\s]", "", text).strip() for text in (source, html.unescape(title)))
    assert shown.startswith(words)


def test_a_number_that_two_pages_state_is_one_number():
    said = [
        re.findall(r"at\s+most\s+(\.\d+)\s", (ROOT / f"docs/{page}.md").read_text())[0]
        for page in ("statistics", "validation")
    ]
    assert said[0] == said[1]


def test_actions_are_pinned_by_commit():
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for used in re.findall(r"uses: (\S+)( # v[\d.]+)?", path.read_text()):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", used[0]), path
            assert used[1], f"{path}: {used[0]} has no version beside it"
    assert (
        'git merge-base --is-ancestor "$GITHUB_SHA" origin/main' in (ROOT / ".github/workflows/release.yml").read_text()
    )
