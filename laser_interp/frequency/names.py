"""Names in text: the one normaliser, and which facts the documents of a text mention.

A name is mentioned in a document where it occurs as whole words after `normalise`, which is applied to names
and text alike; names may overlap ("York" and "New York" are both in "New York").

Text is worked on many documents at a time, as UTF-8: `joined` puts them together, `normalise_joined` does to
them what `normalise` does to each, and `Mentions.add` counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

import numpy as np
import pandas as pd

from laser_interp.facts.fact_set import FactSet
from laser_interp.storage.tables import check

NORMALISER = "nfkc, case folded, words joined by single spaces"
SEPARATOR = b" \0 "  # between documents; no document holds a NUL once it is normalised
_WORDS = re.compile(r"\w+")
_NOT_ASCII = re.compile(rb"[^\x00-\x7f]+")
_ASCII_BYTES = bytes(range(128))
# Of ASCII, what `normalise` does: letters in lower case, digits and "_" kept, the rest a space (NUL: see above).
_TABLE = bytes(
    0 if byte == 0 else ord(chr(byte).lower()) if byte > 127 or chr(byte).isalnum() or byte == ord("_") else 32
    for byte in range(128)
) + bytes(range(128, 256))
_MANY_NOT_ASCII = 0.2  # from this share of bytes on, word-by-word folding is slower than the whole text's
_LONG = 64  # bytes; longer words are too rare to remember


def normalise(text: str) -> str:
    """The one form in which names are looked for: " word word … ", a space at either end.

    NFKC, case folding, NFKC again, then every run of word characters (Unicode's letters and digits, and "_"),
    joined by single spaces: case, punctuation, accents' encoding and line breaks make no difference. Accents
    themselves do, and so does a hyphen: "re-do" is two words. Scripts without spaces between words are matched
    where punctuation or spaces set a name off.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return f" {' '.join(_WORDS.findall(folded))} "


def joined(documents: Iterable[str]) -> bytes:
    """Documents in the form that `normalise_joined` takes.

    Raises:
        UnicodeEncodeError: a lone surrogate, which no text holds.
    """
    return SEPARATOR.join(text.replace("\0", " ").encode() for text in documents)


def normalise_joined(documents: bytes) -> bytes:
    """What `normalise` makes of each document, still joined, and fast where the text is mostly ASCII.

    Folding word by word is right because NFKC joins nothing across an ASCII character that is no letter.
    """
    text = b" " + documents.translate(_TABLE) + b" "
    if not text.isascii():
        if len(text.translate(None, _ASCII_BYTES)) > _MANY_NOT_ASCII * len(text):
            parts = (normalise(part.decode()).encode() for part in documents.split(b"\0"))
            text = b"\0".join(parts)
        else:
            text = _fold_words(text)
    letters = np.frombuffer(text, np.uint8)
    space = letters == 32
    keep = np.ones(len(letters), bool)
    np.logical_not(space[1:] & space[:-1], out=keep[1:])
    return letters[keep].tobytes()


def _fold_words(text: bytes) -> bytes:
    out, done = [], 0
    for found in _NOT_ASCII.finditer(text):
        if found.start() < done:
            continue
        start, stop = text.rfind(b" ", done, found.start()) + 1, text.find(b" ", found.end())
        word = text[start:stop]
        out += (text[done:start], _fold(word) if len(word) <= _LONG else _fold.__wrapped__(word))
        done = stop
    out.append(text[done:])
    return b"".join(out)


@lru_cache(maxsize=1 << 16)
def _fold(word: bytes) -> bytes:
    return normalise(word.decode()).encode()


@dataclass(frozen=True)
class Names:
    """What is looked for, for all facts at once, each name, each set of aliases and each pair only once.

    Attributes:
        patterns: normalised names.
        subject: [n_facts], the pattern of each fact's subject.
        answer: [n_facts], the number in `answers` of each fact's object with its aliases.
        answers: sets of patterns, any of which stands for the object.
        pair: [n_facts], the number in `pairs` of each fact.
        pairs: [n_pairs, 2], (subject pattern, answer).
        window: count also where at most so many words lie between the two, or None.
    """

    patterns: tuple[str, ...]
    subject: np.ndarray
    answer: np.ndarray
    answers: tuple[frozenset[int], ...]
    pair: np.ndarray
    pairs: np.ndarray
    window: int | None

    @classmethod
    def of(cls, facts: FactSet, window: int | None = None) -> Names:
        """The names of a fact set.

        Raises:
            ValueError: a name without a word, or a window below zero.
        """
        if window is not None and window < 0:
            raise ValueError(f"the window is {window} words: expected 0 (side by side) or more")
        number: dict[str, int] = {}

        def pattern(name: str, fact_id: str) -> int:
            normal = normalise(name)
            if not normal.strip():
                raise ValueError(f"the name {name!r} of fact {fact_id!r} has no word to look for")
            return number.setdefault(normal, len(number))

        subjects = [pattern(fact.subject, fact.fact_id) for fact in facts]
        objects = [frozenset(pattern(name, fact.fact_id) for name in (fact.object, *fact.aliases)) for fact in facts]
        answers = {names: i for i, names in enumerate(dict.fromkeys(objects))}
        both = [(s, answers[o]) for s, o in zip(subjects, objects, strict=True)]
        pairs = {pair: i for i, pair in enumerate(dict.fromkeys(both))}
        return cls(
            patterns=tuple(number),
            subject=np.array(subjects, np.int64),
            answer=np.array([answers[o] for o in objects], np.int64),
            answers=tuple(answers),
            pair=np.array([pairs[pair] for pair in both], np.int64),
            pairs=np.array(list(pairs), np.int64).reshape(-1, 2),
            window=window,
        )

    def frame(self, facts: FactSet, tally: Tally, corpus: str) -> pd.DataFrame:
        """The counts, one row a fact; see `laser_interp.count`."""
        frame = pd.DataFrame(
            {
                "fact_id": [fact.fact_id for fact in facts],
                "n_docs": tally.n_docs,
                "n_subject": tally.n_name[self.subject],
                "n_object": tally.n_answer[self.answer],
                "n_both": tally.n_both[self.pair],
                "corpus": corpus,
                "unit": "document",
                "normaliser": NORMALISER,
                "approximate": False,
                "n_skipped": tally.n_skipped,
            }
        )
        if self.window is not None:
            frame["n_window"], frame["window"] = tally.n_window[self.pair], self.window
        return check(frame, "counts")


@dataclass
class Tally:
    """Counts of documents; two of them add up.

    Attributes:
        n_name, n_answer, n_both, n_window: by pattern, by answer, by pair, and by pair within the window.
        n_docs: documents read.
        n_skipped: documents, or the rests of files, that could not be.
    """

    n_name: np.ndarray
    n_answer: np.ndarray
    n_both: np.ndarray
    n_window: np.ndarray
    n_docs: int = 0
    n_skipped: int = 0

    PARTS = ("n_name", "n_answer", "n_both", "n_window")

    @classmethod
    def empty(cls, names: Names) -> Tally:
        sizes = (len(names.patterns), len(names.answers), len(names.pairs), len(names.pairs))
        name, answer, both, window = (np.zeros(size, np.int64) for size in sizes)
        return cls(name, answer, both, window)

    def __iadd__(self, other: Tally) -> Tally:
        for part in self.PARTS:
            getattr(self, part).__iadd__(getattr(other, part))
        self.n_docs += other.n_docs
        self.n_skipped += other.n_skipped
        return self

    def to_frame(self) -> pd.DataFrame:
        """What is not zero, as a table that keeps small: (part, index, count)."""
        frames = [pd.DataFrame({"part": "n_docs", "index": [0, 1], "count": [self.n_docs, self.n_skipped]})]
        for part in self.PARTS:
            values = getattr(self, part)
            (index,) = values.nonzero()
            frames.append(pd.DataFrame({"part": part, "index": index, "count": values[index]}))
        return pd.concat(frames, ignore_index=True)

    def add_frame(self, frame: pd.DataFrame) -> None:
        """Add what `to_frame` made."""
        for part, rows in frame.groupby("part"):
            if part == "n_docs":
                by_index = dict(zip(rows["index"], rows["count"], strict=True))
                self.n_docs += int(by_index[0])
                self.n_skipped += int(by_index[1])
            else:
                getattr(self, str(part))[rows["index"].to_numpy()] += rows["count"].to_numpy()


@dataclass
class _Lists:
    """For each key, the numbers that belong to it, laid end to end."""

    start: np.ndarray
    size: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, n: int, keys: np.ndarray, values: np.ndarray) -> _Lists:
        order = np.argsort(keys, kind="stable")
        size = np.bincount(keys, minlength=n)
        return cls(np.concatenate([[0], np.cumsum(size)[:-1]]).astype(np.int64), size, values[order])

    def expand(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `keys`, once for each value of theirs, and the values."""
        size = self.size[keys]
        owner = np.repeat(np.arange(len(keys)), size)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size)
        return owner, self.values[self.start[keys][owner] + within]


@dataclass
class Mentions:
    """Counts the mentions of names in joined documents.

    Attributes:
        names: what is looked for.
        tally: what was found so far.
    """

    names: Names
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        from ahocorasick_rs import BytesAhoCorasick

        names = self.names
        self.tally = Tally.empty(names)
        self._automaton = BytesAhoCorasick([pattern.encode() for pattern in names.patterns])
        alias = [(pattern, i) for i, members in enumerate(names.answers) for pattern in sorted(members)]
        patterns, answers = np.array(alias, np.int64).reshape(-1, 2).T
        self._answers_of = _Lists.of(len(names.patterns), patterns, answers)
        self._pairs_of = _Lists.of(len(names.patterns), names.pairs[:, 0], np.arange(len(names.pairs)))
        self._words = np.array([pattern.count(" ") - 1 for pattern in names.patterns], np.int64)

    def add(self, n_docs: int, documents: bytes) -> None:
        """Count documents joined by `SEPARATOR`."""
        self.tally.n_docs += n_docs
        text = normalise_joined(documents)
        found = self._automaton.find_matches_as_indexes(text, overlapping=True)
        if not found:
            return
        matches = np.fromiter(chain.from_iterable(found), np.int64, 3 * len(found)).reshape(-1, 3)
        pattern, place = matches[:, 0], matches[:, 1]
        letters = np.frombuffer(text, np.uint8)
        document = np.searchsorted(np.flatnonzero(letters == 0), place)
        n_patterns, n_answers = len(self.names.patterns), len(self.names.answers)

        keys = np.unique(document * n_patterns + pattern)
        doc, name = np.divmod(keys, n_patterns)
        self.tally.n_name += np.bincount(name, minlength=n_patterns)
        owner, answer = self._answers_of.expand(name)
        answered = np.unique(doc[owner] * n_answers + answer)
        self.tally.n_answer += np.bincount(answered % n_answers, minlength=n_answers)
        owner, pair = self._pairs_of.expand(name)
        wanted = doc[owner] * n_answers + self.names.pairs[pair, 1]
        both = np.isin(wanted, answered)
        doc, pair = doc[owner][both], pair[both]
        self.tally.n_both += np.bincount(pair, minlength=len(self.names.pairs))
        if self.names.window is not None and len(pair):
            word = np.searchsorted(np.flatnonzero(letters == 32), place)
            near = self._near(document, pattern, word, doc, pair)
            self.tally.n_window += np.bincount(pair[near], minlength=len(self.names.pairs))

    def _near(
        self, document: np.ndarray, pattern: np.ndarray, word: np.ndarray, doc: np.ndarray, pair: np.ndarray
    ) -> np.ndarray:
        """Which of the pairs found in a document lie within the window there.

        Args:
            document, pattern, word: [n_matches], where each match is, `word` the number of its first word.
            doc, pair: [n], what was found.
        """
        window = self.names.window
        assert window is not None
        key = document * len(self.names.patterns) + pattern
        order = np.argsort(key, kind="stable")
        key, word = key[order], word[order]

        def places(d: int, p: int) -> np.ndarray:
            at = d * len(self.names.patterns) + p
            return word[np.searchsorted(key, at) : np.searchsorted(key, at, side="right")]

        near = np.zeros(len(pair), bool)
        for i, (d, one) in enumerate(zip(doc.tolist(), pair.tolist(), strict=True)):
            subject, answer = self.names.pairs[one].tolist()
            here = places(d, subject)
            for name in self.names.answers[answer]:
                there = places(d, name)
                if len(there) and gap(here, int(self._words[subject]), there, int(self._words[name])) <= window:
                    near[i] = True
                    break
        return near


def gap(a: np.ndarray, a_words: int, b: np.ndarray, b_words: int) -> int:
    """Fewest words between a mention of one name and one of another; 0 where they touch or overlap.

    Args:
        a, b: first words of the mentions, ascending.
        a_words, b_words: how long the names are.
    """
    after = np.searchsorted(b, a)
    right = b[np.minimum(after, len(b) - 1)] - (a + a_words)
    left = a - (b[np.maximum(after - 1, 0)] + b_words)
    distance = np.minimum(
        np.where(after < len(b), np.maximum(right, 0), np.iinfo(np.int64).max),
        np.where(after > 0, np.maximum(left, 0), np.iinfo(np.int64).max),
    )
    return int(distance.min())


def places(text: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """First words of the mentions of each normalised name in a normalised document."""
    words = text.encode()
    blanks = np.flatnonzero(np.frombuffer(words, np.uint8) == 32)
    found: dict[str, np.ndarray] = {}
    for name in names:
        pattern, starts, at = name.encode(), [], 0
        while (at := words.find(pattern, at)) >= 0:
            starts.append(at)
            at += 1
        found[name] = np.searchsorted(blanks, np.array(starts, np.int64))
    return found
