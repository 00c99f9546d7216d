"""infini-gram, hosted or on this machine: one question, one count."""

import math
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from laser_interp.extras import require
from laser_interp.frequency.infinigram import Answer, Cnf, InfiniGram, InfiniGramError, UnreachableError, is_single_term

HOSTED = "https://api.infini-gram.io/"
PILE = "v4_piletrain_llama"  # its tokenizer is Llama 2's
MAX_COUNT = 1 << 53  # occurrences; more than any corpus has tokens
RETRIED = (403, 408, 429)  # and every 5xx; never 400


@dataclass
class HostedInfiniGram(InfiniGram):
    """An infini-gram service.

    Attributes:
        index: its name there.
        url: of the service. A name and password in it are used to ask, and appear in no table, cache or message.
        tries: how often a question is asked before giving up.
        first_wait, longest_wait: seconds between tries, doubled each time; a Retry-After is respected.
        timeout: seconds for one answer.
        tokenizer: the one that the index was made with (of the Pile's: Llama 2's); see `li.load_tokenizer`.

    Example:
        >>> tokenizer = li.load_tokenizer("meta-llama/Llama-2-7b-hf")  # doctest: +SKIP
        >>> li.count(facts, li.counts.HostedInfiniGram(tokenizer=tokenizer))  # doctest: +SKIP
    """

    index: str = PILE
    url: str = field(default=HOSTED, repr=False)
    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    timeout: float = 60.0
    tokenizer: Any = field(default=None, repr=False)
    _client: Any = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:
        """The name of the corpus in tables and kept answers."""
        return f"{_without_secrets(self.url).rstrip('/')}:{self.index}"

    def ask(self, cnf: Cnf, window: int, max_clause_freq: int) -> Answer:
        """One question.

        Raises:
            ModuleNotFoundError: httpx or stamina is not installed.
            InfiniGramError: the service refuses it.
            UnreachableError: no answer after all tries.
        """
        require("infini-gram", "httpx", "stamina", what="the hosted infini-gram")
        import stamina

        body: dict[str, Any] = {"index": self.index, "query_type": "count"}
        if is_single_term(cnf):
            body |= {"query_ids": cnf[0][0]}
        else:
            body |= {"query_ids": cnf, "max_diff_tokens": window, "max_clause_freq": max_clause_freq}
        waits = {"wait_initial": self.first_wait, "wait_max": self.longest_wait, "wait_jitter": 0.0}
        ask = stamina.RetryingCaller(attempts=self.tries, timeout=None, **waits).on(self._backoff)
        try:
            return ask(self._ask_once, body)
        except _NoAnswerError as error:
            raise UnreachableError(f"{self.name} did not answer {self.tries} times; the last: {error}") from error

    def _backoff(self, error: Exception) -> bool | float:
        """Whether to ask again, or after how many seconds."""
        if not isinstance(error, _NoAnswerError):
            return False
        return True if error.retry_after is None else min(max(error.retry_after, 0.0), self.longest_wait)

    def _ask_once(self, body: dict[str, Any]) -> Answer:
        import httpx

        if self._client is None:
            self._client = httpx.Client(timeout=self.timeout, headers={"User-Agent": "laser-interp"})
        try:
            response = self._client.post(self.url, json=body)
        except httpx.TransportError as error:
            why = str(error).replace(self.url, _without_secrets(self.url))
            raise _NoAnswerError(f"{type(error).__name__}: {why}") from None
        answer = _json(response)
        if response.status_code == 200 and "error" not in answer:
            checked = checked_answer(answer.get("count"), answer.get("approx", False))
            if checked is not None:
                return checked
            raise _NoAnswerError(f"an answer without a count: {response.text[:200]!r}")
        why = f"{response.status_code} {answer.get('error', '')}".strip()
        if response.status_code not in RETRIED and response.status_code < 500:
            raise InfiniGramError(f"{self.name} refuses a question: {why}")
        raise _NoAnswerError(why, _seconds(response.headers.get("Retry-After")))


def checked_answer(count: object, approx: object) -> Answer | None:
    """A count as an engine gives it, or None where it is no number of occurrences."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_COUNT:
        return None
    return Answer(count, bool(approx))


def _without_secrets(url: str) -> str:
    """The address without a user's name and password, and without a query that may hold a key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class _NoAnswerError(Exception):
    """The service did not answer this time."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


@dataclass
class LocalInfiniGram(InfiniGram):
    """An infini-gram index on this machine (`pip install infini-gram`, Linux).

    Attributes:
        folder: as `infini_gram.indexing` wrote it.
        eos_token_id: of the tokenizer it was made with.
        token_dtype: "u8", "u16" or "u32", as it was made.
        vocab_size: upper bound of the token ids.
        tokenizer: the one that it was made with.
    """

    folder: str | Path
    eos_token_id: int
    token_dtype: str = "u16"
    vocab_size: int = 65535
    tokenizer: Any = field(default=None, repr=False)
    _engine: Any = field(default=None, init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def name(self) -> str:
        """The name of the corpus in tables and kept answers."""
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
        if is_single_term(cnf):
            answer = self._engine.count(input_ids=list(cnf[0][0]))
        else:
            answer = self._engine.count_cnf(
                cnf=[[list(term) for term in clause] for clause in cnf],
                max_clause_freq=max_clause_freq,
                max_diff_tokens=window,
            )
        if "error" in answer:
            raise InfiniGramError(f"{self.name} refuses a question: {answer['error']}")
        checked = checked_answer(answer.get("count"), answer.get("approx", False))
        if checked is None:
            raise InfiniGramError(f"{self.name} gives no count: {str(answer)[:200]}")
        return checked

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


def _json(response: Any) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _seconds(text: str | None) -> float | None:
    try:
        seconds = math.nan if text is None else float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None
