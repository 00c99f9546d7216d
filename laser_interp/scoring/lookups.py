"""Which tokens are looked up at which reads, for all facts of a set, each read only once.

item           a (fact, prompt)
continuation   a spelling of an answer, or another candidate, after an item's prompt
target         a token of a continuation, looked up at a read
read          (row of token ids, position), where next-token logits are read
"""

import warnings
from collections.abc import Sequence

import numpy as np

from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.models.model import Model
from laser_interp.models.tokens import Asked, ask


class TokenLookups:
    """All lookups of a fact set.

    Args:
        candidates: also look up the other answers of each fact's relation.
        first_tokens: look up only the first token of these other answers, which needs no rows of its own.

    Attributes:
        items: (fact, number of the prompt).
        rows, reads: distinct token sequences, and the (row, position) pairs that are read. Of a causal model each
            beginning of a sequence is read once.
        prompt_read: `[items]`, the read at which each item's answer begins.
        target_read, target_token, target_continuation: `[targets]`, ordered by read.
        target_is_answer: `[targets]`, whether it belongs to a right answer.
        first_target: `[continuations]`, the target with which each begins.
        span: `[reads + 1]`, where each read's targets begin.
        item, is_answer, text: `[continuations]`.
        competes: `[continuations]`, whether it is an answer or a candidate; a fact's `target_new` alone is neither.
        n_tokens: `[continuations]`.

    Raises:
        ValueError: an answer that the tokenizer cannot represent, or an empty prompt.
    """

    def __init__(self, model: Model, facts: FactSet, *, candidates: bool, first_tokens: bool) -> None:
        self.items: list[tuple[Fact, int]] = [(fact, p) for fact in facts for p in range(len(fact.prompts))]
        self.rows: list[list[int]] = []
        self.reads: list[tuple[int, int]] = []
        self._row_of: dict[tuple[int, ...], int] = {}
        self._read_of: dict[tuple[tuple[int, ...], int], int] = {}
        self._masked = model.masked

        known = [facts.spellings(fact, candidates=candidates) for fact, _ in self.items]
        new = [fact.target_new for fact, _ in self.items]
        # The wrong answer that the right one is compared with is scored whether or not it is a candidate
        spellings = [
            texts if wrong is None or wrong in texts else texts | {wrong: False}
            for texts, wrong in zip(known, new, strict=True)
        ]
        asked = ask(
            model,
            [
                (fact.prompts[p], [facts.written(fact, fact.prompts[p], text) for text in texts], sum(texts.values()))
                for (fact, p), texts in zip(self.items, spellings, strict=True)
            ],
        )
        self._report_blanks(model, asked)
        self.prompt_read = np.array([self._number_of(*of_item.read) for of_item in asked])
        self.item = np.repeat(np.arange(len(self.items)), [len(texts) for texts in spellings])
        self.is_answer = np.array([is_right for texts in spellings for is_right in texts.values()])
        self.text = [text for texts in spellings for text in texts]
        self.competes = np.array([text in of for of, texts in zip(known, spellings, strict=True) for text in texts])
        self.is_new = np.array([text == wrong for wrong, texts in zip(new, spellings, strict=True) for text in texts])

        right = self.is_answer.tolist()
        targets: list[tuple[int, int, int, bool]] = []  # read, token, continuation, whether it is the first
        for continuation, triples in enumerate(triples for of_item in asked for triples in of_item.lookups):
            if first_tokens and not right[continuation] and not self.is_new[continuation]:
                row, position, token = triples[0]
                own = row if model.masked else row[: position + 1]  # no row of its own, where the prompt's will do
                targets.append((self._number_of(own, position), token, continuation, True))
                continue
            targets += [
                (self._number_of(row, position), token, continuation, j == 0)
                for j, (row, position, token) in enumerate(triples)
            ]
        table = np.array(targets, dtype=np.int64).reshape(-1, 4)
        table = table[np.argsort(table[:, 0], kind="stable")]
        self.target_read, self.target_token, self.target_continuation = table[:, 0], table[:, 1], table[:, 2]
        first = np.flatnonzero(table[:, 3])
        self.first_target = first[np.argsort(self.target_continuation[first])]
        self.target_is_answer = self.is_answer[self.target_continuation]
        self.span = np.searchsorted(self.target_read, np.arange(len(self.reads) + 1))
        self.n_tokens = np.bincount(self.target_continuation, minlength=len(self.item))

    def _report_blanks(self, model: Model, asked: Sequence[Asked]) -> None:
        """Warn of prompts that end in a blank which no tokenizer would write before their answer."""
        odd = [
            fact.prompts[p]
            for (fact, p), of_item in zip(self.items, asked, strict=True)
            if not model.masked
            and fact.prompts[p][-1:] in (" ", "\t", "\u00a0")
            and not model.decode(of_item.read[0][-1]).strip()
        ]
        if odd:
            warnings.warn(
                f"{len(odd)} prompts end in a blank that is a token of its own before the answer, as in {odd[0]!r}; a "
                "model seldom reads such text: remove the blank",
                stacklevel=4,
            )

    def _number_of(self, ids: Sequence[int], position: int) -> int:
        # What follows a position makes no difference to a causal model: all rows that begin alike are read in one
        key = tuple(ids if self._masked else ids[: position + 1]), position
        if key not in self._read_of:
            whole = tuple(ids)
            if whole not in self._row_of:
                self._row_of[whole] = len(self.rows)
                self.rows.append(list(ids))
            self._read_of[key] = len(self.reads)
            self.reads.append((self._row_of[whole], position))
        return self._read_of[key]

    def first_tokens(self) -> np.ndarray:
        """`[n, 3]`: of each answer and candidate its item, its first token, and whether it is a right answer."""
        token = self.target_token[self.first_target]
        return np.stack([self.item, token, self.is_answer], axis=1)[self.competes]
