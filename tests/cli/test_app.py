"""The command line as a person expects it."""

import json
import re
import shlex
from pathlib import Path

import pytest

from laser_interp.cli.analyse import analyses_package
from laser_interp.cli.app import COMMANDS, build_app, main


def parse(words):
    """What a command would be called with; nothing is run."""
    return build_app().parse_args(words, exit_on_error=False, print_error=False)[:2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_with_an_example_that_parses(name, capsys):
    told, example = COMMANDS[name]["help"], COMMANDS[name]["help_epilogue"].removeprefix("For example: ")
    words = shlex.split(example.partition(" > ")[0])
    assert words[0] == "laser-interp"
    assert main([words[1], "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"example: {' '.join(example.split())}" in shown
    assert all(" ".join(line.split()) in shown for line in told.split("\n\n"))
    command, bound = parse(words[1:])
    assert command.__module__.rpartition(".")[2] in {name.replace("-", "_"), *words}
    assert set(bound.arguments) <= set(bound.signature.parameters)


def test_each_analysis_says_what_it_does_and_has_its_own_example(capsys):
    names = [path.stem for path in Path(analyses_package().__path__[0]).glob("[!_]*.py")]
    assert len(names) >= 13
    assert main(["analyse", "--help"]) == 0
    listed = capsys.readouterr().out
    for name in names:
        assert re.search(rf"{name} +[A-Z][a-z]+ ", listed), name
        assert main(["analyse", name, "--help"]) == 0
        shown = capsys.readouterr().out
        (example,) = re.findall(r"For example: (.*)", shown)
        assert example.startswith(f"laser-interp analyse {name}")
        assert "Args:" not in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_completes_in_every_shell(shell, capsys):
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "laser-interp" in out
    assert all(name in out for name in COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("laser-interp 0.")


def test_lists_are_written_with_commas_spaces_or_ranges():
    common = ["search", "--model", "organism", "--facts", "organism", "--out", "x"]
    for words in (["--layers", "0-2,5", "--rho", "0.2,0.05"], ["--layers", "0-2", "5", "--rho", "0.2", "0.05"]):
        settings = parse([*common, *words])[1].arguments["settings"]
        assert settings.layers == (0, 1, 2, 5)
        assert settings.rhos == (0.2, 0.05)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serach"], 'Unknown command "serach". Did you mean "search"'),
        (["search", "--model", "organism"], "--facts"),
        (["search", "--model", "organism", "--facts", "organism", "--layer", "3"], "--layer"),
        (["search", "--model", "organism", "--facts", "organism", "--rho", "2", "--out", "x"], "rho"),
        (["search", "--model", "organism", "--facts", "organism", "--alpha", "nan", "--out", "x"], "--alpha has nan"),
        (["search", "--model", "organism", "--facts", "nowhere.jsonl", "--out", "x"], "nowhere.jsonl"),
        (["study", "--model", "organism", "--facts", "organism", "--limit", "0", "--out", "x"], "limit is 0"),
        (["report", "nowhere", "-o", "r.html"], "no finished run"),
        (["completion", "tcsh"], "bash"),
    ],
)
def test_errors_are_one_sentence(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_where_it_is_asked_for(tmp_path, capsys):
    wrong = ["report", str(tmp_path), "-o", str(tmp_path / "r.html")]
    assert main(wrong) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main(["--verbose", *wrong]) == 2
    assert "Traceback" in capsys.readouterr().err


MODEL, FACTS = ["--model", "organism"], ["--facts", "organism"]
SMALL = ["--matrices", "in", "--layers", "3", "--rho", "0.05"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "key"),
    [
        (
            ["study", *MODEL, *FACTS, *SMALL, "--n-draws", "1", "--n-permutations", "99", "--out", "OUT/studied"],
            "selected",
        ),
        (["search", *MODEL, *FACTS, *SMALL, "--dry-run"], "seconds"),
        (["search", *MODEL, *FACTS, *SMALL, "--out", "OUT/searched"], "selected"),
        (["report", "OUT/searched", "-o", "OUT/report.html"], "page"),
        (["compose", *MODEL, *FACTS, *SMALL, "--out", "OUT/composed"], "edit"),
        (["discarded", *MODEL, *FACTS, "--edit", "3.in:rank=1", "--split", "test", "--out", "OUT/a.parquet"], "shares"),
        (["attribute", *MODEL, *FACTS, "--sites", "3.in", "--out", "OUT/d.parquet"], "proposed"),
        (["count", *FACTS, "--corpus", "organism", "--out", "OUT/c.parquet"], "n_with"),
        (["index", "--corpus", "organism", "--out", "OUT/index"], "n_docs"),
        (["export", *MODEL, "--edit", "3.in:0.05", "--adapter", "--out", "OUT/smaller"], "matrices"),
        (["export", *MODEL, "--edit", "3.in:0.05", "--out", "OUT/dense"], "checkpoint"),
        (["organism", "train", "--steps", "3", "--out", "OUT/trained"], "checkpoint"),
    ],
)
def test_json_is_all_that_is_printed(command, key, folder, capfd):
    assert main([*(word.replace("OUT", str(folder)) for word in command), "--json", "--quiet"]) == 0

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(capfd.readouterr().out, parse_constant=refuse)[key]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")
