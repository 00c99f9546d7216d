"""The names that settings choose from, and defaults that Python and the command line share; it imports nothing
heavy."""

import difflib
import hashlib
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


def check_seed(name: str, seed: object) -> None:
    """Refuse a value that cannot be a seed.

    Raises:
        ValueError: it is not a whole number of 0 or more.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
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


def suggestion(known: Sequence[str], value: str) -> str:
    """The name that was probably meant, to be put after an error message; empty if no name is similar."""
    near = difflib.get_close_matches(value, known, 1)
    return f"; is {near[0]!r} meant?" if near else ""
