"""The settings of a search: one frozen object for Python, the command line, Ray and the run folder.

What can be checked without a model is checked when the object is made; `laser_interp.selection.plan` checks the rest
before any work.
"""

import math
import re
from dataclasses import asdict, dataclass, fields
from numbers import Number
from typing import Any, Self, get_args

from laser_interp.choices import (
    PROPOSED,
    RHOS,
    AnswerRule,
    CompositionMethod,
    ControlName,
    EngineName,
    Path,
    Position,
    RankBy,
    ScreenIn,
    SearchMethod,
    SplitRule,
    TestedCells,
    check_choice,
    check_seed,
    names_with_suggestion,
    number,
    parse_layers,
    rho_of_rate,
    whole_number,
)
from laser_interp.edits.blocks import Blocks


@dataclass(frozen=True, kw_only=True)
class GridSettings:
    """Which edits are tried, where they act, and on which half of the facts they are chosen.

    Attributes:
        matrices: Names (q k v o in gate out) or groups (attn mlp all) of matrices.
        layers: Layers, counted from 0, as in 0,3 or 0-3. All of them if left out.
        rhos: Fractions of rank kept, in (0, 1]. A fraction that rounds to rank 0 keeps rank 1.
        rates: The same as in the published scripts: 9.9 is a rho of .01, and 1 is .9.
        split: Divide the facts anew: subject draws validation by subject, paper takes the first 20 %, as the paper did.
            If left out, facts keep their splits, and facts without splits are divided by subject.
        seed: Seed of the split by subject.
        path: The path along which all edits act: network, direct or indirect.
        at: At which positions all edits act: last, subject_last or subject. Everywhere if left out.
        blocks: Divide each matrix, as in 4 (its outputs in four parts), 4-inputs or 4-outputs-kmeans, and truncate each
            part by itself. Whole matrices if left out.
        generic: Words that count as generic. The model's own, or English stop words, if left out.
        engine: "fast" computes once what edits share; "reference" runs the whole model for each edit.
        memory: Memory that activations may take, as in 2GiB. It changes how prompts are batched, not what is found.
    """

    matrices: tuple[str, ...] = ("all",)
    layers: tuple[int, ...] | None = None
    rhos: tuple[float, ...] = RHOS
    rates: tuple[float, ...] | None = None
    split: SplitRule | None = None
    seed: int = 0
    path: Path = "network"
    at: Position | None = None
    blocks: str | int | None = None
    generic: tuple[str, ...] | None = None
    engine: EngineName = "fast"
    memory: str | int | None = None

    def __post_init__(self) -> None:
        self._set("matrices", several(self.matrices, "matrices", str))
        self._set("layers", parse_layers(self.layers))
        if self.rates is not None:
            if several(self.rhos, "rhos", float) != RHOS:
                raise ValueError("expected rhos or rates, and both were given: leave one out")
            self._set("rhos", tuple(map(rho_of_rate, several(self.rates, "rates", float))))
            self._set("rates", None)
        self._set("rhos", several(self.rhos, "rhos", float))
        for rho in self.rhos:
            if not 0 < rho <= 1:
                raise ValueError(f"rho is {rho}: the fraction of rank kept must lie in (0, 1]")
        if self.split is not None:
            check_choice("split", self.split, SplitRule)
        check_choice("path", self.path, Path)
        if self.at is not None:
            check_choice("at", self.at, Position)
        check_choice("engine", self.engine, EngineName)
        check_seed("seed", self.seed)
        self._set("seed", int(self.seed))
        divided = Blocks.parse(self.blocks)
        self._set("blocks", None if divided is None else str(divided))
        if self.generic is not None:
            self._set("generic", several(self.generic, "generic", str))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def of(cls, settings: "GridSettings | None", changes: dict[str, Any]) -> Self:
        """The settings with changes by name; of settings of another class, those that both have.

        Raises:
            TypeError: a change that is no setting; the message names the settings.
        """
        known = [f.name for f in fields(cls)]
        if unknown := [name for name in changes if name not in known]:
            raise TypeError(f"there is no setting {unknown[0]!r}: expected {names_with_suggestion(known, unknown[0])}")
        given = {} if settings is None else {f.name: getattr(settings, f.name) for f in fields(settings)}
        return cls(**{name: value for name, value in given.items() if name in known} | changes)

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run: all settings but those that change only how it is computed."""
        return {name: value for name, value in asdict(self).items() if name not in ("memory", "rates")}


@dataclass(frozen=True, kw_only=True)
class SearchSettings(GridSettings):
    """Which edits are tried, how they are searched for, and what is scored beside them.

    Attributes:
        method: How the edit is searched for. race: gradients propose cells, and the cells compete. grid: every cell is
            scored. gradient: only the best proposal is scored. random: as many cells as in a race, drawn at random.
            rmt: laserRMT's rule, which uses the perplexity of a text and no facts. learned: the gains of the sites that
            a race chose are optimised. All but grid test the chosen cell only. If left out, it is grid for a setting
            that only a grid can answer (alphas, bands, controls, or test other than chosen), for 64 cells or fewer, and
            for rules other than next_token. Otherwise it is race.
        alphas: Also inject the discarded part at these strengths, at each rho.
        bands: Also keep only the directions START:STOP, as in 0:10 10:50.
        controls: Also score these controls at each rho, for example discarded zeroed random_kept.
        control_seeds: Draw each random control once for each of these seeds.
        screen: The number format of a race's rounds: model (the model's own), bfloat16, or auto, which takes bfloat16
            if this machine multiplies the model's matrices clearly faster in it. Finalists are always scored in the
            model's own format, and only these scores are reported.
        test: Which cells see the test facts: only the chosen one, all, or none.
        candidates: Also rank each answer among the answers of its relation. Each answer of several tokens needs a row
            of its own in the batch.
        rank_by: Rank these answers whole, or by their first_tokens, which costs nothing extra.
    """

    method: SearchMethod | None = None
    alphas: tuple[float, ...] = ()
    bands: tuple[str, ...] = ()
    controls: tuple[ControlName, ...] = ()
    control_seeds: tuple[int, ...] = (0,)
    screen: ScreenIn = "auto"
    test: TestedCells = "chosen"
    candidates: bool = True
    rank_by: RankBy = "answers"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("test", self.test, TestedCells)
        check_choice("screen", self.screen, ScreenIn)
        if self.method is not None:
            check_choice("method", self.method, SearchMethod)
            if self.method != "grid" and (more := self._of_a_grid()):
                raise ValueError(
                    f"{more[0]} is for the method grid alone: the method {self.method} looks for one LASER"
                )
        if self.blocks is not None and (self.bands or self.method == "rmt"):
            asked = "bands are parts" if self.bands else "the method rmt looks at the spectrum"
            raise ValueError(f"{asked} of a whole matrix: leave blocks out")
        if not isinstance(self.candidates, bool):
            raise ValueError(f"candidates is {self.candidates!r}: expected True or False")
        check_choice("rank_by", self.rank_by, RankBy)
        self._set("alphas", several(self.alphas, "alphas", float, may_be_empty=True))
        if bad := [alpha for alpha in self.alphas if not math.isfinite(alpha)]:
            raise ValueError(f"alphas has {bad[0]}: expected finite numbers")
        bands = [self.bands] if isinstance(self.bands, str | Number) else self.bands
        self._set("bands", tuple(f"{start}:{stop}" for start, stop in map(parse_band, bands)))
        self._set("controls", several(self.controls, "controls", str, may_be_empty=True))
        known = get_args(ControlName)
        if unknown := [name for name in self.controls if name not in known]:
            raise ValueError(f"unknown controls {', '.join(unknown)}: expected some of {', '.join(known)}")
        self._set("control_seeds", several(self.control_seeds, "control_seeds", int))
        for seed in self.control_seeds:
            check_seed("control_seeds", seed)

    def _of_a_grid(self) -> list[str]:
        """The settings that only a grid can answer."""
        asked = [name for name in ("alphas", "bands", "controls") if getattr(self, name)]
        return asked + ([f"test={self.test}"] if self.test != "chosen" else [])

    def method_for(self, rule: AnswerRule, n_cells: int) -> SearchMethod:
        """The method, chosen by what is asked where it was left out."""
        if self.method is not None:
            return self.method
        small = n_cells <= PROPOSED
        return "grid" if small or self._of_a_grid() or rule != "next_token" else "race"


@dataclass(frozen=True, kw_only=True)
class CompositionSettings(GridSettings):
    """Which edits may be added, and how the next one is found.

    Attributes:
        method: guided uses gradients of the edited model to propose edits, and lets them race; greedy is the paper's
            order, from the last layer down and from the smallest rho up.
        most_edits: Stop at this number of edits, even if one more would help.
    """

    matrices: tuple[str, ...] = ("mlp",)
    method: CompositionMethod = "guided"
    most_edits: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, CompositionMethod)
        if self.most_edits is not None:
            whole_number("most_edits", self.most_edits, at_least=1, more="more, or leave it out")


def several(value: Any, name: str, kind: type, *, may_be_empty: bool = False) -> tuple[Any, ...]:
    """A tuple from one value or several."""
    values = [value] if isinstance(value, str | Number) else list(value)
    if not values and not may_be_empty:
        raise ValueError(f"{name} is empty: expected at least one, or leave it out")
    return tuple(_of_kind(name, v, kind) for v in values)


def _of_kind(name: str, value: Any, kind: type) -> Any:
    if kind is int:
        return whole_number(name, value)
    if kind is float and not isinstance(value, str):
        return number(name, value)
    if not isinstance(value, str):
        raise ValueError(f"{name} has {value!r}: expected texts")
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{name} has {value!r}: expected numbers") from None


def parse_band(value: Any) -> tuple[int, int]:
    """A band from two numbers or from "START:STOP"."""
    text = str(value) if isinstance(value, str | Number) else ":".join(map(str, value))
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise ValueError(f"the band {value!r} is not of the form START:STOP, as in 0:10")
    start, stop = int(match[1]), int(match[2])
    if start >= stop:
        raise ValueError(f"band {start}:{stop}: expected 0 <= start < stop")
    return start, stop
