"""The command line's frame: the list of commands, how lists are written, and how errors are said."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from cyclopts import App, CycloptsError, Parameter, Token, convert

from laser_interp.storage.provenance import code_version

# name -> what it does, in one line; the function is COMMAND in laser_interp/cli/COMMAND.py, imported when it is used.
COMMANDS = {
    "reproduce": "Run the study of a shipped example: the paper's argument, in about a minute.",
    "study": "Ask everything that the paper asks, of any model and any facts.",
    "search": "Find the edit that helps most: validation selects, test reports.",
    "compose": "Add one LASER after the other, from the last layer, while it helps.",
    "discarded": "Show what the discarded components answer.",
    "attribute": "Show which singular directions help or harm, by one backward pass a batch.",
    "count": "Count how many documents of a corpus mention each fact.",
    "index": "Index a corpus once, to count in it often.",
    "compress": "Store an edited model smaller, as factors, or export it dense.",
    "report": "Write a run as one HTML page to explore.",
    "figures": "Draw a run's figures again, in another style or width.",
    "analyse": "Answer one question of the paper alone.",
    "organism": "Train a model organism from scratch.",
    "completion": "Print the completion of commands and options for a shell.",
}
# Settings are plural, options are not: `--rho 0.2,0.05` and `--rho 0.2 0.05`.
_OPTION_NAMES = {"rhos": "rho", "alphas": "alpha", "bands": "band", "controls": "control", "shares": "share"}


def _option_name(name: str) -> str:
    return _OPTION_NAMES.get(name, name.rstrip("_").replace("_", "-"))


def _convert(kind: Any, tokens: Sequence[Token]) -> Any:
    """A value from the words of the command line; lists may be written with commas, spaces, and ranges of numbers."""
    args = get_args(kind)
    if get_origin(kind) is not tuple or args[-1:] != (Ellipsis,):
        return convert(kind, tokens)
    words = [word for token in tokens for word in token.value.split(",") if word]
    if args[0] is int:
        from laser_interp.selection.settings import parse_layers

        return parse_layers(words)
    return convert(kind, words)


def build_app() -> App:
    """The application, with its commands by name."""
    app = App(
        name="laser-interp",
        help="An instrument for LASER's rank reductions. `laser-interp COMMAND --help` shows options and an example.",
        version=f"laser-interp {code_version()}",
        default_parameter=Parameter(
            converter=_convert, name_transform=_option_name, negative_iterable=(), consume_multiple=True
        ),
    )
    for name, line in COMMANDS.items():
        app.command(f"laser_interp.cli.{name}:{name}", name=name, help=line)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Errors that a user can mend are one sentence, without a traceback.

    Returns:
        0; 2 after an error; 130 where the user interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = words[:1] == ["--verbose"]
    words = words[1:] if verbose else words
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info" if verbose else "error")
    try:
        build_app()(words, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, ValueError, OSError, MemoryError, ModuleNotFoundError) as error:
        if verbose:
            traceback.print_exc()
        print(f"laser-interp: {str(error).strip()}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "laser-interp: interrupted; what was computed is kept, and the same command goes on from it",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
