"""Counting with infini-gram, in corpora that are too large to download.

infini-gram counts occurrences, not documents. For two names it counts how often the rarer one occurs near the other.
It silently misses occurrences where the window crosses a document's end: it finds 99 % at a window of 100 tokens, and
72 % at 1000. The default window is therefore 100. Counts that it estimates from a sample are marked `approximate`.

Every answer is kept on disk, under the question asked. A run that the service interrupted continues from there.
"""

import hashlib
import json
import sqlite3
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.choices import whole_number
from laser_interp.facts.fact_set import Fact
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.frequency.matching import Matching
from laser_interp.frequency.source import CountSource
from laser_interp.progress import progress_bar
from laser_interp.storage.cache import cache_dir
from laser_interp.storage.schemas import check

WINDOW = 100  # tokens
MAX_WINDOW = 1000
MAX_CLAUSE_FREQ = 500_000
MAX_TERMS = 4  # in one clause
EXACT = "exact tokens, with and without a space before"


# Clauses that must all occur, each a choice of terms, each term a sequence of token ids.
Cnf = tuple[tuple[tuple[int, ...], ...], ...]


class InfiniGramError(ValueError):
    """The service refuses a question; asking again would not help."""


class UnreachableError(ConnectionError):
    """The service did not answer, however often it was asked."""


@dataclass(frozen=True)
class Answer:
    """How often something occurs, and whether that is an estimate."""

    count: int
    approx: bool


def is_single_term(cnf: Cnf) -> bool:
    """Whether a question is a single term, which is asked in another form."""
    (clause, *more) = cnf
    return not more and len(clause) == 1


class InfiniGram(CountSource):
    """A corpus that infini-gram can be asked about; `HostedInfiniGram` and `LocalInfiniGram` ask one question each."""

    tokenizer: Any

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the corpus in tables and kept answers."""

    @abstractmethod
    def ask(self, cnf: Cnf, window: int, max_clause_freq: int) -> Answer:
        """One question."""

    def count(
        self,
        facts: AnyFacts,
        *,
        window: int | None = None,
        matching: Matching | None = None,
        max_clause_freq: int = MAX_CLAUSE_FREQ,
        concurrency: int = 4,
        cache: str | Path | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Count the facts' names.

        Names are looked for as tokens, exactly as they are written, in two spellings: after a space, and after a line
        break or quote. Where a tokenizer writes both alike, they are one. The counts of spellings and aliases are added
        up.

        Args:
            window: the most tokens between subject and object; 100 if left out.
            matching: whether parentheses are dropped and other names of subjects count; accents are never folded here.
            max_clause_freq: counts above this number of occurrences are estimated from a sample, and marked.
            concurrency: how many questions are asked at the same time.
            cache: file that keeps every answer; None: in the user's cache folder (`$LASER_INTERP_CACHE`).

        Returns:
            The columns of `li.count`. `unit` is "occurrence", `unit_both` (of `n_both`) is "occurrences within a
            window", and `window` is in tokens. `approximate` is true where anything was estimated, or where a name has
            more than four spellings, so that an occurrence near two of them may count twice. `uncertain_zero` is true
            where a sample held two frequent names but never together; `li.associate` refuses such zeros. `n_docs` is
            not known.

        Raises:
            ValueError: a window out of range, or a name without tokens; before anything is asked.
            InfiniGramError: the service refuses a question.
            UnreachableError: the service stopped answering. All answers so far are kept, and the same call continues.
        """
        window = WINDOW if window is None else window
        matching = Matching() if matching is None else matching
        facts = facts_of(facts)
        if not 1 <= whole_number("window", window) <= MAX_WINDOW:
            raise ValueError(f"the window is {window} tokens: expected 1 to {MAX_WINDOW}, and better at most {WINDOW}")
        if isinstance(self.tokenizer, str | Path) or not hasattr(self.tokenizer, "encode"):
            raise ValueError(f"the tokenizer is {self.tokenizer!r}: expected one, as li.load_tokenizer(NAME) gives it")
        of_fact = [_questions(fact, matching, self.tokenizer) for fact in facts]
        questions = list(dict.fromkeys(q for fact in of_fact for group in fact for q in group))
        keys = {q: _key(self.name, q, window, max_clause_freq) for q in questions}
        ask = partial(self.ask, window=window, max_clause_freq=max_clause_freq)
        answers = _answers(keys, ask, cache=cache, concurrency=concurrency, progress=progress)
        rows = []
        for fact, groups in zip(facts, of_fact, strict=True):
            subject, objects, both = ([answers[q] for q in group] for group in groups)
            rows.append(
                {
                    "fact_id": fact.fact_id,
                    "n_docs": pd.NA,
                    "n_subject": sum(a.count for a in subject),
                    "n_object": sum(a.count for a in objects),
                    "n_both": sum(a.count for a in both),
                    "corpus": self.name,
                    "unit": "occurrence",
                    "unit_both": "occurrences within a window",
                    "normaliser": replace(matching, fold_accents=False).in_words(EXACT),
                    "approximate": any(a.approx for a in (*subject, *objects, *both)) or len(both) > 1,
                    "uncertain_zero": sum(a.count for a in both) == 0 and any(a.approx for a in both),
                    "window": window,
                }
            )
        frame = pd.DataFrame(rows).astype({"n_docs": "Int64"})
        frame.attrs["provenance"] = self.identity(facts, window, matching, max_clause_freq)
        return check(frame, "counts")

    def identity(
        self,
        facts: AnyFacts,
        window: int | None = None,
        matching: Matching | None = None,
        max_clause_freq: int = MAX_CLAUSE_FREQ,
    ) -> dict[str, Any]:
        """What identifies counts of this corpus: where it is equal, the counts are equal."""
        facts = facts_of(facts)
        return {
            "facts": facts.name,
            "facts_sha256": facts.sha256,
            "source": self.name,
            "window": WINDOW if window is None else window,
            "matching": str(matching or Matching()),
            "max_clause_freq": max_clause_freq,
            "tokenizer": str(getattr(self.tokenizer, "name_or_path", "")),
        }


def _answers(
    keys: Mapping[Cnf, tuple[str, str]],
    ask_source: Callable[[Cnf], Answer],
    *,
    cache: str | Path | None,
    concurrency: int,
    progress: bool,
) -> dict[Cnf, Answer]:
    """The answer to each question, from the kept answers or else from the source; new answers are kept.

    Args:
        keys: question -> the key it is kept by, and what is asked, in words.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}: at least one is needed")
    where = cache_dir() / "infinigram.sqlite" if cache is None else Path(cache)
    try:
        kept = _Kept(where)
    except sqlite3.DatabaseError as error:
        raise ValueError(f"the kept answers in {where} cannot be read ({error}): remove that file") from error
    answers: dict[Cnf, Answer] = {}

    def ask(question: Cnf) -> Answer:
        answer = ask_source(question)
        kept.put(*keys[question], answer)
        return answer

    try:
        for question in keys:
            if (known := kept.get(keys[question][0])) is not None:
                answers[question] = known
        waiting = [q for q in keys if q not in answers]
        with (
            progress_bar(total=len(keys), initial=len(answers), desc="asking", disable=not progress) as bar,
            ThreadPoolExecutor(concurrency) as pool,
        ):
            running = {pool.submit(ask, q): q for q in waiting}
            try:
                for done in as_completed(running):
                    answers[running[done]] = done.result()
                    bar.update()
            except BaseException as error:
                pool.shutdown(wait=True, cancel_futures=True)
                if isinstance(error, UnreachableError):
                    n = sum(kept.get(keys[q][0]) is not None for q in keys)
                    raise UnreachableError(
                        f"{error}. {n} of {len(keys)} answers are kept: run the same again to go on"
                    ) from error
                raise
    except sqlite3.DatabaseError as error:
        raise ValueError(f"the kept answers in {where} cannot be read ({error}): remove that file") from error
    finally:
        kept.close()
    return answers


class _Kept:
    """Answers on disk, by what was asked."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
        self._lock = threading.Lock()
        with self._lock, self._connection:
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS checked (key TEXT PRIMARY KEY, asked TEXT, count INTEGER, approx INTEGER, "
                "checksum TEXT)"
            )

    def get(self, key: str) -> Answer | None:
        """The answer, or None where there is none, or it is not as it was written."""
        with self._lock:
            asked = "SELECT asked, count, approx, checksum FROM checked WHERE key = ?"
            row = self._connection.execute(asked, (key,)).fetchone()
        if row is None or row[3] != _checksum(key, *row[:3]):
            return None
        return Answer(row[1], bool(row[2]))

    def put(self, key: str, asked: str, answer: Answer) -> None:
        row = (key, asked, answer.count, int(answer.approx))
        with self._lock, self._connection:
            self._connection.execute("INSERT OR REPLACE INTO checked VALUES (?, ?, ?, ?, ?)", (*row, _checksum(*row)))

    def close(self) -> None:
        self._connection.close()


def _checksum(*row: object) -> str:
    return hashlib.sha256(repr(row).encode()).hexdigest()


def _key(source: str, question: Cnf, *options: int) -> tuple[str, str]:
    """The key of a kept answer, and the question as text; options matter only to questions of several terms."""
    asked = json.dumps([source, question, [] if is_single_term(question) else options], separators=(",", ":"))
    return hashlib.sha256(asked.encode()).hexdigest(), asked


def _questions(fact: Fact, matching: Matching, tokenizer: Any) -> tuple[list[Cnf], list[Cnf], list[Cnf]]:
    """What is asked for one fact: of its subject, of its object, of both."""
    names = matching.subjects(fact), matching.objects(fact)
    both = [_spellings(of_one, tokenizer, fact.fact_id) for of_one in names]
    groups = [[tuple(terms[i : i + MAX_TERMS]) for i in range(0, len(terms), MAX_TERMS)] for terms in both]
    singles = [[((term,),) for term in terms] for terms in both]
    return singles[0], singles[1], list(product(*groups))


def _spellings(names: Sequence[str], tokenizer: Any, fact_id: str) -> list[tuple[int, ...]]:
    """Token ids of each name after a space, and after a line break."""
    spellings: dict[tuple[int, ...], None] = {}
    for name in names:
        of_name = [_after(before, joint + name.strip(), tokenizer) for before, joint in (("a", " "), ("\n", ""))]
        spellings |= dict.fromkeys(ids for ids in of_name if ids)
        if not any(of_name):
            raise ValueError(f"the name {name!r} of fact {fact_id!r} has no tokens to look for")
    return list(spellings)


def _after(before: str, text: str, tokenizer: Any) -> tuple[int, ...]:
    """Tokens of a text where something stands before it."""
    whole = tokenizer.encode(before + text, add_special_tokens=False)
    prefix = tokenizer.encode(before, add_special_tokens=False)
    if whole[: len(prefix)] == prefix:
        return tuple(whole[len(prefix) :])
    return tuple(tokenizer.encode(text.lstrip(), add_special_tokens=False))
