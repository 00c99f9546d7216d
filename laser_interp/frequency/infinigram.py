"""Counting with infini-gram: the hosted service, which has the Pile, or an index on this machine.

Its units are not those of a scan, and the table says so: `n_subject` and `n_object` are occurrences, and
`n_both` are occurrences of one name within a window of tokens of the other, never documents. Where the window
crosses the end of a document the service loses some without saying so (99 % are found at a window of 100
tokens, 72 % at 1000), so the window is 100 at most unless asked for. What it estimates from a sample is marked
`approximate`.

Every answer is kept on disk as it comes, by what was asked: a run that the service cut short goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.facts.fact_set import FactSet
from laser_interp.storage.tables import check

HOSTED = "https://api.infini-gram.io/"
PILE = "v4_piletrain_llama"  # its tokenizer is Llama 2's
WINDOW = 100  # tokens
MAX_WINDOW = 1000
MAX_CLAUSE_FREQ = 500_000
MAX_TERMS = 4  # in one clause
RETRIED = (403, 408, 429)  # and every 5xx; never 400
NORMALISER = "exact tokens, with and without a space before"

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


@dataclass
class Hosted:
    """An infini-gram service.

    Attributes:
        index: its name there.
        url: of the service.
        tries: how often a question is asked before giving up.
        first_wait, longest_wait: seconds between tries, doubled each time; a Retry-After is respected.
        timeout: seconds for one answer.
        sleep: how to wait.
    """

    index: str = PILE
    url: str = HOSTED
    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    timeout: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    _client: Any = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:
        """What is counted in."""
        return f"{self.url.rstrip('/')}:{self.index}"

    def ask(self, cnf: Cnf, window: int, max_clause_freq: int) -> Answer:
        """One question.

        Raises:
            InfiniGramError: the service refuses it.
            UnreachableError: no answer after all tries.
        """
        import httpx

        if self._client is None:
            self._client = httpx.Client(timeout=self.timeout, headers={"User-Agent": "laser-interp"})
        body: dict[str, Any] = {"index": self.index, "query_type": "count"}
        if _plain(cnf):
            body["query_ids"] = list(cnf[0][0])
        else:
            body["query_ids"] = [[list(term) for term in clause] for clause in cnf]
            body |= {"max_diff_tokens": window, "max_clause_freq": max_clause_freq}
        wait, why = self.first_wait, ""
        for left in range(self.tries - 1, -1, -1):
            after = None
            try:
                response = self._client.post(self.url, json=body)
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                told = _json(response)
                why = f"{response.status_code} {told.get('error', '')}".strip()
                if response.status_code == 200 and "error" not in told:
                    if isinstance(told.get("count"), int):
                        return Answer(told["count"], bool(told.get("approx", False)))
                    why = f"an answer without a count: {response.text[:200]!r}"
                elif response.status_code not in RETRIED and response.status_code < 500:
                    raise InfiniGramError(f"{self.name} refuses a question: {why}")
                after = _seconds(response.headers.get("Retry-After"))
            if left:
                self.sleep(min(wait if after is None else max(after, 0.0), self.longest_wait))
                wait *= 2
        raise UnreachableError(f"{self.name} did not answer {self.tries} times; the last: {why}")


def _plain(cnf: Cnf) -> bool:
    """Whether a question is a single term, which is asked in another form."""
    (clause, *more) = cnf
    return not more and len(clause) == 1


def _json(response: Any) -> dict[str, Any]:
    try:
        told = response.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


@dataclass
class Local:
    """An infini-gram index on this machine (`pip install infini-gram`, Linux).

    Attributes:
        folder: as `infini_gram.indexing` wrote it.
        eos_token_id: of the tokenizer it was made with.
        token_dtype: "u8", "u16" or "u32", as it was made.
        vocab_size: upper bound of the token ids.
    """

    folder: str | Path
    eos_token_id: int
    token_dtype: str = "u16"
    vocab_size: int = 65535
    _engine: Any = field(default=None, init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def name(self) -> str:
        """What is counted in."""
        return Path(self.folder).name

    def ask(self, cnf: Cnf, window: int, max_clause_freq: int) -> Answer:
        """One question.

        Raises:
            ModuleNotFoundError: infini-gram is not installed.
            FileNotFoundError: the folder holds no index.
            InfiniGramError: the engine refuses it.
        """
        with self._lock:
            if self._engine is None:
                self._engine = self._open()
        if _plain(cnf):
            told = self._engine.count(input_ids=list(cnf[0][0]))
        else:
            told = self._engine.count_cnf(
                cnf=[[list(term) for term in clause] for clause in cnf],
                max_clause_freq=max_clause_freq,
                max_diff_tokens=window,
            )
        if "error" in told:
            raise InfiniGramError(f"{self.name} refuses a question: {told['error']}")
        return Answer(int(told["count"]), bool(told["approx"]))

    def _open(self) -> Any:
        if not list(Path(self.folder).glob("tokenized.*")):
            raise FileNotFoundError(f"no infini-gram index in {self.folder}: expected tokenized.0, table.0, offset.0")
        try:
            from infini_gram.engine import InfiniGramEngine  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("a local index needs infini-gram: pip install infini-gram (Linux)") from error
        return InfiniGramEngine(
            index_dir=str(self.folder),
            eos_token_id=self.eos_token_id,
            token_dtype=self.token_dtype,
            vocab_size=self.vocab_size,
        )


class _Kept:
    """Answers on disk, by what was asked."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
        self._lock = threading.Lock()
        with self._lock, self._connection:
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, asked TEXT, count INTEGER, approx INTEGER)"
            )

    def get(self, key: str) -> Answer | None:
        with self._lock:
            row = self._connection.execute("SELECT count, approx FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else Answer(row[0], bool(row[1]))

    def put(self, key: str, asked: str, answer: Answer) -> None:
        with self._lock, self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", (key, asked, answer.count, int(answer.approx))
            )

    def close(self) -> None:
        self._connection.close()


def count_infinigram(
    facts: FactSet,
    source: Hosted | Local,
    tokenizer: Any,
    *,
    window: int = WINDOW,
    max_clause_freq: int = MAX_CLAUSE_FREQ,
    concurrency: int = 4,
    cache: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Count the facts' names with infini-gram.

    Names are looked for as tokens, exactly as they are written, once as after a space and once as after a line
    break or quote; where a tokenizer writes both alike they are one. Both spellings, and all aliases, count.

    Args:
        source: `Hosted()` (the Pile's training set by default) or `Local(folder, …)`.
        tokenizer: a transformers tokenizer, or what `AutoTokenizer.from_pretrained` takes: the one the index
            was made with (of the Pile's: Llama 2's).
        window: tokens between subject and object.
        max_clause_freq: above so many occurrences counts are estimated from a sample, and marked.
        concurrency: questions at a time.
        cache: file that keeps every answer; None: in the user's cache folder (`$LASER_INTERP_CACHE`).

    Returns:
        The columns of `laser_interp.count`, with `unit` "occurrence" and, of `n_both`, `unit_both` "occurrences
        within a window"; `window` in tokens; `approximate`, true where anything was estimated, or an answer
        has more than four spellings and an occurrence near two of them may count twice. `n_docs` is not known.

    Raises:
        ValueError: a window out of range, or a name without tokens; before anything is asked.
        InfiniGramError: the service refuses a question.
        UnreachableError: it went away; all answers so far are kept, and the same call goes on.
    """
    from tqdm.auto import tqdm

    if not 1 <= window <= MAX_WINDOW:
        raise ValueError(f"the window is {window} tokens: expected 1 to {MAX_WINDOW}, and better at most {WINDOW}")
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}: at least one is needed")
    if isinstance(tokenizer, str | Path):
        from laser_interp.models.model import load_tokenizer

        tokenizer = load_tokenizer(tokenizer)
    of_fact = [_questions(fact.subject, (fact.object, *fact.aliases), tokenizer, fact.fact_id) for fact in facts]
    questions = list(dict.fromkeys(q for fact in of_fact for group in fact for q in group))
    kept = _Kept(Path(cache) if cache is not None else _default_cache())
    answers: dict[Cnf, Answer] = {}
    keys = {q: _key(source.name, q, window, max_clause_freq) for q in questions}

    def ask(question: Cnf) -> Answer:
        answer = source.ask(question, window, max_clause_freq)
        kept.put(*keys[question], answer)
        return answer

    try:
        for question in questions:
            if (known := kept.get(keys[question][0])) is not None:
                answers[question] = known
        waiting = [q for q in questions if q not in answers]
        with (
            tqdm(total=len(questions), initial=len(answers), desc="asking", disable=not progress) as bar,
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
                    n = sum(kept.get(keys[q][0]) is not None for q in questions)
                    raise UnreachableError(
                        f"{error}. {n} of {len(questions)} answers are kept: run the same again to go on"
                    ) from error
                raise
    finally:
        kept.close()

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
                "corpus": source.name,
                "unit": "occurrence",
                "unit_both": "occurrences within a window",
                "normaliser": NORMALISER,
                "approximate": any(a.approx for a in (*subject, *objects, *both)) or len(both) > 1,
                "window": window,
            }
        )
    frame = pd.DataFrame(rows).astype({"n_docs": "Int64"})
    frame.attrs["provenance"] = {
        "facts": facts.name,
        "facts_sha256": facts.sha256,
        "source": source.name,
        "window": window,
        "max_clause_freq": max_clause_freq,
        "tokenizer": str(getattr(tokenizer, "name_or_path", "")),
    }
    return check(frame, "counts")


def _default_cache() -> Path:
    from laser_interp.edits.spectra import cache_dir

    return cache_dir().parent / "infinigram.sqlite"


def _key(source: str, question: Cnf, window: int, max_clause_freq: int) -> tuple[str, str]:
    options = [] if _plain(question) else [window, max_clause_freq]
    asked = json.dumps([source, question, options], separators=(",", ":"))
    return hashlib.sha256(asked.encode()).hexdigest(), asked


def _questions(
    subject: str, objects: Sequence[str], tokenizer: Any, fact_id: str
) -> tuple[list[Cnf], list[Cnf], list[Cnf]]:
    """What is asked for one fact: of its subject, of its object, of both."""
    subjects = _spellings([subject], tokenizer, fact_id)
    answers = _spellings(objects, tokenizer, fact_id)
    groups = [answers[i : i + MAX_TERMS] for i in range(0, len(answers), MAX_TERMS)]
    return (
        [((term,),) for term in subjects],
        [((term,),) for term in answers],
        [(tuple(subjects), tuple(group)) for group in groups],
    )


def _spellings(names: Sequence[str], tokenizer: Any, fact_id: str) -> list[tuple[int, ...]]:
    """Token ids of each name after a space, and after a line break."""
    found: dict[tuple[int, ...], None] = {}
    for name in names:
        for before, joint in (("a", " "), ("\n", "")):
            if ids := _after(before, joint + name.strip(), tokenizer):
                found[ids] = None
        if not found:
            raise ValueError(f"the name {name!r} of fact {fact_id!r} has no tokens to look for")
    return list(found)


def _after(before: str, text: str, tokenizer: Any) -> tuple[int, ...]:
    """Tokens of a text where something stands before it."""
    whole = tokenizer.encode(before + text, add_special_tokens=False)
    prefix = tokenizer.encode(before, add_special_tokens=False)
    if whole[: len(prefix)] == prefix:
        return tuple(whole[len(prefix) :])
    return tuple(tokenizer.encode(text.lstrip(), add_special_tokens=False))
