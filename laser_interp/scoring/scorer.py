"""Scores: facts × edits → one tidy frame.

An answer of one token or of several is scored the same way, teacher-forced: its log-probability is
the sum over its tokens, its rank the worst rank of any of them, so that rank 1 means that greedy
decoding writes it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from laser_interp.edits.edit import Edit
from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.models.model import Model
from laser_interp.scoring.engine import Engine, parse_memory
from laser_interp.storage.tables import check

ENGINES = ("fast", "reference")

NO_EDIT = {"site": "", "kind": "base", "rho": None, "rank_kept": None, "alpha": None}


def edit_columns(edit: Edit | None) -> dict[str, Any]:
    """The columns that say what the edit was; None is the model as trained."""
    return dict(NO_EDIT) if edit is None else edit.describe()


def generic_words(model: Model) -> tuple[str, ...]:
    """Words that fit any sentence: those shipped with the model, else scikit-learn's English stop words."""
    if model.generic_words is not None:
        return model.generic_words
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return tuple(sorted(ENGLISH_STOP_WORDS))


@dataclass
class _Reads:
    """Which tokens are looked up at which place: each token sequence is run once, however many ask."""

    rows: list[list[int]] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    _row_of: dict[tuple[int, ...], int] = field(default_factory=dict)
    _read_of: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, ids: Sequence[int], position: int) -> int:
        key = tuple(ids)
        if key not in self._row_of:
            self._row_of[key] = len(self.rows)
            self.rows.append(list(ids))
        place = (self._row_of[key], position)
        if place not in self._read_of:
            self._read_of[place] = len(self.places)
            self.places.append(place)
        return self._read_of[place]


CATEGORIES = ("correct", "generic", "same_type", "other")


class Categories:
    """Of which category an answer's first token is; see `laser_interp.favoured_answers`.

    Args:
        right, same_type: `[n, 2]`, pairs (item, token): of an item's right answers, and of all answers of its relation.
        generic: tokens of generic words.
        d_vocab: size of the vocabulary.
    """

    def __init__(self, right: np.ndarray, same_type: np.ndarray, generic: Sequence[int], d_vocab: int) -> None:
        self._d_vocab = d_vocab
        self._right, self._same_type = (np.unique(self._keys(*pairs.T)) for pairs in (right, same_type))
        self._generic = np.unique(np.asarray(generic, dtype=np.int64))

    def _keys(self, items: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return items.astype(np.int64) * self._d_vocab + tokens

    def of(self, items: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """A category for each item and the token that was answered."""
        keys = self._keys(items, tokens)
        conditions = [_among(keys, self._right), _among(tokens, self._generic), _among(keys, self._same_type)]
        return np.select(conditions, CATEGORIES[:3], CATEGORIES[3])


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are in a sorted array; unlike `np.isin`, without sorting that array again for each edit."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


class _Found:
    """What is kept of the logits under one edit: a number a target token, or a read."""

    def __init__(self, n_reads: int, n_targets: int, top_k: int) -> None:
        self.first = np.zeros((n_reads, top_k), dtype=np.int64)
        self.first_prob = np.zeros((n_reads, top_k))
        self.logprob = np.zeros(n_targets)
        self.rank = np.zeros(n_targets, dtype=np.int64)
        self.masked_rank = np.zeros(n_targets, dtype=np.int64)
        self.top = np.zeros(n_reads, dtype=np.int64)
        self.top_prob = np.zeros(n_reads)
        self.p_generic = np.zeros(n_reads)


class Scorer:
    """Facts tokenised and checked once, to be scored under any number of edits.

    Args:
        model, facts: what is asked, and whom.
        generic: words that count as generic; None takes `generic_words(model)`. Only those that are
            one token as an answer are used.
        candidates: also rank each answer among the answers of its relation.
        top_k: also keep the k most probable first tokens of the answer, as `top_answers` and `top_probs`; 0: only
            the first.
        details: also keep every continuation that was looked up, as lists `continuations`, `continuation_logprobs`,
            `continuation_tokens` (how many) and `continuation_right`.
        keep: bytes of residual streams that may be kept from one `run` to the next; None: half of the memory.

    Raises:
        ValueError: an answer the tokenizer cannot represent, an empty prompt, or generic words none of
            which is one token.
    """

    def __init__(
        self,
        model: Model,
        facts: FactSet,
        *,
        generic: Sequence[str] | None = None,
        candidates: bool = True,
        top_k: int = 0,
        details: bool = False,
        keep: int | None = None,
    ) -> None:
        if not 0 <= top_k <= model.d_vocab:
            raise ValueError(f"top_k is {top_k}: expected 0 to {model.d_vocab}, the size of the vocabulary")
        self.top_k = top_k
        self.details = details
        self._owner_text: list[str] = []
        self._engine: Engine | None = None
        self._keep = keep
        self.model = model
        self.facts = facts
        self.candidates = candidates
        self.items: list[tuple[Fact, int]] = [(fact, p) for fact in facts for p in range(len(fact.prompts))]
        self._reads = _Reads()
        target_read: list[int] = []
        target_token: list[int] = []
        target_owner: list[int] = []  # the continuation a target belongs to
        target_ranked: list[bool] = []
        target_first: list[bool] = []
        self._owner_item: list[int] = []  # the item a continuation belongs to
        self._owner_is_answer: list[bool] = []
        # (item, prompt, answer, whether it is right), tokenised together
        asked = [
            (item, fact.prompts[p], text, is_right)
            for item, (fact, p) in enumerate(self.items)
            for text, is_right in facts.spellings(fact, candidates=candidates).items()
        ]
        prompts = [fact.prompts[p] for fact, p in self.items]
        self._prompt_read = [self._reads.add(row, position) for row, position in model.questions(prompts)]
        lookups = model.lookups([(prompt, text) for _, prompt, text, _ in asked])
        for (item, _, text, is_answer), looked_up in zip(asked, lookups, strict=True):
            owner = len(self._owner_item)
            self._owner_item.append(item)
            self._owner_is_answer.append(is_answer)
            self._owner_text.append(text)
            for j, (row, position, token) in enumerate(looked_up):
                target_read.append(self._reads.add(row, position))
                target_first.append(j == 0)
                target_token.append(token)
                target_owner.append(owner)
                target_ranked.append(is_answer)

        order = np.argsort(target_read, kind="stable")
        self._target_read = np.asarray(target_read)[order]
        self._target_token = np.asarray(target_token)[order]
        self._target_owner = np.asarray(target_owner)[order]
        self._target_ranked = np.asarray(target_ranked)[order]
        self._target_first = np.asarray(target_first)[order]
        self._span = np.searchsorted(self._target_read, np.arange(len(self._reads.places) + 1))
        self._owner_item_array = np.asarray(self._owner_item)
        self._owner_is_answer_array = np.asarray(self._owner_is_answer)
        self.generic_ids = self._find_generic(generic)
        first = np.flatnonzero(self._target_first)
        item = self._owner_item_array[self._target_owner[first]]
        pairs = np.stack([item, self._target_token[first]], axis=1)
        right = self._owner_is_answer_array[self._target_owner[first]]
        self._categories = Categories(pairs[right], pairs, self.generic_ids.tolist(), model.d_vocab)
        self._fixed = facts.prompts_frame()

    def _find_generic(self, words: Sequence[str] | None) -> Tensor:
        given = words is not None
        ids: set[int] = set()
        prompt = self.items[0][0].prompt
        for word in generic_words(self.model) if words is None else words:
            try:
                (tokens,) = self.model.encode_answers([(prompt, word)])
            except ValueError:
                if given:
                    raise
                continue
            if len(tokens) == 1:
                ids.add(tokens[0])
        if given and not ids:
            raise ValueError(f"none of the generic words {list(words or ())!r} is one token of {self.model.name!r}")
        return torch.tensor(sorted(ids), dtype=torch.long)

    def run(
        self,
        edits: Mapping[str, Edit | None],
        *,
        engine: str = "fast",
        memory: int | str | None = None,
        progress: bool = False,
        tick: Callable[[float], object] | None = None,
    ) -> Iterator[tuple[str, pd.DataFrame]]:
        """Scores under each edit (None: the model as trained): (label, a row per fact and prompt), in order.

        All edits run together, so that what they share is computed once; see `laser_interp.engine`.

        Args:
            engine: "fast", or "reference" for one full forward an edit, with its hooks on.
            memory: what activations may take; see `score`.
            tick: called with each share of the work that is done.

        Raises:
            ValueError: another engine, or an edit made from another model's weights; before any work.
        """
        from tqdm.auto import tqdm

        found = {label: _Found(len(self._reads.places), len(self._target_read), self.top_k) for label in edits}
        labels = list(edits)
        total = len(labels) * len(self._reads.places)
        with tqdm(total=total, desc="scoring", unit="read", disable=not progress) as bar:
            for i, reads, logits in self._logits(list(edits.values()), engine, memory):
                self._reduce(found[labels[i]], reads, logits)
                bar.update(len(reads))
                if tick is not None:
                    tick(len(reads) / total)
        for label, edit in edits.items():
            frame = self._fixed.copy()
            frame["edit"] = label
            for column, value in edit_columns(edit).items():
                frame[column] = value if isinstance(value, str) else np.nan if value is None else float(value)  # type: ignore[arg-type]
            yield label, check(self._gather(frame, found.pop(label)), "scores")

    def _logits(
        self, edits: list[Edit | None], engine: str, memory: int | str | None
    ) -> Iterator[tuple[int, list[int], Tensor]]:
        if engine not in ENGINES:
            raise ValueError(f"engine is {engine!r}: expected one of {', '.join(ENGINES)}")
        model = self.model
        for edit in edits:
            if edit is not None:
                edit.check(model)
        # Hooks of others, nested edits among them, are theirs: only whole forwards run all of them. Neither does the
        # engine know edits that act at some positions or on one path only.
        everything = engine == "reference" or bool(model.n_hooks())
        whole = [i for i, edit in enumerate(edits) if everything or not (edit is None or edit.is_plain)]
        if whole:
            for i in whole:
                edit = edits[i]
                with edit.on(model) if edit is not None else nullcontext():
                    for reads, logits in model.logits_at(self._reads.rows, self._reads.places):
                        yield i, reads, logits
        plain = [i for i in range(len(edits)) if i not in set(whole)]
        if not plain:
            return
        given = parse_memory(memory, model)
        if self._engine is None or self._engine.memory != given:
            keep = given // 2 if self._keep is None else self._keep
            self._engine = Engine(model, self._reads.rows, self._reads.places, memory=given, keep=keep)
        for i, reads, logits in self._engine.run([edits[i] for i in plain]):
            yield plain[i], reads, logits

    def _reduce(self, found: _Found, reads: list[int], logits: Tensor) -> None:
        """From logits to what is kept of them; of the vocabulary's size are only the logits and one comparison."""
        device = logits.device
        generic = self.generic_ids.to(device)
        norm = logits.logsumexp(-1)
        best = logits.max(-1)
        found.top[reads] = best.indices.cpu().numpy()
        found.top_prob[reads] = (best.values - norm).exp().cpu().numpy()
        if self.top_k:
            most = logits.topk(self.top_k)
            found.first[reads] = most.indices.cpu().numpy()
            found.first_prob[reads] = (most.values - norm[:, None]).exp().cpu().numpy()
        of_generic = logits[:, generic]
        found.p_generic[reads] = (of_generic - norm[:, None]).exp().sum(-1).cpu().numpy() if len(generic) else np.nan

        spans = [np.arange(self._span[read], self._span[read + 1]) for read in reads]
        targets = np.concatenate(spans)
        local = torch.from_numpy(np.repeat(np.arange(len(reads)), [len(s) for s in spans])).to(device)
        tokens = torch.from_numpy(self._target_token[targets]).to(device)
        values = logits[local, tokens]
        found.logprob[targets] = (values - norm[local]).double().cpu().numpy()
        ranked = torch.from_numpy(self._target_ranked[targets]).to(device)
        at, own, values = local[ranked], tokens[ranked], values[ranked]
        chosen = targets[ranked.cpu().numpy()]
        # Ties count against the answer, so a constant or NaN output is never right; the answer itself counts once.
        rank = logits.shape[1] - (logits[at] < values[:, None]).sum(-1)
        ahead = ~(of_generic[at] < values[:, None]) & (own[:, None] != generic)
        found.rank[chosen] = rank.cpu().numpy()
        found.masked_rank[chosen] = (rank - ahead.sum(-1)).cpu().numpy()

    def _gather(self, frame: pd.DataFrame, found: _Found) -> pd.DataFrame:
        """From tokens to continuations to (fact, prompt) rows."""
        logprob, rank, masked_rank, top = found.logprob, found.rank, found.masked_rank, found.top
        n_owners, n_items = len(self._owner_item), len(self.items)
        of_owner = np.zeros(n_owners)
        np.add.at(of_owner, self._target_owner, logprob)
        worst = np.zeros(n_owners, dtype=np.int64)
        np.maximum.at(worst, self._target_owner, rank)
        # Generic words are masked where the answer begins; an answer's later tokens may be generic.
        masked = np.zeros(n_owners, dtype=np.int64)
        np.maximum.at(masked, self._target_owner, np.where(self._target_first, masked_rank, rank))

        is_answer, item = self._owner_is_answer_array, self._owner_item_array
        # The best spelling of each answer: later assignments win, so they go from worst to best.
        answers = np.flatnonzero(is_answer)
        answers = answers[np.argsort(np.nan_to_num(of_owner[answers], nan=-np.inf), kind="stable")]
        spelling = np.zeros(n_items, dtype=np.int64)
        spelling[item[answers]] = answers
        n_tokens = np.bincount(self._target_owner, minlength=n_owners)[spelling]
        best = np.full(n_items, -np.inf)
        # fmax ignores NaN; an item whose answers are all NaN keeps -inf and is put back to NaN below
        np.fmax.at(best, item[is_answer], of_owner[is_answer])
        best_rank = np.full(n_items, np.iinfo(np.int64).max)
        np.minimum.at(best_rank, item[is_answer], worst[is_answer])
        best_masked = np.full(n_items, np.iinfo(np.int64).max)
        np.minimum.at(best_masked, item[is_answer], masked[is_answer])
        broken = np.ones(n_items, dtype=bool)
        broken[item[is_answer & ~np.isnan(of_owner)]] = False
        beaten = ~is_answer & ~(of_owner < best[item])
        candidate_rank = 1 + np.bincount(item[beaten], minlength=n_items)
        best[broken] = np.nan

        read = np.asarray(self._prompt_read)
        decoded = {token: self.model.decode(int(token)).strip() for token in np.unique(top[read])}
        frame["logprob"] = best
        frame["rank"] = best_rank
        for k in (1, 5, 10):
            frame[f"top{k}"] = best_rank <= k
        frame["correct"] = frame["top1"]
        frame["top_answer"] = [decoded[token] for token in top[read]]
        frame["top_token"] = top[read]
        frame["top_prob"] = found.top_prob[read]
        frame["category"] = self._categories.of(np.arange(n_items), top[read])
        if self.top_k:
            words = {int(t): self.model.decode(int(t)).strip() for t in np.unique(found.first[read])}
            frame["top_answers"] = [[words[int(t)] for t in row] for row in found.first[read]]
            frame["top_probs"] = found.first_prob[read].tolist()
        frame["p_generic"] = found.p_generic[read]
        frame["generic_masked_rank"] = best_masked
        frame["generic_masked_top1"] = best_masked <= 1
        frame["candidate_rank"] = candidate_rank.astype(float) if self.candidates else np.nan
        frame["candidate_top1"] = (candidate_rank == 1).astype(float) if self.candidates else np.nan
        if self.details:
            size = np.bincount(self._target_owner, minlength=n_owners)
            owned: list[list[int]] = [[] for _ in range(n_items)]
            for owner, its in enumerate(item.tolist()):
                owned[its].append(owner)
            frame["continuations"] = [[self._owner_text[o] for o in one] for one in owned]
            frame["continuation_logprobs"] = [of_owner[one].tolist() for one in owned]
            frame["continuation_tokens"] = [size[one].tolist() for one in owned]
            frame["continuation_right"] = [is_answer[one].tolist() for one in owned]
        frame["n_answer_tokens"] = n_tokens.astype(np.int64)
        frame["logprob_per_token"] = best / n_tokens
        return frame


def score(
    model: Model,
    facts: FactSet,
    edits: Mapping[str, Edit | None],
    *,
    generic: Sequence[str] | None = None,
    candidates: bool = True,
    engine: str = "fast",
    memory: int | str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score facts under edits.

    Args:
        edits: label -> edit; None is the model as trained.
        generic: words that count as generic; see `Scorer`.
        candidates: also rank each answer among the answers of its relation.
        engine: "fast" computes what the edits share once; "reference" runs the whole model once an edit,
            with its hooks on, and is what the fast one is tested against.
        memory: bytes that activations may take, as a number or as in "2GiB"; batches are sized by it.
            Default: 2 GiB on a CPU, 60 % of what the weights leave of a CUDA device.
        progress: show a bar.

    Returns:
        One row per (fact, prompt, edit): `logprob` of the answer (nats, summed over its tokens, the best
        of its aliases), its `rank` in the vocabulary (from 1, ties against it), `top1`, `top5`, `top10`,
        `correct`, the first token of the `top_answer`, its `top_prob` and its `category` (as in
        `li.favoured_answers`, but without candidates no answer is known to be of the same type), `p_generic`,
        `generic_masked_rank` and `generic_masked_top1` (once generic words are masked where the answer
        begins), `n_answer_tokens` and `logprob_per_token`, `candidate_rank` and `candidate_top1` among
        the answers of its relation (by `logprob`; 1.0 and 0.0; NaN where they were not asked for).

    Raises:
        ValueError: no edits, or facts the tokenizer cannot represent.
    """
    if not edits:
        raise ValueError('no edits given: expected a mapping such as {"base": None, "laser": edit}')
    scorer = Scorer(model, facts, generic=generic, candidates=candidates)
    found = scorer.run(edits, engine=engine, memory=memory, progress=progress and len(edits) > 1)
    return pd.concat([frame for _, frame in found], ignore_index=True)


def summarise(scores: pd.DataFrame, by: Sequence[str] = ("edit",)) -> pd.DataFrame:
    """Means over facts and prompts: `n, top1, top5, top10, loss, p_generic, …`; loss is −mean log-probability."""
    frame = scores.assign(loss=-scores["logprob"], n_not_finite=~np.isfinite(scores["logprob"]))
    out = frame.groupby(list(by), sort=False, dropna=False).agg(
        n=("rank", "size"),
        top1=("top1", "mean"),
        top5=("top5", "mean"),
        top10=("top10", "mean"),
        loss=("loss", "mean"),
        p_generic=("p_generic", "mean"),
        generic_masked_top1=("generic_masked_top1", "mean"),
        candidate_top1=("candidate_top1", "mean"),
        n_not_finite=("n_not_finite", "sum"),
    )
    return out.reset_index()
