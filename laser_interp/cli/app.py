"""The command line's frame: the list of commands, how lists are written, and how errors are said."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from cyclopts import App, CycloptsError, Parameter, Token, convert

from laser_interp.storage.provenance import code_version

# name -> (what it does, an example); the function is COMMAND in laser_interp/cli/COMMAND.py, imported when it is used.
COMMANDS = {
    "reproduce": (
        "Run the study of a shipped example: the paper's argument, on a small model or on a real one.",
        "laser-interp reproduce --out runs/organism",
    ),
    "study": (
        "Ask everything that the paper asks, of any model and any facts.",
        "laser-interp study --model organism --facts organism --matrices mlp --rho 0.2,0.05 --out runs/study",
    ),
    "search": (
        "Find the edit that helps most: validation selects, test reports.",
        "laser-interp search --model organism --facts organism --matrices mlp --rho 0.2,0.05 --out runs/search",
    ),
    "compose": (
        "Add one LASER after the other while it helps.",
        "laser-interp compose --model organism --facts organism --rho 0.4,0.05 --out runs/composed",
    ),
    "discarded": (
        "Show what the discarded components answer.",
        "laser-interp discarded --model organism --facts organism --edit 3.in:rank=1 --out answers.parquet",
    ),
    "attribute": (
        "Show which singular directions help or harm, by one backward pass a batch.",
        "laser-interp attribute --model organism --facts organism --out directions.parquet",
    ),
    "count": (
        "Count how many documents of a corpus mention each fact.",
        "laser-interp count --facts facts.jsonl --corpus 'data/*.jsonl.zst' --out counts.parquet",
    ),
    "index": (
        "Index a corpus once, to count in it often.",
        "laser-interp index --corpus 'data/*.jsonl.zst' --out index",
    ),
    "models": ("List the models that a short name loads, and the families that are supported.", "laser-interp models"),
    "check": (
        "Compare this package with plain transformers on your model, device and dtype.",
        "laser-interp check --model organism",
    ),
    "compress": (
        "Store an edited model smaller, as factors, or export it dense or as an adapter.",
        "laser-interp compress --model organism --edit 3.in:0.05 --out smaller",
    ),
    "report": ("Write a run as one HTML page to explore.", "laser-interp report runs/organism -o report.html"),
    "figures": (
        "Draw a run's figures again, in another style or width.",
        "laser-interp figures runs/organism --style icml --out figures",
    ),
    "analyse": (
        "Answer one question of the paper alone.",
        "laser-interp analyse controls --model organism --edit 3.in:0.05",
    ),
    "organism": (
        "Train a model organism from scratch.",
        "laser-interp organism train --alpha 0.35 --seed 1 --out my-organism",
    ),
    "completion": (
        "Print the completion of commands and options for a shell.",
        "laser-interp completion bash > ~/.local/share/bash-completion/completions/laser-interp",
    ),
}
GROUPS = ("analyse", "organism")  # which have commands of their own, and say their example themselves
# Settings are plural, options are not: `--rho 0.2,0.05` and `--rho 0.2 0.05`.
_OPTION_NAMES = {"rhos": "rho", "alphas": "alpha", "bands": "band", "controls": "control", "shares": "share"}


def _option_name(name: str) -> str:
    return _OPTION_NAMES.get(name, name.rstrip("_").replace("_", "-"))


def _convert(kind: Any, tokens: Sequence[Token]) -> Any:
    """A value from the words of the command line; lists may be written with commas, spaces, and ranges of numbers."""
    of_union = [one for one in get_args(kind) if get_origin(one) is tuple]
    kind = of_union[0] if of_union else kind  # `tuple[int, ...] | None`: whoever writes one does not mean None
    args = get_args(kind)
    if get_origin(kind) is not tuple or args[-1:] != (Ellipsis,):
        return convert(kind, tokens)
    words = [word for token in tokens for word in token.value.split(",") if word]
    if args[0] is int:
        from laser_interp.selection.settings import parse_layers

        return parse_layers(words)
    return convert(kind, words)


def example_of(name: str) -> str:
    """What stands below the help of a command."""
    return f"For example: {COMMANDS[name][1]}"


def build_app() -> App:
    """The application, with its commands by name."""
    app = App(
        name="laser-interp",
        help="An instrument for LASER's rank reductions. `laser-interp COMMAND --help` shows options and an example.",
        version=f"laser-interp {code_version()}",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(
            converter=_convert, name_transform=_option_name, negative_iterable=(), consume_multiple=True
        ),
    )
    for name, (line, _) in COMMANDS.items():
        more = {} if name in GROUPS else {"help_epilogue": example_of(name)}
        app.command(f"laser_interp.cli.{name}:{name}", name=name, help=line, **more)
    return app


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, as batch systems and containers send it: an interruption, so that everything is cleaned up."""


def _stop(signal_number: int, frame: object) -> None:
    raise _TerminatedError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Errors that a user can mend are one sentence, without a traceback.

    Returns:
        0; 2 after an error, 70 after one that is ours; 130 where the user interrupted, 143 where another program did
        (SIGTERM).
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
    except (CycloptsError, ValueError, OSError, MemoryError, ModuleNotFoundError, RuntimeError) as error:
        if verbose:
            traceback.print_exc()
        print(f"laser-interp: {str(error).strip() or type(error).__name__}", file=sys.stderr)
        return 2
    except Exception as error:  # a fault of ours; a user is owed a sentence all the same
        if verbose:
            traceback.print_exc()
        print(
            f"laser-interp: this should not happen ({type(error).__name__}: {error}): please report it, with what "
            f"`laser-interp --verbose {' '.join(words)}` prints",
            file=sys.stderr,
        )
        return 70
    except KeyboardInterrupt as interrupt:
        print("laser-interp: interrupted; the same command goes on from what is kept", file=sys.stderr)
        return 143 if isinstance(interrupt, _TerminatedError) else 130
    finally:
        if in_main_thread:  # who calls this from Python has handlers of their own
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
