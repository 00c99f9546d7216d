"""Fact and FactSet: what a model is asked, and what counts as right."""

from __future__ import annotations

import hashlib
import html
import itertools
import json
import math
import random
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import pandas as pd

from laser_interp.choices import Separator, SplitRule, check_choice, check_seed, suggestion
from laser_interp.facts import prompt_formats
from laser_interp.facts.separators import separator_of
from laser_interp.storage.spreadsheets import without_formulas

REQUIRED_COLUMNS = ("fact_id", "subject", "relation", "object", "prompt")
NO_RELATION = "fact"  # the relation of facts that name none
LIST_COLUMNS = ("paraphrases", "aliases", "candidates", "subject_aliases")
SPLITS = ("validation", "test")


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
        split: "validation" or "test"; None where the set is not split.
        frequency: how often training showed the fact, in whatever unit the source counts; 0 or more.
        subject_aliases: other names of the subject, which count as mentions of it.
        target_new: a wrong answer that the right one is compared with, as CounterFact has one for each fact.
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
    subject_aliases: tuple[str, ...] = ()
    target_new: str | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt, *self.paraphrases)


def check_fact(fact: Fact) -> None:
    """Refuse a fact that would vanish, or be counted wrongly, later on."""
    for column in REQUIRED_COLUMNS:
        if not getattr(fact, column).strip():
            raise ValueError(f"fact {fact.fact_id!r} has an empty {column!r}: a non-empty text is needed")
    for column in LIST_COLUMNS:
        if isinstance(texts := getattr(fact, column), str) or not all(text.strip() for text in texts):
            raise ValueError(f"fact {fact.fact_id!r}: {column!r} is one text or holds an empty text: {texts!r}")
    names = (fact.fact_id, fact.subject, fact.relation, *fact.subject_aliases)
    for text in (*names, *fact.prompts, *answers_of(fact)):
        if "\0" in text:
            raise ValueError(f"fact {fact.fact_id!r} has the text {text!r}, which holds a NUL: remove it")
    if fact.split is not None and fact.split not in SPLITS:
        meant = suggestion(SPLITS, fact.split.strip().lower())
        raise ValueError(f"fact {fact.fact_id!r} has the split {fact.split!r}: expected {' or '.join(SPLITS)}{meant}")
    n = fact.frequency
    if n is not None and (isinstance(n, bool) or not math.isfinite(n) or n < 0):
        raise ValueError(f"fact {fact.fact_id!r} has the frequency {n!r}: expected a number of 0 or more, or none")


def answers_of(fact: Fact) -> tuple[str, ...]:
    """All texts that stand where the answer stands: the object, aliases, candidates, and the wrong answer."""
    return (fact.object, *fact.aliases, *fact.candidates, *([fact.target_new] if fact.target_new else []))


def _with_clean_answers(fact: Fact) -> Fact:
    """The fact with its answers as a model writes them: no white space around them, and in Unicode's form NFC."""
    if all(text == _clean(text) for text in answers_of(fact)):
        return fact
    return replace(
        fact,
        object=_clean(fact.object),
        aliases=tuple(map(_clean, fact.aliases)),
        candidates=tuple(map(_clean, fact.candidates)),
        target_new=fact.target_new and _clean(fact.target_new),
    )


def _clean(answer: str) -> str:
    return answer.strip() if answer.isascii() else unicodedata.normalize("NFC", answer).strip()


def _answers_by_relation(facts: Iterable[Fact]) -> dict[str, tuple[str, ...]]:
    answers: dict[str, set[str]] = {}
    for fact in facts:
        answers.setdefault(fact.relation, set()).add(fact.object)
    return {relation: tuple(sorted(of_relation)) for relation, of_relation in answers.items()}


@dataclass(frozen=True)
class FactSet:
    """An ordered, immutable set of facts with unique ids.

    Answers are kept without white space around them and in Unicode's composed form (NFC), as models write them; a
    warning says how many were changed.

    Attributes:
        facts: the facts.
        name: for tables and file names.
        separator: what is written between a prompt and its answer: " ", "", or "auto", which decides from both; see
            `laser_interp.facts.separators`.
        answers: relation -> its answers. Kept when the set is split, so that a fact of the test half
            is ranked among the same answers as before.

    Raises:
        ValueError: no facts, a duplicate id, an empty field, an unknown split, a split for some facts only, or a
            frequency that is not a number of 0 or more; the message names the fact.
    """

    facts: tuple[Fact, ...]
    name: str = "facts"
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    separator: Separator = "auto"

    def __post_init__(self) -> None:
        if not self.facts:
            raise ValueError(f"the fact set {self.name!r} is empty: at least one fact is needed")
        check_choice("separator", self.separator, Separator)
        clean = tuple(map(_with_clean_answers, self.facts))
        if changed := [new for new, old in zip(clean, self.facts, strict=True) if new is not old]:
            object.__setattr__(self, "facts", clean)
            warnings.warn(
                f"the answers of {len(changed)} facts of {self.name!r} had white space around them or letters that are "
                f"not composed (Unicode NFC), {changed[0].fact_id!r} among them: they are asked as a model writes them",
                stacklevel=3,
            )
        seen: set[str] = set()
        for fact in self.facts:
            if fact.fact_id in seen:
                raise ValueError(f"duplicate fact_id {fact.fact_id!r} in {self.name!r}: ids must be unique")
            seen.add(fact.fact_id)
            check_fact(fact)
        without = [fact.fact_id for fact in self.facts if fact.split is None]
        if 0 < len(without) < len(self.facts):
            raise ValueError(
                f"{len(without)} facts of {self.name!r} have no split and the others have one, {without[0]!r} among "
                f"them: write {' or '.join(SPLITS)} for all of them, or for none"
            )
        if not self.answers:
            object.__setattr__(self, "answers", _answers_by_relation(self.facts))

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)

    @overload
    def __getitem__(self, key: int | str) -> Fact: ...
    @overload
    def __getitem__(self, key: slice) -> FactSet: ...
    def __getitem__(self, key: int | str | slice) -> Fact | FactSet:
        """A fact by its number or its id, or a part of the set: `facts[:10]`."""
        if isinstance(key, slice):
            return self.keep(self.facts[key])
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
        name = html.escape(self.name)
        return f"<p><b>{name}</b>: {len(self)} facts, splits {self.splits or 'none'}</p>{head.to_html(index=False)}"

    @property
    def splits(self) -> dict[str, int]:
        """Facts in each split, by its label."""
        labels = [fact.split for fact in self.facts if fact.split is not None]
        return {label: labels.count(label) for label in sorted(set(labels))}

    @property
    def sha256(self) -> str:
        """Hash of all facts and their separator, order included."""
        # A column that a later version added does not change the hash of facts that leave it empty.
        later = ("subject_aliases", "target_new")
        rows: list[object] = [{k: v for k, v in vars(fact).items() if v or k not in later} for fact in self.facts]
        if self.separator != "auto":
            rows.append({"separator": self.separator})
        text = json.dumps(rows, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def answers_sha256(self) -> str | None:
        """Hash of the answers that facts are ranked among, where these are of a larger set; None where they are not."""
        own = _answers_by_relation(self.facts)
        ranked = {fact.relation for fact in self.facts if not fact.candidates}  # among the answers of their relation
        of_more = {r: a for r, a in self.answers.items() if r in ranked and a != own[r]}
        return hashlib.sha256(json.dumps(of_more, sort_keys=True).encode()).hexdigest() if of_more else None

    def candidates_of(self, fact: Fact) -> tuple[str, ...]:
        """The answers a fact is ranked among; its own object is always one of them."""
        candidates = fact.candidates or self.answers[fact.relation]
        return candidates if fact.object in candidates else (*candidates, fact.object)

    def written(self, fact: Fact, prompt: str, answer: str) -> str:
        """An answer as it follows one of the fact's prompts, with the space before it where there is one."""
        return separator_of(prompt, fact.object, self.separator) + answer

    def spellings(self, fact: Fact, *, candidates: bool = True) -> dict[str, bool]:
        """{answer: whether it is right} of all answers that are scored for a fact: its object, its aliases, then the
        other candidates."""
        right = dict.fromkeys((fact.object, *fact.aliases), True)
        return right | dict.fromkeys((c for c in self.candidates_of(fact) if candidates and c not in right), False)

    def keep(self, facts: Iterable[Fact]) -> FactSet:
        """A subset that remembers the answers of the whole. Facts that are not in it are checked."""
        facts = tuple(facts)
        which = {*map(id, facts)}
        if not facts or len(which) < len(facts) or which - {*map(id, self.facts)}:
            return replace(self, facts=facts)
        kept = copy(self)
        object.__setattr__(kept, "facts", facts)
        return kept

    def in_parts(self, n_prompts: int) -> list[FactSet]:
        """The facts in order, in parts of at least so many prompts; the last may have fewer."""
        parts: list[FactSet] = []
        part: list[Fact] = []
        size = 0
        for fact in self.facts:
            part.append(fact)
            size += len(fact.prompts)
            if size >= n_prompts:
                parts.append(self.keep(part))
                part, size = [], 0
        return [*parts, self.keep(part)] if part else parts

    def draw(self, n_prompts: int, *, seed: int) -> FactSet:
        """Random facts with at most so many prompts together, but at least one fact."""
        check_seed("seed", seed)
        shuffled = list(self.facts)
        random.Random(seed).shuffle(shuffled)
        until = itertools.accumulate(len(fact.prompts) for fact in shuffled)
        n = sum(size <= n_prompts for size in until)
        return self.keep(shuffled[: max(n, 1)])

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

    # The same facts, asked in another way; each of these takes the facts first, as a method does.
    with_prefix = prompt_formats.with_prefix
    with_examples = prompt_formats.with_examples
    as_chat = prompt_formats.as_chat

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
        check_seed("seed", seed)
        if by not in ("subject", "order"):
            raise ValueError(f"by is {by!r}: expected 'subject' or 'order'")
        key_of = {fact.fact_id: fact.subject if by == "subject" else fact.fact_id for fact in self.facts}
        keys = list(dict.fromkeys(key_of.values()))
        if len(keys) < 2:
            what = "subject" if by == "subject" else "fact"
            raise ValueError(f"{self.name!r} has one {what}: a split needs at least two")
        if by == "subject":
            keys.sort()
            random.Random(seed).shuffle(keys)
        chosen = {*keys[: min(max(round(validation * len(keys)), 1), len(keys) - 1)]}
        return self.keep(
            replace(fact, split="validation" if key_of[fact.fact_id] in chosen else "test") for fact in self.facts
        )

    def ensure_split(self, rule: SplitRule | None = None, *, seed: int = 0) -> FactSet:
        """These facts with a validation split: their own, or a new one.

        Args:
            rule: "subject" divides anew by subject, "paper" takes the first 20 % as validation, as the paper did;
                None keeps the set's own split, and divides a set without one by subject.
            seed: of the split by subject.

        Raises:
            ValueError: another rule, or splits without "validation".
        """
        if rule is not None:
            check_choice("split", rule, SplitRule)
        facts = self
        if rule is not None or not self.splits:
            facts = self.with_split(0.2, seed=seed, by="order" if rule == "paper" else "subject")
        facts.split("validation")
        return facts

    def to_frame(self) -> pd.DataFrame:
        """One row a fact, with the columns of a fact file."""
        frame = pd.DataFrame([vars(fact) for fact in self.facts])
        for column in LIST_COLUMNS:
            frame[column] = [list(value) for value in frame[column]]
        return frame

    def prompts_frame(self) -> pd.DataFrame:
        """One row per (fact, prompt): `fact_id, prompt_id, subject, relation, object, split, frequency`."""
        columns = ["fact_id", "prompt_id", "subject", "relation", "object", "split", "frequency"]
        rows = [
            (fact.fact_id, p, fact.subject, fact.relation, fact.object, fact.split or "", fact.frequency)
            for fact in self.facts
            for p in range(len(fact.prompts))
        ]
        return pd.DataFrame(rows, columns=columns).astype({"frequency": float})

    def save(self, path: str | Path, suffix: str | None = None) -> Path:
        """Write a fact file; the suffix (.jsonl, .csv, .parquet) chooses the format.

        Args:
            suffix: instead of the path's own.
        """
        path = Path(path)
        suffix = suffix or path.suffix
        frame = self.to_frame()
        if self.separator != "auto":
            frame["separator"] = self.separator
        if suffix == ".parquet":
            frame.to_parquet(path, index=False)
        elif suffix == ".jsonl":
            lines = []
            for fact in self.facts:
                row = {k: v for k, v in vars(fact).items() if v is not None and v != ()}
                row |= {} if self.separator == "auto" else {"separator": self.separator}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
            path.write_text("".join(lines), encoding="utf-8")
        elif suffix == ".csv":
            for column in LIST_COLUMNS:
                frame[column] = [json.dumps(value, ensure_ascii=False) if value else "" for value in frame[column]]
            without_formulas(frame).to_csv(path, index=False)
        else:
            raise ValueError(f"cannot write facts to {path.name!r}: the suffix must be .jsonl, .csv or .parquet")
        return path
