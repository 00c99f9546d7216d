"""The command line as a person expects it."""

import json
import subprocess
import sys

import pytest

from laser_interp.cli import _parser, main


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


def test_json_is_all_that_is_printed(tmp_path):
    command = [sys.executable, "-m", "laser_interp", "evaluate", "--model", "organism", "--task", "own", "--data"]
    command += ["organism", "--layers", "3", "--rho", "0.05", "--out", str(tmp_path / "run"), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["selected"]
