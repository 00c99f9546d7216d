"""The permutation of subjects: what an association would look like if frequency had no influence.

Facts are compared within their relation. A unit is a subject in a relation. We shuffle the mean frequencies of a
relation's units among them, then shuffle what is left of each fact within its unit. One random order of the subjects
serves all relations, so a subject moves as a whole through relations that have the same subjects. If each fact has its
own subject, this is the permutation of frequencies within relations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_AT_ONCE, _IN_BLOCKS = 1_000_000, 200_000  # facts times permutations held at a time; blocks stay in a processor's cache
MOST = 1 << 20  # units, relations: three numbers are sorted as one of 64 bits
_MASK = np.uint64(MOST - 1)


@dataclass(frozen=True, eq=False)
class Comparable:
    """Facts that can be compared within relations, sorted by relation, then subject.

    Attributes:
        relation, subject: codes, `[n]`.
        x: log10(1 + frequency), or what takes its place, `[n]`.
        prompts: the effective number of a fact's prompts, `[n]`: 1 where they all agree.
        outcome: share of the fact's prompts with the outcome, `[n]`.
        weight: `[n]`; a fact of a subject with many facts counts less.
        residual: weight times the outcome minus its weighted mean in the relation, `[n]`.
        n_prompts: prompts of all these facts, agreeing or not.
    """

    relation: np.ndarray
    subject: np.ndarray
    x: np.ndarray
    prompts: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    residual: np.ndarray
    n_prompts: int

    @property
    def n_relations(self) -> int:
        return int(self.relation[-1]) + 1

    @property
    def n_subjects(self) -> int:
        return int(self.subject.max()) + 1

    def centred(self, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Values minus their weighted mean in the relation."""
        means = by_group(self.relation, weight * values) / by_group(self.relation, weight)
        return values - means[self.relation]


def by_group(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of values by code."""
    return np.bincount(codes, weights=values)


def comparable(
    relation: np.ndarray, subject: np.ndarray, x: np.ndarray, n_prompts: np.ndarray, n_events: np.ndarray
) -> Comparable | None:
    """The facts of those relations that have both outcomes and at least two frequencies; None if there are none.

    Args:
        relation, subject: `[facts]`, any labels.
        x: `[facts]`.
        n_prompts, n_events: prompts of each fact, and those of them with the outcome.
    """
    n_prompts, n_events = n_prompts.astype(float), n_events.astype(float)
    codes = np.unique(relation, return_inverse=True)[1]
    events, total = by_group(codes, n_events), by_group(codes, n_prompts)
    kept = exchangeable(codes, subject, x, (events > 0) & (events < total))
    if kept is None:
        return None
    order, codes, subjects = kept
    x, n_prompts, n_events = x[order], n_prompts[order], n_events[order]
    outcome = n_events / n_prompts
    prompts = n_prompts / (1 + (n_prompts - 1) * _agreement_of_prompts(codes, n_prompts, n_events))
    sizes = by_group(subjects, prompts)[subjects]
    weight = prompts / (1 + np.maximum(sizes - 1, 0) * _agreement_of_facts(codes, subjects, prompts, outcome))
    means = by_group(codes, weight * outcome) / by_group(codes, weight)
    residual = weight * (outcome - means[codes])
    return Comparable(codes, subjects, x.astype(float), prompts, outcome, weight, residual, int(n_prompts.sum()))


def exchangeable(
    relation: np.ndarray, subject: np.ndarray, x: np.ndarray, asked: np.ndarray | bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The facts of relations that are asked about and have at least two frequencies, by relation and subject.

    Args:
        relation: `[facts]`, codes from 0.
        asked: `[relations]`.

    Returns:
        Their indices in order, and the codes of their relations and subjects, from 0; None if there are none.

    Raises:
        ValueError: there are more facts than can be compared at once.
    """
    lowest, highest = np.full(relation.max(initial=-1) + 1, np.inf), np.full(relation.max(initial=-1) + 1, -np.inf)
    np.minimum.at(lowest, relation, x)
    np.maximum.at(highest, relation, x)
    kept = np.flatnonzero((asked & (highest > lowest))[relation])
    if not len(kept):
        return None
    if len(kept) > MOST:
        raise ValueError(f"{len(kept)} facts are more than can be compared at once ({MOST}): take a sample of them")
    codes, subjects = (np.unique(values[kept], return_inverse=True)[1] for values in (relation, subject))
    order = np.lexsort((subjects, codes))
    return kept[order], codes[order], subjects[order]


def _agreement_of_prompts(relation: np.ndarray, n_prompts: np.ndarray, n_events: np.ndarray) -> float:
    """Intraclass correlation of a fact's prompts, given the relation, from the outcomes alone; 1 if it is unknown."""
    share = (by_group(relation, n_events) / by_group(relation, n_prompts))[relation]
    own = n_events * (1 - share) ** 2 + (n_prompts - n_events) * share**2
    pairs = ((n_prompts - 1) * own).sum()
    if pairs <= 0:
        return 1.0
    return float(np.clip((((n_events - n_prompts * share) ** 2 - own).sum()) / pairs, 0, 1))


def _agreement_of_facts(relation: np.ndarray, subject: np.ndarray, prompts: np.ndarray, outcome: np.ndarray) -> float:
    """Intraclass correlation of a subject's facts, given the relations, from the outcomes alone."""
    total = by_group(relation, prompts)[relation]
    residual = prompts * (outcome - (by_group(relation, prompts * outcome) / by_group(relation, prompts))[relation])
    unit = starts(relation, subject).cumsum() - 1
    in_unit = by_group(unit, prompts)[unit]
    squared = residual**2
    # Two facts of one relation of n are correlated by -1 / (n - 1), because their mean was taken away.
    expected = (squared * (in_unit / prompts - 1) / np.maximum(total / prompts - 1, 1)).sum()
    together = (by_group(subject, residual) ** 2).sum() - squared.sum() + expected
    most = (squared * (by_group(subject, prompts)[subject] / prompts - 1)).sum()
    return float(np.clip(together / most, 0, 1)) if most > 1e-12 else 0.0


def starts(*codes: np.ndarray) -> np.ndarray:
    """Where a new combination of sorted codes begins, `[n]`, booleans."""
    new = np.zeros(len(codes[0]), dtype=bool)
    new[:1] = True
    for values in codes:
        new[1:] |= values[1:] != values[:-1]
    return new


def score_and_spread(facts: Comparable) -> tuple[float, float]:
    """The score Σ residual · (x − mean of its relation), and the sum of squares of its parts by subject."""
    parts = by_group(facts.subject, facts.residual * facts.centred(facts.x, facts.weight))
    return float(parts.sum()), float((parts**2).sum())


def permuted_scores(
    several: Sequence[Comparable], n_permutations: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`score_and_spread` of permutations, `[n_permutations]` each, for each of several outcomes.

    Outcomes of the same facts share their permutations, and so most of the cost.
    """
    out: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for i, facts in enumerate(several):
        if i in out:
            continue
        alike = [j for j in range(i, len(several)) if j not in out and _same_facts(facts, several[j])]
        moving = [_Moving(several[j]) for j in alike]
        for j in alike:
            out[j] = np.empty(n_permutations), np.empty(n_permutations)
        rng = np.random.default_rng(seed)
        few = len(alike) * len(facts.x) * n_permutations <= _AT_ONCE
        block = n_permutations if few else max(1, _IN_BLOCKS // len(facts.x))
        for start in range(0, n_permutations, block):
            stop = min(start + block, n_permutations)
            moved = moving[0].move(stop - start, rng)
            for j, of in zip(alike, moving, strict=True):
                scores, spreads = out[j]
                scores[start:stop], spreads[start:stop] = of.score(*moved)
    return [out[i] for i in range(len(several))]


def _same_facts(one: Comparable, other: Comparable) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("relation", "subject", "x", "weight")
    )


class _Moving:
    """Facts put together to units once, so that a permutation costs two sorts and two sums."""

    def __init__(self, facts: Comparable) -> None:
        new = starts(facts.relation, facts.subject)
        unit = new.cumsum() - 1
        self.relation, self.subject = facts.relation[new], facts.subject[new]
        self.n_subjects = facts.n_subjects
        weight = by_group(unit, facts.weight)
        self.mean = by_group(unit, facts.weight * facts.x) / weight
        # Facts of units that hold more than one frequency
        deviation = facts.x - self.mean[unit]
        deviation[np.abs(deviation) < 1e-12] = 0.0
        mixed = np.flatnonzero(by_group(unit, (deviation != 0).astype(float))[unit] > 0)
        self.deviation = deviation[mixed]
        self.mixed_unit = unit[mixed]
        of_relation = by_group(facts.relation, facts.weight)
        self.centres = _sums(self.relation, weight / of_relation[self.relation])
        self.mixed_centres = _sums(
            facts.relation[mixed], (facts.weight / of_relation[facts.relation])[mixed], len(of_relation)
        )
        self.parts = _sums(self.subject, by_group(unit, facts.residual))
        self.mixed_parts = _sums(facts.subject[mixed], facts.residual[mixed], self.n_subjects)

    def move(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Permuted x minus its mean in the relation: of the units, `[units, n]`, and what moves inside of them."""
        order = rng.integers(1 << 24, size=(n, self.n_subjects), dtype=np.uint32)[:, self.subject]
        mean = self.mean[sorted_within(order, self.relation)]
        inside = np.zeros((0, n))
        if len(self.mixed_unit):
            order = rng.integers(1 << 24, size=(n, len(self.mixed_unit)), dtype=np.uint32)
            inside = self.deviation[sorted_within(order, self.mixed_unit)]
        centres = self.centres @ mean
        if len(inside):
            centres += self.mixed_centres @ inside
        return mean - centres[self.relation], inside

    def score(self, moved: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The scores of permutations, and the sums of squares of their parts by subject."""
        parts = self.parts @ moved
        if len(inside):
            parts += self.mixed_parts @ inside
        return np.ones(len(parts)) @ parts, np.einsum("sn,sn->n", parts, parts)


def _sums(codes: np.ndarray, weight: np.ndarray, n: int | None = None) -> Any:
    """A sparse matrix whose product with values sums them by code, with weights, `[codes, values]`."""
    from scipy.sparse import csr_array

    shape = (int(codes.max()) + 1 if n is None else n, len(codes))
    return csr_array((weight, (codes, np.arange(len(codes)))), shape=shape)


def sorted_within(order: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Indices in drawn order within each group, `[indices, n]`: group, drawn number of 24 bits and index are sorted as
    one number, the group from bit 44 on. `order` is `[n, indices]`, and `group` `[indices]`."""
    key = (group.astype(np.uint64) << np.uint64(44)) | np.arange(len(group), dtype=np.uint64)
    together = (order.astype(np.uint64) << np.uint64(20)) | key
    together.sort(axis=1)
    return np.ascontiguousarray((together & _MASK).T).astype(np.intp)


@dataclass(frozen=True, eq=False)
class Permutations:
    """A score, and its values under permutations of subjects.

    Two statistics are tested: the score itself, and the score divided by the root of its spread over subjects. The
    second stays valid where subjects are in several relations or differ in size. The p-value is the larger of the two.
    Tails are doubled, because the distribution is skewed where most counts are zero.
    """

    score: float
    spread: float
    scores: np.ndarray
    spreads: np.ndarray

    @classmethod
    def of(cls, facts: Comparable, n_permutations: int, seed: int) -> Permutations:
        return cls(*score_and_spread(facts), *permuted_scores([facts], n_permutations, seed)[0])

    @property
    def variance(self) -> float:
        """The variance of the score if frequency has no influence; 0 if no permutation changes the score."""
        return float((self.score**2 + (self.scores**2).sum()) / (1 + len(self.scores)))

    @property
    def studentised(self) -> np.ndarray:
        return self.scores / np.sqrt(np.maximum(self.spreads, 1e-300))

    @property
    def p(self) -> float:
        if self.variance <= 0:
            return 1.0
        t = self.score / np.sqrt(max(self.spread, 1e-300))
        return max(_doubled(t, self.studentised), _doubled(self.score, self.scores))

    @property
    def least_p(self) -> float:
        """The smallest p-value that these facts could give: that of the most extreme permutation."""
        if self.variance <= 0:
            return 1.0
        return max(
            min(_doubled(float(values.max()), values), _doubled(float(values.min()), values))
            for values in (self.studentised, self.scores)
        )


def _doubled(value: float, permuted: np.ndarray) -> float:
    """Twice the smaller tail, the observed value counted in."""
    slack = 1e-9 * max(1.0, abs(value))
    above, below = int((permuted >= value - slack).sum()), int((permuted <= value + slack).sum())
    return min(1.0, 2 * (1 + min(above, below)) / (1 + len(permuted)))
