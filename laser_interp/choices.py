"""The names that settings choose from, and defaults that Python and the command line share; it imports nothing
heavy."""

import difflib
import hashlib
import numbers
import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

Matrix = Literal["q", "k", "v", "o", "in", "gate", "out"]
MATRICES: tuple[Matrix, ...] = get_args(Matrix)
SUBLAYER_OF: dict[str, str] = {m: "attn" if m in ("q", "k", "v", "o") else "mlp" for m in MATRICES}

AnswerRule = Literal["next_token", "candidates", "truths", "generation"]  # see laser_interp.scoring.answer_rules
Protocol = Literal["corrected", "paper"]
Separator = Literal["auto", " ", ""]  # see laser_interp.facts.separators
SplitRule = Literal["subject", "paper"]  # validation is drawn by subject, or is the first 20 %
EngineName = Literal["fast", "reference"]
PROPOSED = 64  # the most cells that enter a race, or are drawn at random
SearchMethod = Literal["grid", "race", "gradient", "random", "rmt", "learned"]  # see laser_interp.selection.methods
RankBy = Literal["answers", "first_tokens"]  # see laser_interp.scoring.scorer.Scorer
StudySubject = Literal["strongest", "single", "both"]  # see laser_interp.studies.settings
AskedPrompts = Literal["all", "first"]  # see laser_interp.studies.settings
BlockSide = Literal["outputs", "inputs"]  # see laser_interp.edits.blocks
BlockGrouping = Literal["contiguous", "kmeans"]
CompositionMethod = Literal["guided", "greedy"]  # see laser_interp.selection.composition
ScreenIn = Literal["auto", "bfloat16", "model"]  # see laser_interp.models.bfloat16
TestedCells = Literal["all", "chosen", "none"]
Executor = Literal["local", "ray"]
Path = Literal["network", "direct", "indirect"]  # see Edit.via
Position = Literal["last", "subject_last", "subject"]  # see Edit.at
ControlName = Literal[
    "discarded",
    "same_spectrum_random",
    "random_subspace",
    "random_kept",
    "random_equal_energy",
    "bottom_kept",
    "zeroed",
    "layer_0",
]

UNIT_PROMPTS = 512  # prompts that are scored together; who asks the same facts again finds their residual streams kept
LONGEST = 256 << 20  # the most bytes that one line of a corpus may have
# Fractions of rank kept: the paper's table 5, and the .4 that its main table uses.
RHOS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01)


def whole_number(
    name: str, value: object, expected: str = "a whole number", *, at_least: int | None = None, more: str = "more"
) -> int:
    """A whole number, from Python's or numpy's.

    Args:
        at_least, more: the least that is taken, and how a message goes on, as in "1 or more directions".

    Raises:
        ValueError: a fraction, True, False, no number, or one that is too small.

    Example:
        >>> whole_number("rank", 3)
        3
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {value!r}: expected {expected}")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} is {value}: expected {at_least} or {more}")
    return int(value)


def number(name: str, value: object) -> float:
    """A number as Python's float, as it is written: numpy's float32 of 0.1 is 0.1.

    Raises:
        ValueError: True, False, or no number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} is {value!r}: expected a number")
    return value if type(value) in (float, int) else float(str(value))  # type: ignore[return-value]


def rho_of_rate(rate: float) -> float:
    """The ρ that the published scripts call a rate: 9.9 is ρ = .01, and 0 keeps the whole matrix.

    Raises:
        ValueError: a rate outside [0, 10).
    """
    if not 0 <= number("rate", rate) < 10:
        raise ValueError(f"rate is {rate}: expected a number of the published scripts, from 0 to below 10")
    return round(1 - rate / 10, 9)


LONGEST_RANGE = 10_000  # no model has so many layers


def parse_layers(layers: object) -> tuple[int, ...] | None:
    """Layer numbers from "all", a number, "0,3", "0-3,7", "-1" (the last) or several of these; None means all of them.

    Raises:
        ValueError: text of another form, a range of more layers than any model has, or none at all.

    Example:
        >>> parse_layers("0-2,7")
        (0, 1, 2, 7)
    """
    if layers is None or (isinstance(layers, str) and layers in ("all", "*")):
        return None
    return parse_numbers("layers", layers)


def parse_numbers(name: str, value: object) -> tuple[int, ...]:
    """Whole numbers in order, each once, from a number, "0,3", "0-3,7", or several of these.

    Raises:
        ValueError: text of another form, a range of too many numbers, or none.
    """
    parts = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    numbers_: list[int] = []
    for part in parts:
        if not isinstance(part, str):
            numbers_.append(whole_number(name, part))
            continue
        for text in part.split(","):
            match = re.fullmatch(r"(-?\d{1,18})(?:-(\d{1,18}))?", text.strip())
            if match is None or (match[2] and int(match[2]) < int(match[1])):
                expected = "'all' or numbers" if name == "layers" else "numbers"
                raise ValueError(f"{name} is {value!r:.100}: expected {expected}, as in 0,3 or 0-3")
            stop = int(match[2] or match[1]) + 1
            if stop - int(match[1]) > LONGEST_RANGE:
                raise ValueError(f"{name} is {value!r}: expected at most {LONGEST_RANGE} numbers")
            numbers_ += range(int(match[1]), stop)
    if not numbers_:
        raise ValueError(f"{name} is empty: expected at least one number")
    return tuple(sorted(set(numbers_)))


def check_seed(name: str, seed: object) -> None:
    """Refuse a value that cannot be a seed.

    Raises:
        ValueError: it is not a whole number of 0 or more.
    """
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"{name} is {seed!r}: expected a whole number of 0 or more")


def seed_of_63_bits(seed: int) -> int:
    """A seed of any size as one that torch takes; small ones stay as they are."""
    if 0 <= seed < 1 << 63:
        return seed
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8]) >> 1


def check_choice(name: str, value: object, choices: object) -> None:
    """Refuse a value that is not among the choices of a `Literal` type.

    Raises:
        ValueError: the message names the value and the choices.
    """
    expected = get_args(choices)
    if value not in expected:
        raise ValueError(f"{name} is {value!r}: expected {names_with_suggestion(expected, value)}")


def names_with_suggestion(known: Iterable[object], value: object) -> str:
    """The text with which an error names the expected values, and the one that was probably meant.

    Example:
        >>> names_with_suggestion(["organism", "wikidata"], "organsim")
        "one of organism, wikidata; is 'organism' meant?"
    """
    names = list(map(str, known))
    return f"one of {', '.join(names)}{suggestion(names, str(value))}"


def some_of(names: Iterable[str], n: int = 3) -> str:
    """The first of some names, for a message."""
    names = list(names)
    return ", ".join(names[:n]) + (", …" if len(names) > n else "")


def suggestion(known: Sequence[str], value: str) -> str:
    """The name that was probably meant, to be put after an error message; empty if no name is similar."""
    near = difflib.get_close_matches(value, known, 1)
    return f"; is {near[0]!r} meant?" if near else ""
