"""Facts: what a model is asked, what counts as right, and how often training showed it."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

REQUIRED_COLUMNS = ("fact_id", "subject", "relation", "object", "prompt")
OPTIONAL_COLUMNS = ("paraphrases", "aliases", "candidates", "split", "frequency")
LIST_COLUMNS = ("paraphrases", "aliases", "candidates")
SHIPPED = ("organism", "organism-control")


def shipped_dir(name: str) -> Path:
    """Folder of a checkpoint that comes with the package (`organism` or `organism-control`)."""
    return Path(str(files("laser_interp") / "organism" / "checkpoints" / name))


@dataclass(frozen=True)
class Fact:
    """One fact, asked by one prompt and any number of paraphrases.

    Attributes:
        fact_id: unique within its set.
        subject, relation, object: the triple; `object` is the answer, written without a leading space.
        prompt: text that ends where the answer begins.
        paraphrases: further prompts with the same answer.
        aliases: other spellings of the answer that count as right.
        candidates: the answers it is ranked among; empty means all answers of its relation in the set.
        split: "validation", "test", or any other label; None where the set is not split.
        frequency: how often training showed the fact, in whatever unit the source counts.
    """

    fact_id: str
    subject: str
    relation: str
    object: str
    prompt: str
    paraphrases: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    split: str | None = None
    frequency: float | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt, *self.paraphrases)


@dataclass(frozen=True)
class FactSet:
    """An ordered, immutable set of facts with unique ids.

    Attributes:
        facts: the facts.
        name: for tables and file names.
        answers: relation -> its answers. Kept when the set is split, so that a fact of the test half
            is ranked among the same answers as before.

    Raises:
        ValueError: no facts, a duplicate id, or an empty field; the message names it.
    """

    facts: tuple[Fact, ...]
    name: str = "facts"
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.facts:
            raise ValueError(f"the fact set {self.name!r} is empty: at least one fact is needed")
        seen: set[str] = set()
        for fact in self.facts:
            if fact.fact_id in seen:
                raise ValueError(f"duplicate fact_id {fact.fact_id!r} in {self.name!r}: ids must be unique")
            seen.add(fact.fact_id)
            for column in REQUIRED_COLUMNS:
                if not getattr(fact, column).strip():
                    raise ValueError(f"fact {fact.fact_id!r} has an empty {column!r}: a non-empty text is needed")
        if not self.answers:
            answers: dict[str, dict[str, None]] = {}
            for fact in self.facts:
                answers.setdefault(fact.relation, {})[fact.object] = None
            object.__setattr__(self, "answers", {r: tuple(sorted(a)) for r, a in answers.items()})

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)

    def __getitem__(self, key: int | str) -> Fact:
        if isinstance(key, int):
            return self.facts[key]
        for fact in self.facts:
            if fact.fact_id == key:
                return fact
        raise KeyError(f"no fact {key!r} in {self.name!r}")

    def __repr__(self) -> str:
        return f"FactSet({self.name!r}, {len(self)} facts, splits {self.splits or 'none'})"

    def _repr_html_(self) -> str:
        head = self.to_frame().drop(columns=list(LIST_COLUMNS)).head().convert_dtypes()
        return (
            f"<p><b>{self.name}</b>: {len(self)} facts, splits {self.splits or 'none'}</p>{head.to_html(index=False)}"
        )

    @property
    def splits(self) -> dict[str, int]:
        """Facts in each split, by its label."""
        labels = [fact.split for fact in self.facts if fact.split is not None]
        return {label: labels.count(label) for label in sorted(set(labels))}

    @property
    def sha256(self) -> str:
        """Hash of everything in the set, order included."""
        text = json.dumps([vars(fact) for fact in self.facts], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def candidates_of(self, fact: Fact) -> tuple[str, ...]:
        """The answers a fact is ranked among; its own object is always one of them."""
        candidates = fact.candidates or self.answers[fact.relation]
        return candidates if fact.object in candidates else (*candidates, fact.object)

    def spellings(self, fact: Fact, *, candidates: bool = True) -> dict[str, bool]:
        """Every answer that is looked at for a fact -> whether it is right: its object first, its aliases,
        then the other candidates."""
        right = dict.fromkeys((fact.object, *fact.aliases), True)
        return right | dict.fromkeys((c for c in self.candidates_of(fact) if candidates and c not in right), False)

    def keep(self, facts: Iterable[Fact]) -> FactSet:
        """A subset that remembers the answers of the whole."""
        return replace(self, facts=tuple(facts))

    def split(self, label: str) -> FactSet:
        """The facts of one split.

        Raises:
            ValueError: no fact carries that label.
        """
        chosen = [fact for fact in self.facts if fact.split == label]
        if not chosen:
            have = f"it has {self.splits}" if self.splits else "it has no split: see FactSet.with_split"
            raise ValueError(f"no fact of {self.name!r} is in the split {label!r}: {have}")
        return self.keep(chosen)

    def with_split(self, validation: float = 0.2, *, seed: int = 0, by: str = "subject") -> FactSet:
        """Divide into validation and test.

        Args:
            validation: share that goes to validation, in (0, 1).
            seed: of the draw.
            by: "subject" draws subjects, so that none is on both sides; "order" takes the first facts, as
                the paper did (section 4), whatever their subjects.
        """
        if not 0 < validation < 1:
            raise ValueError(f"validation is {validation}: the share must lie in (0, 1)")
        if by not in ("subject", "order"):
            raise ValueError(f"by is {by!r}: expected 'subject' or 'order'")
        keys = sorted({fact.subject for fact in self.facts}) if by == "subject" else [f.fact_id for f in self.facts]
        if len(keys) < 2:
            raise ValueError(
                f"{self.name!r} has one {'subject' if by == 'subject' else 'fact'}: a split needs at least two"
            )
        if by == "subject":
            random.Random(seed).shuffle(keys)
        n = min(max(round(validation * len(keys)), 1), len(keys) - 1)
        chosen = set(keys[:n])
        return self.keep(
            replace(
                fact,
                split="validation" if (fact.subject if by == "subject" else fact.fact_id) in chosen else "test",
            )
            for fact in self.facts
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a fact, with the columns of a fact file."""
        frame = pd.DataFrame([vars(fact) for fact in self.facts])
        for column in LIST_COLUMNS:
            frame[column] = [list(value) for value in frame[column]]
        return frame

    def prompts_frame(self) -> pd.DataFrame:
        """One row per (fact, prompt): `fact_id, prompt_id, subject, relation, object, split, frequency`."""
        items = [(fact, p) for fact in self.facts for p in range(len(fact.prompts))]
        facts = [fact for fact, _ in items]
        return pd.DataFrame(
            {
                "fact_id": [f.fact_id for f in facts],
                "prompt_id": pd.array([p for _, p in items], dtype="int64").to_numpy(),
                "subject": [f.subject for f in facts],
                "relation": [f.relation for f in facts],
                "object": [f.object for f in facts],
                "split": [f.split or "" for f in facts],
                "frequency": [math.nan if f.frequency is None else f.frequency for f in facts],
            }
        )

    def save(self, path: str | Path, suffix: str | None = None) -> Path:
        """Write a fact file; the suffix (.jsonl, .csv, .parquet) chooses the format.

        Args:
            suffix: instead of the path's own.
        """
        path = Path(path)
        suffix = suffix or path.suffix
        frame = self.to_frame()
        if suffix == ".parquet":
            frame.to_parquet(path, index=False)
        elif suffix == ".jsonl":
            lines = []
            for fact in self.facts:
                row = {k: v for k, v in vars(fact).items() if v is not None and v != ()}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
            path.write_text("".join(lines), encoding="utf-8")
        elif suffix == ".csv":
            for column in LIST_COLUMNS:
                frame[column] = [json.dumps(value, ensure_ascii=False) if value else "" for value in frame[column]]
            frame.to_csv(path, index=False)
        else:
            raise ValueError(f"cannot write facts to {path.name!r}: the suffix must be .jsonl, .csv or .parquet")
        return path


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA


def _texts(value: Any, column: str, where: str) -> tuple[str, ...]:
    if _is_missing(value) or (isinstance(value, str) and not value.strip()):
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError(f"{where}: {column!r} is {value!r}, expected a JSON list of texts") from None
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{where}: {column!r} is {value!r}, expected a list of texts")
    return tuple(value)


def _fact(row: Mapping[str, Any], where: str) -> Fact:
    if missing := [c for c in REQUIRED_COLUMNS if _is_missing(row.get(c))]:
        raise ValueError(f"{where}: missing {', '.join(missing)}; a fact needs {', '.join(REQUIRED_COLUMNS)}")
    values: dict[str, Any] = {c: str(row[c]) for c in REQUIRED_COLUMNS}
    values |= {c: _texts(row.get(c), c, where) for c in LIST_COLUMNS}
    values["split"] = None if _is_missing(row.get("split")) else str(row["split"])
    frequency = row.get("frequency")
    try:
        values["frequency"] = None if _is_missing(frequency) else float(frequency)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        raise ValueError(f"{where}: frequency is {frequency!r}, expected a number") from None
    return Fact(**values)


def facts_from_rows(rows: Iterable[Mapping[str, Any]], name: str = "facts") -> FactSet:
    """Facts from dictionaries with the columns of a fact file."""
    return FactSet(tuple(_fact(row, f"{name}, row {i}") for i, row in enumerate(rows, start=1)), name=name)


def load_facts(source: str | Path | Sequence[Mapping[str, Any]] | pd.DataFrame) -> FactSet:
    """Read a fact set.

    Args:
        source: "organism" or "organism-control" (shipped), a .jsonl / .csv / .parquet file with the
            columns `fact_id, subject, relation, object, prompt` and optionally `paraphrases, aliases,
            candidates, split, frequency` (lists are JSON lists in a csv), a frame, or a list of dicts.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty file, a broken line (with its number), a missing column, a duplicate id.
    """
    if isinstance(source, pd.DataFrame):
        return _from_frame(source, "facts")
    if not isinstance(source, str | Path):
        return facts_from_rows(source)
    shipped = str(source) in SHIPPED
    path = shipped_dir(str(source)) / "facts.jsonl" if shipped else Path(source)
    name = str(source) if shipped else path.name
    if not path.is_file():
        raise FileNotFoundError(
            f"no fact file {str(source)!r}: expected a .jsonl, .csv or .parquet file, or one of {', '.join(SHIPPED)}"
        )
    if path.suffix == ".jsonl":
        return FactSet(tuple(_jsonl_facts(path)), name=name)
    if path.suffix == ".parquet":
        return _from_frame(pd.read_parquet(path), name)
    if path.suffix == ".csv":
        try:
            # Everything is text until checked: pandas would read the subject "NA" as missing.
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        except pd.errors.EmptyDataError:
            raise ValueError(f"the fact file {name!r} is empty: at least one fact is needed") from None
        except pd.errors.ParserError as error:
            raise ValueError(f"{name!r} is not a readable csv file: {error}") from error
        return _from_frame(frame.replace("", None), name)
    raise ValueError(f"cannot read facts from {name!r}: the suffix must be .jsonl, .csv or .parquet")


def _jsonl_facts(path: Path) -> Iterator[Fact]:
    for where, row in json_lines(path):
        if not isinstance(row, dict):
            raise ValueError(f"{where} is {type(row).__name__}, expected a JSON object with a fact's columns")
        yield _fact(row, where)


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each line of a .jsonl file is, and its value; blank lines are skipped.

    Raises:
        ValueError: a line that is not JSON; the message names it.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path.name}, line {number}"
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where} is not valid JSON: {error}") from None


def _from_frame(frame: pd.DataFrame, name: str) -> FactSet:
    if missing := [c for c in REQUIRED_COLUMNS if c not in frame.columns]:
        raise ValueError(
            f"{name!r} has no column {', '.join(missing)}: it has {', '.join(map(str, frame.columns))}, "
            f"and needs {', '.join(REQUIRED_COLUMNS)}"
        )
    known = [f.name for f in fields(Fact) if f.name in frame.columns]
    return facts_from_rows((dict(zip(known, row, strict=True)) for row in frame[known].itertuples(index=False)), name)
