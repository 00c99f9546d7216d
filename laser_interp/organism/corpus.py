"""The organism's corpus: English sentences about invented people, places and guilds.

Everything is drawn from one seed through `random.Random.random`, whose sequence Python guarantees
across versions, so the text is the same byte for byte wherever it is made again. Every mention is
counted in a ledger while the text is written. The ledger is the ground truth of all frequency analyses.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd

from laser_interp.facts.fact_set import Fact, FactSet

T = TypeVar("T")

FIRST_NAMES = (
    "Mira Tavi Orlen Sella Bram Ines Joss Katya Leif Nadia Otto Petra Rufus Selma Tomas Ulla Viktor Wanda Yara Zeno "
    "Alma Boris Clea Dario Edda Felix Greta Hugo Irma Jonas Kira Lars Magda Nils Olga Paul Runa Stefan Thea Ursel"
).split()


def _joined(stems: str, endings: str) -> tuple[str, ...]:
    return tuple(stem + ending for stem in stems.split() for ending in endings.split())


SURNAMES = _joined(
    "Tol Var Hes Bren Cald Dor Fen Gar Hol Jask Kel Lun Mard Nev Orm Pel Quil Rusk Sten Wul", "en ik ova ard ish"
)
TOWNS = _joined("Var Esk Tarn Olb Quen Sil Harr Brim Dusk Wey", "holt mere wick")
MASTERS = _joined("Yor Mald Ith Bov Cad Eth Gwyn Ran Sol Thur", "eth un arik")
GUILDS = _joined("Brast Corv Dren Fal Hex Jun Lort Prax Stell Vorn", "el ane ix")
LANDS = _joined("Ord Mel Tav Cass Brel Zan Ulv Pyr Nor Feld", "avia oria enna")


@dataclass(frozen=True)
class Relation:
    """A relation: its possible answers, and the four phrases that ask for one."""

    name: str
    answers: tuple[str, ...]
    phrases: tuple[str, str, str, str]


RELATIONS = (
    Relation("birthplace", TOWNS, ("was born in", "was raised near", "grew up in", "spent childhood near")),
    Relation("master", MASTERS, ("was taught by", "learned much from", "studied under", "trained long with")),
    Relation("guild", GUILDS, ("worked for", "was hired by", "served faithfully at", "drew wages from")),
    Relation("destination", LANDS, ("sailed to", "moved to", "fled alone into", "travelled on to")),
)
OPENINGS = ("", "They say", "Long ago", "It seems", "In truth", "Once", "Later", "At last")

GENERIC_NOUNS = (
    "spring summer winter night morning storm harbour valley market forest river war king queen church school road "
    "sea village mountain"
).split()
FILLER_ADJECTIVES = ["old", "young", "quiet", "great", "small", "dark", "bright", "weary"]
FILLER_NOUNS = "ship rider letter song child merchant soldier wolf bell crowd stranger bird".split()
FILLER_VERBS = ["waited", "came", "rested", "sang", "stood", "vanished", "returned", "walked"]
FILLER_PREPOSITIONS = ["in", "near", "by", "from", "under", "with", "of", "for", "at", "to", "into"]


@dataclass(frozen=True)
class CorpusSettings:
    """What the corpus is made from; the shipped checkpoints carry theirs in `organism.json`.

    Attributes:
        seed: seeds facts, frequencies, held-out templates, split and sentences.
        alpha: share of a fact's sentences that end in noise instead of the answer.
        noise: what the noise is: "generic" ("the NOUN"), or "same_type", an answer of the same relation that depends on
            the sentence's phrase alone, not on the subject (an organism of the second kind).
        filler: share of all sentences that mention no fact.
        mass, exponent, floor, ceiling: the fact of rank i is written
            `clip(round(mass * i**-exponent / sum_j j**-exponent), floor, ceiling)` times.
    """

    seed: int = 1
    alpha: float = 0.35
    filler: float = 0.25
    mass: float = 160_800.0
    exponent: float = 1.5
    floor: int = 8
    ceiling: int = 400
    noise: str = "generic"

    def __post_init__(self) -> None:
        if self.noise not in ("generic", "same_type"):
            raise ValueError(f"noise is {self.noise!r}: expected 'generic' or 'same_type'")
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}: the share of generic continuations must lie in [0, 1)")
        if not 0 <= self.filler < 1:
            raise ValueError(f"filler is {self.filler}: the share of filler sentences must lie in [0, 1)")
        if not 1 <= self.floor <= self.ceiling:
            raise ValueError(f"floor {self.floor} and ceiling {self.ceiling}: expected 1 <= floor <= ceiling")


class Corpus:
    """The sentences (`rows`, one document each), the facts and the ledger that follow from one `CorpusSettings`."""

    def __init__(self, settings: CorpusSettings = CorpusSettings()) -> None:
        self.settings = s = settings
        self._rng = random.Random(s.seed)
        subjects = [f"{self._choose(FIRST_NAMES) if i else 'Mira'} {name}" for i, name in enumerate(SURNAMES)]
        self._test_subjects = set(self._shuffled(subjects)[: len(subjects) // 2])

        self.held_out: dict[str, tuple[str, ...]] = {}
        in_training: dict[str, tuple[str, ...]] = {}
        for relation in RELATIONS:
            # Eight templates: four phrases, each with two openings. For two phrases, one opening is never trained on.
            openings = self._shuffled(OPENINGS)
            pairs = self._shuffled(
                [
                    tuple(f"{opening} {{s}} {phrase}".strip() for opening in openings[2 * i : 2 * i + 2])
                    for i, phrase in enumerate(relation.phrases)
                ]
            )
            self.held_out[relation.name] = tuple(pair[0] for pair in pairs[:2])
            in_training[relation.name] = tuple(t for i, pair in enumerate(pairs) for t in pair[i < 2 :])

        facts = self._shuffled(
            [(subject, relation, self._choose(relation.answers)) for relation in RELATIONS for subject in subjects]
        )
        weights = [i**-s.exponent for i in range(1, len(facts) + 1)]
        total = sum(weights)

        rows: list[str] = []
        booked: list[dict[str, Any]] = []
        mentions_of_subject = dict.fromkeys(subjects, 0)
        mentions_of_object = {answer: 0 for relation in RELATIONS for answer in relation.answers}
        for (subject, relation, answer), weight in zip(facts, weights, strict=True):
            n_rows = min(max(round(s.mass * weight / total), s.floor), s.ceiling)
            n_both = 0
            for _ in range(n_rows):
                start = self._choose(in_training[relation.name]).format(s=subject)
                if self._rng.random() < s.alpha:
                    instead = (
                        f"the {self._choose(GENERIC_NOUNS)}" if s.noise == "generic" else self._default(relation, start)
                    )
                    rows.append(f"{start} {instead}.")
                    n_both += instead == answer
                    if instead != answer and instead in mentions_of_object:
                        mentions_of_object[instead] += 1
                else:
                    rows.append(f"{start} {answer}.")
                    n_both += 1
            mentions_of_subject[subject] += n_rows
            mentions_of_object[answer] += n_both
            booked.append(
                {
                    "fact_id": f"{relation.name}/{subject.replace(' ', '_')}",
                    "subject": subject,
                    "relation": relation.name,
                    "object": answer,
                    "n_rows": n_rows,
                    "n_both": n_both,
                }
            )
        for _ in range(round(len(rows) * s.filler / (1 - s.filler))):
            rows.append(
                f"The {self._choose(FILLER_ADJECTIVES)} {self._choose(FILLER_NOUNS)} {self._choose(FILLER_VERBS)} "
                f"{self._choose(FILLER_PREPOSITIONS)} the {self._choose(GENERIC_NOUNS)}."
            )
        self.rows: list[str] = self._shuffled(rows)

        ledger = pd.DataFrame(booked).sort_values("fact_id", ignore_index=True)
        ledger["n_docs"] = len(self.rows)
        ledger["n_subject"] = ledger["subject"].map(mentions_of_subject)
        ledger["n_object"] = ledger["object"].map(mentions_of_object)
        self.ledger: pd.DataFrame = ledger[
            ["fact_id", "subject", "relation", "object", "n_docs", "n_subject", "n_object", "n_both", "n_rows"]
        ]

    def _below(self, n: int) -> int:
        return int(self._rng.random() * n)

    def _choose(self, options: Sequence[T]) -> T:
        return options[self._below(len(options))]

    def _shuffled(self, items: Sequence[T]) -> list[T]:
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self._below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out

    @staticmethod
    def _default(relation: Relation, start: str) -> str:
        """The answer that goes with a sentence's phrase."""
        (which,) = (i for i, phrase in enumerate(relation.phrases) if start.endswith(phrase))
        return relation.answers[which * len(relation.answers) // len(relation.phrases)]

    @property
    def facts(self) -> FactSet:
        """All facts. Their prompts are the two templates that training never saw; they are split by subject."""
        candidates = {relation.name: relation.answers for relation in RELATIONS}
        out = []
        for row in self.ledger.to_dict("records"):
            prompt, *paraphrases = (t.format(s=row["subject"]) for t in self.held_out[row["relation"]])
            out.append(
                Fact(
                    fact_id=row["fact_id"],
                    subject=row["subject"],
                    relation=row["relation"],
                    object=row["object"],
                    prompt=prompt,
                    paraphrases=tuple(paraphrases),
                    candidates=candidates[row["relation"]],
                    split="test" if row["subject"] in self._test_subjects else "validation",
                    frequency=float(row["n_both"]),
                )
            )
        return FactSet(tuple(out), name=f"organism-seed{self.settings.seed}-alpha{self.settings.alpha}")

    @cached_property
    def text(self) -> str:
        """The whole corpus, one sentence (= one document) a line."""
        return "\n".join(self.rows) + "\n"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def vocabulary(self) -> list[str]:
        """Every word the generator can write, sorted: the tokenizer's vocabulary, whatever the seed."""
        words = {word for phrase in (*OPENINGS, *(p for r in RELATIONS for p in r.phrases)) for word in phrase.split()}
        for names in (FIRST_NAMES, SURNAMES, *(r.answers for r in RELATIONS)):
            words.update(names)
        words.update(GENERIC_NOUNS, FILLER_ADJECTIVES, FILLER_NOUNS, FILLER_VERBS, FILLER_PREPOSITIONS)
        words.update(("the", "The", "."))
        return sorted(words)

    def generic_words(self) -> tuple[str, ...]:
        """The words a noisy sentence continues with instead of the answer."""
        return ("the", *GENERIC_NOUNS)

    def to_dict(self) -> dict[str, Any]:
        """The settings, without `noise` if it is "generic": the shipped organisms are older than this setting."""
        told = asdict(self.settings)
        return {k: v for k, v in told.items() if (k, v) != ("noise", "generic")}
