"""The scorer: facts tokenised once, then scored under any number of edits.

An answer of one token or of several is scored the same way, teacher-forced: its log-probability is the sum over its
tokens, its rank the worst rank of any of them, so that rank 1 means that greedy decoding writes it out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import torch

from laser_interp.choices import EngineName, RankBy, check_choice
from laser_interp.edits.edit import Edit
from laser_interp.facts.tasks import AnyFacts, task_of
from laser_interp.models.bfloat16 import in_own_numbers
from laser_interp.models.forward import logits_at
from laser_interp.models.hooks import count_hooks
from laser_interp.models.in_use import refuse_inside_edit
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.models.unembedding import Logits
from laser_interp.progress import progress_bar
from laser_interp.scoring.answer_rules import DETAILED_RULES, apply_rule
from laser_interp.scoring.categories import Categories
from laser_interp.scoring.engine import Engine
from laser_interp.scoring.generic_words import GenericTokens, generic_tokens
from laser_interp.scoring.lookups import TokenLookups
from laser_interp.scoring.memory import parse_memory
from laser_interp.scoring.side_by_side import runs_side_by_side
from laser_interp.scoring.vocabulary import LogitQuery, logit_statistics
from laser_interp.storage.schemas import check

_AS_TRAINED = {"site": "", "kind": "base", "rho": None, "rank_kept": None, "alpha": None}  # as `Edit.describe`


class _Statistics:
    """What is kept of the logits under one edit: one number per target or per read."""

    def __init__(self, n_reads: int, n_targets: int, n_items: int, top_k: int) -> None:
        self.most_probable = np.zeros((n_reads, top_k), dtype=np.int64)
        self.most_probable_p = np.zeros((n_reads, top_k))
        self.top = np.zeros(n_reads, dtype=np.int64)
        self.top_p = np.zeros(n_reads)
        self.p_generic = np.zeros(n_reads)
        self.log_generic = np.full(n_reads, -np.inf)  # of the most probable of them
        self.logprob = np.zeros(n_targets)
        self.rank = np.zeros(n_targets, dtype=np.int64)
        self.masked_rank = np.zeros(n_targets, dtype=np.int64)
        self.margin = np.zeros(n_targets)
        self.log_kind = np.full(n_items, -np.inf)


def _kind_tokens(first: np.ndarray, generic: GenericTokens, asked: TokenLookups) -> np.ndarray:
    """`[n, 3]`, by read: (read, item, token) of the tokens with which answers of an item's kind begin, each once,
    without generic words."""
    pairs = np.unique(first, axis=0)
    pairs = pairs[~generic.includes(pairs[:, 0], pairs[:, 1])]
    table = np.column_stack([asked.prompt_read[pairs[:, 0]], pairs])
    return table[np.argsort(table[:, 0], kind="stable")]


class Scorer:
    """Facts tokenised and checked once, to be scored under any number of edits.

    Args:
        model: what is asked.
        task: facts, or a task with a rule of its own for what counts as right.
        generic: words that count as generic; None takes `generic_words(model)`. Only those that are one token as an
            answer are used.
        candidates: also rank each answer among the answers of its relation.
        rank_by: "answers" ranks candidates by log p of whole answers, so that each candidate of several tokens is run
            in rows of its own. "first_tokens" ranks by log p of the first token, which costs nothing; a candidate that
            begins with the same token as the answer is then not counted as ahead of it.
        top_k: also keep the k most probable first tokens of the answer, as `top_answers` and `top_probs`; 0: only
            the first.

    Raises:
        ValueError: an answer the tokenizer cannot represent, an empty prompt, or generic words none of which is one
            token.
    """

    def __init__(
        self,
        model: Model,
        task: AnyFacts,
        *,
        generic: Sequence[str] | None = None,
        candidates: bool = True,
        rank_by: RankBy = "answers",
        top_k: int = 0,
    ) -> None:
        check_model(model)
        if not 0 <= top_k <= model.d_vocab:
            raise ValueError(f"top_k is {top_k}: expected 0 to {model.d_vocab}, the size of the vocabulary")
        self.model = model
        self.task = task_of(task)
        self.facts = self.task.facts
        self.top_k = top_k
        self.candidates = candidates or self.task.rule in DETAILED_RULES
        check_choice("rank_by", rank_by, RankBy)
        self.by_first_tokens = rank_by == "first_tokens"
        if self.by_first_tokens and self.task.rule in DETAILED_RULES:
            raise ValueError(f"rank_by is first_tokens: the rule {self.task.rule} looks at whole answers")
        self.lookups = TokenLookups(model, self.facts, candidates=self.candidates, first_tokens=self.by_first_tokens)
        self.items = self.lookups.items
        self.generic = generic_tokens(model, self.facts, self.items, generic)
        # Which form of the generic words stands at each read
        self._form_of_read = np.zeros(len(self.lookups.reads), dtype=np.int64)
        self._form_of_read[self.lookups.prompt_read] = self.generic.form_of_item
        first = self.lookups.first_tokens()
        right = first[first[:, 2] == 1, :2]
        self._categories = Categories(right, first[:, :2], self.generic, model.d_vocab)
        self._kind = _kind_tokens(first[:, :2], self.generic, self.lookups) if self.candidates else None
        self._fact_columns = self.facts.prompts_frame()
        self._engine: Engine | None = None
        self._word_of: dict[int, str] = {}

    def run(
        self,
        edits: Mapping[str, Edit | None],
        *,
        engine: EngineName = "fast",
        memory: int | str | None = None,
        progress: bool = False,
        tick: Callable[[float], object] | None = None,
    ) -> Iterator[tuple[str, pd.DataFrame]]:
        """Scores under each edit (None: the model as trained): (label, a row per fact and prompt), in order.

        All edits run together, so that what they share is computed once; see `laser_interp.scoring.engine`.

        Args:
            engine: "fast", or "reference" for one full forward pass per edit, with its hooks on.
            memory: what activations may take; see `li.score`.
            tick: called with each share of the work that is done.

        Raises:
            ValueError: another engine, or an edit made from another model's weights; before any work.
        """
        refuse_inside_edit(self.model, "scoring")
        n_reads = len(self.lookups.reads)
        sizes = (n_reads, len(self.lookups.target_read), len(self.items), self.top_k)
        statistics = {label: _Statistics(*sizes) for label in edits}
        labels = list(edits)
        total = len(labels) * n_reads
        with progress_bar(total=total, desc="scoring", unit="read", disable=not progress) as bar:
            for which, reads, logits in self._logits(list(edits.values()), engine, memory):
                with torch.no_grad(), in_own_numbers(self.model.device):
                    self._reduce([statistics[labels[i]] for i in which], reads, logits)
                bar.update(len(which) * len(reads))
                if tick is not None:
                    tick(len(which) * len(reads) / total)
        for label, edit in edits.items():
            columns: dict[str, Any] = {"edit": label}
            described: dict[str, Any] = _AS_TRAINED if edit is None else edit.describe()
            for column, value in described.items():
                columns[column] = value if isinstance(value, str) else np.nan if value is None else float(value)
            columns |= self._gather(statistics.pop(label))
            # One frame at once: a column added to a frame costs as much as all the arithmetic on it
            frame = pd.concat([self._fact_columns, pd.DataFrame(columns, index=self._fact_columns.index)], axis=1)
            yield label, check(apply_rule(self.model, self.task, frame, edit), "scores")

    def _logits(
        self, edits: list[Edit | None], engine: EngineName, memory: int | str | None
    ) -> Iterator[tuple[list[int], list[int], Logits]]:
        check_choice("engine", engine, EngineName)
        model, rows, reads = self.model, self.lookups.rows, self.lookups.reads
        for edit in edits:
            if edit is not None:
                edit.check(model)
        # The engine runs neither hooks that the caller attached, nor edits on one path only. Full forward passes do.
        everything = engine == "reference" or not model.runs_in_parts or bool(count_hooks(model))
        whole = [i for i, edit in enumerate(edits) if everything or not runs_side_by_side(model, edit)]
        for i in whole:
            edit = edits[i]
            with edit.on(model) if edit is not None else nullcontext():
                for read, logits in logits_at(model, rows, reads):
                    yield [i], read, Logits(logits)
        plain = [i for i in range(len(edits)) if i not in set(whole)]
        if not plain:
            return
        budget = parse_memory(memory, model)
        if self._engine is None or self._engine.memory != budget:
            self._engine = Engine(model, rows, reads, memory=budget)
        for which, read, logits in self._engine.run([edits[i] for i in plain]):
            yield [plain[i] for i in which], read, logits

    def _reduce(self, kept: Sequence[_Statistics], reads: list[int], logits: Logits) -> None:
        """Reduce the logits of some reads, under one edit after the other, to statistics."""
        device, n, asked = logits.x.device, len(kept), self.lookups
        read = np.tile(reads, n)
        targets = np.concatenate([np.arange(asked.span[one], asked.span[one + 1]) for one in reads])
        rows = np.repeat(np.arange(len(reads)), asked.span[np.add(reads, 1)] - asked.span[reads])
        rows = (rows + len(reads) * np.arange(n)[:, None]).ravel()
        tokens, ranked = np.tile(asked.target_token[targets], n), np.tile(asked.target_is_answer[targets], n)
        kind_rows, kind_tokens, items = self._kinds(read)
        seen = logit_statistics(
            logits,
            LogitQuery(
                torch.from_numpy(np.concatenate([rows, kind_rows])).to(device),
                torch.from_numpy(np.concatenate([tokens, kind_tokens])).to(device),
                torch.from_numpy(rows[ranked]).to(device),
                torch.from_numpy(tokens[ranked]).to(device),
                self.generic.ids.to(device),
                self.top_k,
            ),
        )
        norm = seen.norm.cpu().numpy()
        of_generic = seen.columns.cpu().numpy()
        if len(self.generic.in_form) > 1:
            of_generic = np.where(self.generic.in_form[self._form_of_read[read]], of_generic, -np.inf)
        values = seen.values.cpu().numpy()
        own, at = seen.ranked.cpu().numpy(), rows[ranked]
        # Ties count against the answer, so a constant or NaN output is never right; the answer itself counts once.
        rank = logits.d_vocab - seen.below.cpu().numpy()
        ahead = ~(of_generic[at] < own[:, None]) & (tokens[ranked][:, None] != self.generic.ids.numpy())
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays so
            columns = {
                "top": seen.top.cpu().numpy(),
                "top_p": np.exp(seen.highest.cpu().numpy() - norm),
                "p_generic": np.exp(of_generic - norm[:, None]).sum(-1) if of_generic.shape[1] else norm * np.nan,
                "most_probable": seen.most_probable.cpu().numpy(),
                "most_probable_p": np.exp(seen.most.cpu().numpy() - norm[:, None]),
            }
            if of_generic.shape[1]:
                columns["log_generic"] = of_generic.max(-1) - norm
            logprob, of_kind = np.split((values - norm[np.concatenate([rows, kind_rows])]).astype(float), [len(rows)])
            columns_of_ranked = {
                "rank": rank,
                "masked_rank": rank - ahead.sum(-1),
                "margin": own - seen.others.cpu().numpy(),
            }
        chosen = targets[asked.target_is_answer[targets]]
        for i, one in enumerate(kept):
            for name, column in columns.items():
                getattr(one, name)[reads] = column.reshape(n, len(reads), *column.shape[1:])[i]
            one.logprob[targets] = logprob.reshape(n, -1)[i]
            for name, column in columns_of_ranked.items():
                getattr(one, name)[chosen] = column.reshape(n, -1)[i]
            if len(items):
                mine = np.array_split(items, n)[i]
                starts = np.flatnonzero(np.diff(mine, prepend=-1))  # an item's tokens stand together
                one.log_kind[mine[starts]] = np.logaddexp.reduceat(np.array_split(of_kind, n)[i], starts)

    def _kinds(self, read: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first tokens of answers of the kind that each read asks for: the row of the read, the token, the item."""
        if self._kind is None:
            none = np.zeros(0, dtype=np.int64)
            return none, none, none
        ends = np.searchsorted(self._kind[:, 0], [read, read + 1])
        chosen = np.concatenate([np.arange(start, stop) for start, stop in ends.T])
        rows = np.repeat(np.arange(len(read)), ends[1] - ends[0])
        return rows, self._kind[chosen, 2], self._kind[chosen, 1]

    def _gather(self, kept: _Statistics) -> dict[str, Any]:
        """From tokens to continuations to (fact, prompt) rows: columns by name."""
        asked = self.lookups
        n, n_items = len(asked.item), len(self.items)
        of_target = asked.target_continuation
        logprob = np.zeros(n)
        np.add.at(logprob, of_target, kept.logprob)
        worst = np.zeros(n, dtype=np.int64)
        np.maximum.at(worst, of_target, kept.rank)
        # Generic words are masked where the answer begins; an answer's later tokens may be generic.
        first = asked.first_target
        rank = kept.rank.copy()
        rank[first] = kept.masked_rank[first]
        masked = np.zeros(n, dtype=np.int64)
        np.maximum.at(masked, of_target, rank)

        is_answer, item = asked.is_answer, asked.item
        # The best spelling of each answer: later assignments win, so they go from worst to best.
        answers = np.flatnonzero(is_answer)
        answers = answers[np.argsort(np.nan_to_num(logprob[answers], nan=-np.inf), kind="stable")]
        spelling = np.zeros(n_items, dtype=np.int64)
        spelling[item[answers]] = answers
        n_tokens = asked.n_tokens[spelling]
        best = np.full(n_items, -np.inf)
        # fmax ignores NaN; an item whose answers are all NaN keeps -inf and is put back to NaN below
        np.fmax.at(best, item[is_answer], logprob[is_answer])
        best_rank = np.full(n_items, np.iinfo(np.int64).max)
        np.minimum.at(best_rank, item[is_answer], worst[is_answer])
        best_masked = np.full(n_items, np.iinfo(np.int64).max)
        np.minimum.at(best_masked, item[is_answer], masked[is_answer])
        all_nan = np.ones(n_items, dtype=bool)
        all_nan[item[is_answer & ~np.isnan(logprob)]] = False
        ahead = self._first_token_ahead(kept) if self.by_first_tokens else ~is_answer & ~(logprob < best[item])
        ahead &= asked.competes
        candidate_rank = 1 + np.bincount(item[ahead], minlength=n_items)
        best[all_nan] = np.nan

        read = asked.prompt_read
        top = kept.top[read]
        words = self._words(top)
        columns: dict[str, Any] = {"logprob": best, "rank": best_rank}
        for k in (1, 5, 10):
            columns[f"top{k}"] = best_rank <= k
        columns["top_answer"] = [words[token] for token in top.tolist()]
        columns["top_token"] = top
        columns["top_prob"] = kept.top_p[read]
        columns["category"] = self._categories.of(np.arange(n_items), top)
        if self.top_k:
            words = self._words(kept.most_probable[read])
            columns["top_answers"] = [[words[token] for token in row] for row in kept.most_probable[read].tolist()]
            columns["top_probs"] = kept.most_probable_p[read].tolist()
        columns["p_generic"] = kept.p_generic[read]
        begins = first[spelling]  # the first token of the best spelling of each item's answer
        first_is_generic = self.generic.includes(np.arange(n_items), asked.target_token[begins])
        own_generic = np.where(first_is_generic, kept.logprob[begins], -np.inf)
        of_others = np.clip(np.nan_to_num(kept.p_generic[read]) - np.exp(own_generic), 0.0, 1 - 1e-12)
        columns["generic_masked_logprob"] = best - np.log1p(-of_others)
        columns["generic_masked_rank"] = best_masked
        columns["generic_masked_top1"] = best_masked <= 1
        columns["candidate_rank"] = candidate_rank.astype(float) if self.candidates else np.nan
        columns["candidate_top1"] = (candidate_rank == 1).astype(float) if self.candidates else np.nan
        if asked.is_new.any():
            against = np.full(n_items, np.nan)
            against[item[asked.is_new]] = logprob[asked.is_new]
            columns["target_new_logprob"] = against
            columns["prefers_true"] = np.where(np.isnan(against) | all_nan, np.nan, best > against)
        if self.task.rule in DETAILED_RULES:
            competing = np.flatnonzero(asked.competes)
            of_item = np.split(competing, np.flatnonzero(np.diff(item[competing])) + 1)
            columns["continuations"] = [[asked.text[c] for c in own] for own in of_item]
            columns["continuation_logprobs"] = [logprob[own].tolist() for own in of_item]
            columns["continuation_tokens"] = [asked.n_tokens[own].tolist() for own in of_item]
            columns["continuation_right"] = [is_answer[own].tolist() for own in of_item]
        columns["generic_logprob"] = kept.log_generic[read]
        columns["first_logprob"] = kept.logprob[begins]
        columns["first_is_generic"] = first_is_generic
        columns["kind_logprob"] = np.nan
        if self._kind is not None:  # the answer's own first token is of its kind, also where it is a generic word
            with np.errstate(invalid="ignore"):  # what is not finite stays so
                columns["kind_logprob"] = np.logaddexp(kept.log_kind, own_generic)
        margin = np.full(n, np.inf)
        with np.errstate(invalid="ignore"):
            np.minimum.at(margin, of_target, np.where(asked.target_is_answer, kept.margin, np.inf))
        best_margin = np.full(n_items, -np.inf)
        np.fmax.at(best_margin, item[is_answer], margin[is_answer])
        columns["margin"] = np.where(all_nan, np.nan, best_margin)
        columns["n_answer_tokens"] = n_tokens.astype(np.int64)
        columns["logprob_per_token"] = best / n_tokens
        return columns

    def _first_token_ahead(self, kept: _Statistics) -> np.ndarray:
        """Which other candidates begin with a token that is as probable as any with which a right answer begins."""
        asked = self.lookups
        logprob, token = kept.logprob[asked.first_target], asked.target_token[asked.first_target]
        best = np.full(len(self.items), -np.inf)
        np.fmax.at(best, asked.item[asked.is_answer], logprob[asked.is_answer])
        begins = asked.item * self.model.d_vocab + token
        as_answer = np.isin(begins, begins[asked.is_answer])
        return ~as_answer & ~(logprob < best[asked.item])

    def _words(self, tokens: np.ndarray) -> dict[int, str]:
        for token in set(tokens.ravel().tolist()) - self._word_of.keys():
            self._word_of[token] = self.model.decode(token).strip()
        return self._word_of
