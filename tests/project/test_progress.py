"""How far long work is: a bar in a terminal, lines of text where the output is kept."""

import io
import re
import sys

import pytest
from tqdm import tqdm

from laser_interp import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def seconds(monkeypatch):
    """A clock that the test turns."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    return now


def run(seconds, n, each, **options):
    for _ in progress.progress_bar(range(n), desc="scoring", unit=" prompts", **{"disable": False} | options):
        seconds[0] += each


def test_a_file_gets_a_line_every_ten_seconds(seconds, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    run(seconds, 60, 1.0)
    out = sys.stderr.getvalue()
    assert "\r" not in out
    lines = out.splitlines()
    assert 5 <= len(lines) <= 7
    assert re.fullmatch(r"scoring: 20 of 60 prompts \(33 %\), 00:20 passed, about 00:40 left", lines[1])
    assert lines[-1].startswith("scoring: 60 of 60 prompts (100 %)")


def test_short_work_writes_no_line(seconds, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    run(seconds, 5, 1.0)
    assert sys.stderr.getvalue() == ""


def test_quiet_is_quiet_everywhere(seconds, monkeypatch):
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        run(seconds, 60, 1.0, disable=True)
        assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar(seconds, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    run(seconds, 5, 1.0)
    assert "\r" in sys.stderr.getvalue()


def test_what_has_no_known_end_says_how_far_it_is(seconds, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.progress_bar(desc="composing", unit=" prompts", unit_scale=True, disable=False) as bar:
        for _ in range(30):
            seconds[0] += 1.0
            bar.update(1000)
    assert re.fullmatch(r"composing: [\d.]+k prompts, 00:10 passed", sys.stderr.getvalue().splitlines()[0])
