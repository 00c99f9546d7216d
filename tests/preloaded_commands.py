"""Commands as a user types them, each run in a process of its own that has imported the large libraries already.

Importing them takes ten seconds, longer than most commands take. One server imports them once, and each command is a
fork of it, with its own folder, environment and output.
"""

import atexit
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "laser_interp.cli.app",
        "matplotlib.backends.backend_pdf",
        "pandas",
        "scipy.stats",
        "seaborn",
        "transformer_lens.model_bridge",
        "transformers.models.gpt2.modeling_gpt2",
    ]
)


class PreloadedCommand:
    """A command that was started: `laser-interp …` or `python -m …`. It leads a session, as a command in a shell does.

    Args:
        facts: a file that the command finds where the shipped organism's facts are, so that it takes a few of them.

    Example:
        `assert PreloadedCommand(["laser-interp", "--version"], folder).wait() == 0`
    """

    def __init__(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str] = os.environ, facts: Path | None = None
    ) -> None:
        self.words = list(words)
        self._out = Path(tempfile.mkdtemp(prefix="laser-interp-command-"))
        weakref.finalize(self, shutil.rmtree, self._out, ignore_errors=True)
        self._process = _CONTEXT.Process(target=_run, args=(self.words, folder, dict(environment), self._out, facts))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def stdout(self) -> str:
        return (self._out / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self._out / "stderr").read_text()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.words, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)


def run_preloaded(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] = os.environ, facts: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does."""
    command = PreloadedCommand(words, folder, environment, facts)
    code = command.wait()
    return subprocess.CompletedProcess(command.words, code, command.stdout, command.stderr)


def _run(words: list[str], folder: Path, environment: dict[str, str], out: Path, facts: Path | None) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        with open(out / name, "wb") as file:
            os.dup2(file.fileno(), number)
    if facts is not None:
        from laser_interp.facts import files

        shipped = files.shipped_table
        files.shipped_table = lambda name, file: facts if name == "organism" else shipped(name, file)
    try:
        if words[0] == "laser-interp":
            from laser_interp.cli.app import main

            sys.argv = words
            sys.exit(main(words[1:]))
        assert words[:2] == ["python", "-m"], words
        sys.path.insert(0, str(folder))
        sys.argv = words[2:]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
