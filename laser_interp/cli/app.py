"""The frame of the command line: the list of commands, how lists are read, and how errors are printed."""

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, Token, convert

from laser_interp.choices import parse_layers, parse_numbers
from laser_interp.storage.provenance import code_version

# name -> (what it does, an example); the function is COMMAND in laser_interp/cli/COMMAND.py, imported when it is used.
COMMANDS = {
    "reproduce": (
        "Repeat the paper's whole argument on a shipped example: a small model or a real one.",
        "laser-interp reproduce --out runs/organism",
    ),
    "study": (
        "Run every analysis of the paper on any model and any facts.",
        "laser-interp study --model organism --facts organism --matrices mlp --rho 0.2,0.05 --out runs/study",
    ),
    "search": (
        "Find the edit that helps most: validation facts choose it, test facts measure it.",
        "laser-interp search --model organism --facts organism --matrices mlp --rho 0.2,0.05 --out runs/search",
    ),
    "compose": (
        "Add one LASER edit after another as long as validation improves.",
        "laser-interp compose --model organism --facts organism --rho 0.4,0.05 --out runs/composed",
    ),
    "discarded": (
        "Show what the discarded components answer.",
        "laser-interp discarded --model organism --facts organism --edit 3.in:rank=1 --out answers.parquet",
    ),
    "probe": (
        "Look at one prompt: its answers, why they change, in which layer, and by which directions.",
        "laser-interp probe --model organism --edit 3.in:0.05 'Once Mira Tolen was born in' --answer Varwick",
    ),
    "attribute": (
        "Show which singular directions help or harm, with one backward pass per batch.",
        "laser-interp attribute --model organism --facts organism --out directions.parquet",
    ),
    "count": (
        "Count how many documents of a corpus mention each fact.",
        "laser-interp count --facts facts.jsonl --corpus 'data/*.jsonl.zst' --out counts.parquet",
    ),
    "index": (
        "Index a corpus once, so that later counts are fast.",
        "laser-interp index --corpus 'data/*.jsonl.zst' --out index",
    ),
    "models": ("List the models that a short name loads, and the families that are supported.", "laser-interp models"),
    "check": (
        "Compare this package with plain transformers on your model, device and dtype.",
        "laser-interp check --model organism",
    ),
    "export": (
        "Save an edited model as a plain checkpoint, or its edit as an adapter.",
        "laser-interp export --model organism --edit 3.in:0.05 --out edited",
    ),
    "compare-runs": (
        "Put finished studies side by side: where each gain comes from, and what a better prompt does.",
        "laser-interp compare-runs figures/smollm2 figures/gemma3-270m",
    ),
    "trajectory": (
        "Ask the same questions at each checkpoint of a training.",
        "laser-interp trajectory organism --facts organism --edit 3.in:0.05 --out runs/training",
    ),
    "report": ("Write a run as one interactive HTML page.", "laser-interp report runs/organism -o report.html"),
    "figures": (
        "Draw a run's figures again, in another style or width.",
        "laser-interp figures runs/organism --style icml --out figures",
    ),
    "analyse": (
        "Answer a single question of the paper.",
        "laser-interp analyse controls --model organism --edit 3.in:0.05",
    ),
    "organism": (
        "Train a model organism from scratch.",
        "laser-interp organism train --alpha 0.35 --seed 1 --out my-organism",
    ),
    "completion": (
        "Print the script with which a shell completes commands and options.",
        "laser-interp completion bash > ~/.local/share/bash-completion/completions/laser-interp",
    ),
}
GROUPS = ("analyse", "organism")  # these have subcommands, and set the example below their help themselves
# A setting has a plural name and its option a singular one: `--rho 0.2,0.05` or `--rho 0.2 0.05` sets `rhos`.
_PLURAL = ("rhos", "rates", "alphas", "bands", "controls", "shares")
_OPTION_NAMES = {name: name[:-1] for name in _PLURAL}


def _option_name(name: str) -> str:
    return _OPTION_NAMES.get(name, name.rstrip("_").replace("_", "-"))


def _convert(kind: Any, tokens: Sequence[Token]) -> Any:
    """A value from the words of the command line; lists may be written with commas, spaces, and ranges of numbers."""
    option = next((token.keyword for token in tokens if token.keyword), "the value")
    of_union = [one for one in get_args(kind) if get_origin(one) is tuple]
    kind = of_union[0] if of_union else kind  # of `tuple[int, ...] | None`, take the tuple
    args = get_args(kind)
    if get_origin(kind) is not tuple or args[-1:] != (Ellipsis,):
        if int in (kind, *args) and str not in args:  # cyclopts would cut or round a fraction
            for token in tokens:
                if not re.fullmatch(r"[+-]?\d{1,30}", token.value.strip()):
                    raise ValueError(f"{option} is {token.value!r}: expected a whole number")
        if Path in (kind, *args) and any(not token.value.strip() for token in tokens):
            raise ValueError(f"{option} is empty: expected the name of a file or folder")
        return convert(kind, tokens)
    words = [word for token in tokens for word in token.value.split(",") if word]
    if args[0] is int:
        return parse_layers(words) if option == "--layers" else parse_numbers(option.lstrip("-"), words)
    return convert(kind, words)


def example_of(name: str) -> str:
    """The example that is printed below a command's help."""
    return f"For example: {COMMANDS[name][1]}"


def build_app() -> App:
    """The application, with its commands by name."""
    app = App(
        name="laser-interp",
        help="An instrument for LASER's rank reductions. `laser-interp COMMAND --help` shows options and an example.",
        version=f"laser-interp {code_version()}",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(
            converter=_convert,
            name_transform=_option_name,
            negative_iterable=(),
            consume_multiple=True,
            show_default=_shown_default,
        ),
    )
    for name, (line, _) in COMMANDS.items():
        more = {} if name in GROUPS else {"help_epilogue": example_of(name)}
        function = name.replace("-", "_")
        app.command(f"laser_interp.cli.{function}:{function}", name=name, help=line, **more)
    return app


def _what_is_missing(error: MissingArgumentError, words: Sequence[str]) -> str:
    """All options that a command needs and was not given, and the command's example; or the one without a value."""
    command = next(iter(error.command_chain or ()), "")
    if error.keyword is not None or error.app is None:
        value = f"{error.keyword or error.argument} needs a value"
        return f"{value}. {example_of(command)}" if command in COMMANDS else value
    given = {word.partition("=")[0] for word in words}
    needed = [a for a in error.app.assemble_argument_collection() if a.required and not given & set(a.names)]
    needed = [a for a in needed if a.name.strip("*")]  # not the groups of options
    names = [next((n for n in a.names if n.startswith("--")), a.name) for a in needed] or [str(error.argument)]
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb} missing. {example_of(command)}"


def _said(error: BaseException) -> str:
    """An error as one sentence that names options as they are written; the system's own errors name the file first."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename}: {(error.strerror or type(error).__name__).lower()}"
    told = re.sub(r"\b(rhos|rates|alphas)\b", lambda name: f"--{_OPTION_NAMES[name[0]]}", str(error).strip())
    return told or type(error).__name__


def _shown_default(value: Any) -> str | None:
    """A default in help, as it would be written on the command line; None, which help does not show, for nothing."""
    if value is None or value == ():
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _TerminatedError(KeyboardInterrupt):
    """Raised at SIGTERM, which batch systems and containers send. As an interruption, it lets everything clean up."""


def _stop(signal_number: int, frame: object) -> None:
    raise _TerminatedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. An error that the user can fix is printed as one sentence, without a traceback.

    Returns:
        The exit code: 0 after success, 2 after such an error, 70 after a bug of this package, 130 after Ctrl-C, and
        143 after SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = words[:1] == ["--verbose"]
    words = words[1:] if verbose else words
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info" if verbose else "error")
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _stop) if in_main_thread else None
    try:
        build_app()(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MissingArgumentError as error:
        print(f"laser-interp: {_what_is_missing(error, words)}", file=sys.stderr)
        return 2
    except (CycloptsError, ValueError, OSError, MemoryError, ModuleNotFoundError, RuntimeError) as error:
        if verbose:
            traceback.print_exc()
        print(f"laser-interp: {_said(error)}", file=sys.stderr)
        return 2
    except Exception as error:  # a bug of this package; the user still gets one sentence
        if verbose:
            traceback.print_exc()
        print(
            f"laser-interp: this is a bug ({type(error).__name__}: {error}): please report it, with the output of "
            f"`laser-interp --verbose {' '.join(words)}`",
            file=sys.stderr,
        )
        return 70
    except KeyboardInterrupt as interrupt:
        print("laser-interp: interrupted; the same command continues from what is saved", file=sys.stderr)
        return 143 if isinstance(interrupt, _TerminatedError) else 130
    finally:
        if in_main_thread:  # a Python program that calls this gets its own handler back
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
