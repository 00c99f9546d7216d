"""The command line as a person expects it."""

import json

import pytest

from laser_interp.cli.app import _parser, main


def commands():
    (sub,) = [a for a in _parser()._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
    return sub.choices


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_helps_with_an_example_that_parses(name, capsys):
    words = [name, "train"] if name == "organism" else [name]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    example = shown.partition("example: laser-interp ")[2]
    assert example
    _parser().parse_args(example.replace("'", "").split())


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete -"), ("zsh", "#compdef"), ("tcsh", "complete")])
def test_it_completes_in_every_shell(shell, word, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert word in out
    assert "report" in out


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("laser-interp 0.")


def test_errors_are_one_line_unless_more_is_asked_for(tmp_path, capsys):
    wrong = ["report", str(tmp_path), "-o", str(tmp_path / "r.html")]
    assert main(wrong) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main(["--verbose", *wrong]) == 2
    assert "Traceback" in capsys.readouterr().err


MODEL, FACTS = ["--model", "organism"], ["--facts", "organism"]
SMALL = ["--matrices", "in", "--layers", "3", "--rho", "0.05"]


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (["evaluate", *MODEL, "--task", "own", "--data", "organism", *SMALL, "--out", "OUT/evaluated"], "selected"),
        (["sweep", *MODEL, *FACTS, *SMALL, "--dry-run"], "seconds"),
        (["sweep", *MODEL, *FACTS, *SMALL, "--out", "OUT/swept"], "selected"),
        (["report", "OUT/swept", "-o", "OUT/report.html"], "page"),
        (["compose", *MODEL, *FACTS, *SMALL, "--out", "OUT/composed"], "edit"),
        (["decode", *MODEL, *FACTS, "--edit", "3.in:rank=1", "--split", "test", "--out", "OUT/a.parquet"], "shares"),
        (["attribute", *MODEL, *FACTS, "--sites", "3.in", "--out", "OUT/d.parquet"], "proposed"),
        (["count", *FACTS, "--corpus", "organism", "--out", "OUT/c.parquet"], "n_with"),
        (["index", "--corpus", "organism", "--backend", "sqlite", "--out", "OUT/index"], "n_docs"),
        (["compress", *MODEL, "--edit", "3.in:0.05", "--out", "OUT/thin"], "matrices"),
        (["compress", *MODEL, "--edit", "3.in:0.05", "--dense", "--out", "OUT/dense"], "checkpoint"),
        (["organism", "train", "--steps", "3", "--out", "OUT/trained"], "checkpoint"),
    ],
)  # fmt: skip
def test_json_is_all_that_is_printed(command, key, folder, capfd):
    assert main([*(word.replace("OUT", str(folder)) for word in command), "--json", "--quiet"]) == 0

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(capfd.readouterr().out, parse_constant=refuse)[key]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")
