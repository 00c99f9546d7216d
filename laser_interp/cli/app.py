"""The frame of the command line: the commands, how lists are read, and how errors are printed."""

import ast
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


def help_of(path: Path, name: str) -> dict[str, Any]:
    """The help of a command, and the example below it, from the docstring of its function; of a group, of its file.

    The file is read and not imported, which would take seconds for all of them.
    """
    module = ast.parse(path.read_text(encoding="utf-8"))
    function = next((one for one in module.body if isinstance(one, ast.FunctionDef) and one.name == name), module)
    told, _, example = (ast.get_docstring(function) or "").partition("For example: ")
    return {"help": told.strip(), "help_epilogue": f"For example: {example.splitlines()[0]}"}


# COMMAND is a function, or an App, in laser_interp/cli/COMMAND.py, and is imported when it is used.
COMMANDS = {
    path.stem.replace("_", "-"): help_of(path, path.stem)
    for path in sorted(Path(__file__).parent.glob("[!_]*.py"))
    if path.stem not in ("app", "options")
}


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
    for name, told in COMMANDS.items():
        function = name.replace("-", "_")
        own = {"help": told["help"]} if name in GROUPS else told
        app.command(f"laser_interp.cli.{function}:{function}", name=name, **own)
    return app


def _what_is_missing(error: MissingArgumentError, words: Sequence[str]) -> str:
    """All options that a command needs and was not given, and the command's example; or the one without a value."""
    command = next(iter(error.command_chain or ()), "")
    if error.keyword is not None or error.app is None:
        value = f"{error.keyword or error.argument} needs a value"
        return f"{value}. {COMMANDS[command]['help_epilogue']}" if command in COMMANDS else value
    given = {word.partition("=")[0] for word in words}
    needed = [a for a in error.app.assemble_argument_collection() if a.required and not given & set(a.names)]
    needed = [a for a in needed if a.name.strip("*")]  # not the groups of options
    names = [next((n for n in a.names if n.startswith("--")), a.name) for a in needed] or [str(error.argument)]
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb} missing. {COMMANDS[command]['help_epilogue']}"


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
