"""Conditional logistic regression: the log odds of an outcome per unit of x, given how often each relation has it.

A dummy variable for each relation would bias the coefficient where relations are small (Neyman & Scott 1948): with 3
facts a relation, a true .70 is estimated as 1.14. Conditioning on each relation's number of events removes the
relations' own rates altogether (Cox & Snell 1989, section 2.1). Where a relation has more than 40 prompts with the
outcome and more than 40 without it, its rate is fitted instead; the result then differs by less than 2 %.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from laser_interp.cluster_intervals import as_tested
from laser_interp.statistics.subject_permutation import Comparable, Permutations, by_group, starts

_EXACT = 40  # events (or others) of a relation, up to which the condition is exact


class _Step(NamedTuple):
    """One event more: the leading facts and groups that have so many."""

    k: int
    n: int  # leading facts
    first: np.ndarray  # [groups], the first fact of each
    group: np.ndarray  # [n]
    part: np.ndarray | None  # [n], the fraction of an event that remains; None: one for each


class ConditionalLogistic:
    """The expected outcomes of facts, given each relation's number of events, as a function of the coefficient."""

    def __init__(self, facts: Comparable) -> None:
        self.facts = facts
        self.size = by_group(facts.relation, facts.prompts)
        events = by_group(facts.relation, facts.prompts * facts.outcome)
        self.swapped = events > self.size / 2  # the rarer outcome is counted
        self.events = np.where(self.swapped, self.size - events, events)
        self.start = np.log(self.events / (self.size - self.events))
        self.centre = by_group(facts.relation, facts.prompts * facts.x) / self.size
        exact = self.events <= _EXACT
        self.fitted = ~exact
        # The facts of exact relations, those with most events first: each step of the recursion takes a leading part.
        chosen = np.flatnonzero(exact[facts.relation])
        self.chosen = chosen[np.argsort(-self.events[facts.relation[chosen]], kind="stable")]
        relation = facts.relation[self.chosen]
        new = starts(relation)
        self.first = np.flatnonzero(new)
        self.group = new.cumsum() - 1
        self.steps = self._recursion(self.events[relation[self.first]])
        self.scores: dict[float, tuple[float, float, float]] = {}

    def _recursion(self, events: np.ndarray) -> list[_Step]:
        """The steps of the recursion over the number of events; `events` are those of the groups, `[groups]`."""
        steps = []
        for k in range(1, int(np.ceil(events.max(initial=0) - 1e-9)) + 1):
            n_groups = int(np.searchsorted(-events, -(k - 1), side="left"))
            n = self.first[n_groups] if n_groups < len(self.first) else len(self.chosen)
            part = np.minimum(events[:n_groups] - (k - 1), 1.0)
            whole = bool((part == 1).all())
            steps.append(_Step(k, n, self.first[:n_groups], self.group[:n], None if whole else part[self.group[:n]]))
        return steps

    @property
    def scale(self) -> float:
        """Standard deviation of x within relations."""
        facts = self.facts
        return float(np.sqrt(np.average((facts.x - self.centre[facts.relation]) ** 2, weights=facts.prompts)))

    def probabilities(self, coefficient: float) -> np.ndarray:
        """The probability of the outcome for each fact, `[facts]`."""
        facts = self.facts
        sign = np.where(self.swapped, -1.0, 1.0)[facts.relation]
        logit = coefficient * sign * (facts.x - self.centre[facts.relation])
        p = np.empty(len(facts.x))
        if self.fitted.any():
            inside = np.flatnonzero(self.fitted[facts.relation])
            p[inside] = self._with_fitted_rates(facts.relation[inside], logit[inside], facts.prompts[inside])
        if len(self.chosen):
            p[self.chosen] = self._given_events(logit[self.chosen], facts.prompts[self.chosen])
        return np.where(self.swapped[facts.relation], 1 - p, p)

    def _with_fitted_rates(self, relation: np.ndarray, logit: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        from scipy.special import expit

        rate = self.start.copy()
        n = len(rate)
        for _ in range(60):
            p = expit(rate[relation] + logit)
            missing = self.events - np.bincount(relation, prompts * p, n)
            slope = np.maximum(np.bincount(relation, prompts * p * (1 - p), n), 1e-10)
            step = np.where(self.fitted, np.clip(missing / slope, -2, 2), 0)
            rate += step
            if np.abs(step).max() < 1e-9:
                break
        return expit(rate[relation] + logit)

    def _given_events(self, logit: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """p after k events = k · odds · (1 − p after k − 1) / their sum; fractions of an event are interpolated."""
        odds = np.exp(np.maximum(logit - np.maximum.reduceat(logit, self.first)[self.group], -600))
        before, out = np.zeros(len(odds)), np.zeros(len(odds))
        for k, n, first, group, part in self.steps:
            free = odds[:n] * (1 - before[:n])
            total = np.add.reduceat(prompts[:n] * free, first)
            after = np.minimum(free * (k / np.maximum(total, 1e-300))[group], 1)
            out[:n] = after if part is None else (1 - part) * before[:n] + part * after
            before[:n] = after
        return out

    def score(self, coefficient: float) -> tuple[float, float, float]:
        """The score, its information, and the sum of squares of its parts by subject. Each is computed once."""
        if coefficient not in self.scores:
            self.scores[coefficient] = self._score(coefficient)
        return self.scores[coefficient]

    def _score(self, coefficient: float) -> tuple[float, float, float]:
        facts, relation = self.facts, self.facts.relation
        p = self.probabilities(coefficient)
        spread = facts.weight * np.clip(p * (1 - p), 1e-300, None)
        of_relation = by_group(relation, spread)
        residual = facts.weight * (facts.outcome - p)
        residual = residual - spread * (by_group(relation, residual) / of_relation)[relation]
        x = facts.x - (by_group(relation, spread * facts.x) / of_relation)[relation]
        parts = by_group(facts.subject, residual * x)
        return float(parts.sum()), float((spread * x * x).sum()), float((parts**2).sum())

    def estimate(self) -> float:
        """The coefficient; ±infinity where the outcome is separated by x within every relation."""
        if side := separation(self.facts):
            return side * float("inf")
        return _root(lambda b: self.score(b)[0], 0.0, 0.5 / self.scale, 40 / self.scale)

    def interval(self, permutations: Permutations, estimate: float, level: float) -> tuple[float, float]:
        """The coefficients that the permutations do not reject; an end is infinite where nothing bounds it.

        Both statistics of `Permutations` are inverted, with the quantiles that they have under permutation, and the
        wider end is taken. If the p-value does not reject 0, 0 is inside.
        """
        ratio = permutations.variance / self.score(0.0)[1]
        permuted = ((permutations.studentised, True), (permutations.scores / np.sqrt(permutations.variance), False))
        ends = [self._inverted(values, own_spread, ratio, estimate, level) for values, own_spread in permuted]
        lo, hi = min(end[0] for end in ends), max(end[1] for end in ends)
        rejects = permutations.p <= 1 - level
        if not rejects and not np.isfinite(estimate):
            return -np.inf, np.inf
        return as_tested(permutations.score, lo, hi, rejects=rejects)

    def _inverted(
        self, permuted: np.ndarray, own_spread: bool, ratio: float, estimate: float, level: float
    ) -> tuple[float, float]:
        values = np.sort(permuted)
        k = max(int((1 - level) / 2 * (len(values) + 1) + 1e-9), 1)
        low, high = float(values[k - 1]), float(values[len(values) - k])

        def statistic(coefficient: float) -> float:
            score, information, spread = self.score(coefficient)
            return score / np.sqrt(max(spread if own_spread else ratio * information, 1e-300))

        start = estimate if np.isfinite(estimate) else 0.0
        step, limit = 0.3 / self.scale, 30 / self.scale
        lo, hi = -np.inf, np.inf
        if estimate != -np.inf:
            lo = _root(lambda b: statistic(b) - high - 1e-7, start, step, limit) if high > 0 else start
        if estimate != np.inf:
            hi = _root(lambda b: statistic(b) - low + 1e-7, start, step, limit) if low < 0 else start
        return (lo if lo != np.inf else -np.inf), (hi if hi != -np.inf else np.inf)


def separation(facts: Comparable) -> int:
    """1: in each relation every fact with the outcome has at least the x of every other; -1: at most; 0: neither."""
    n = facts.n_relations
    ends = {}
    for name, chosen in (("with", facts.outcome > 0), ("without", facts.outcome < 1)):
        lowest, highest = np.full(n, np.inf), np.full(n, -np.inf)
        np.minimum.at(lowest, facts.relation[chosen], facts.x[chosen])
        np.maximum.at(highest, facts.relation[chosen], facts.x[chosen])
        ends[name] = lowest, highest
    if (ends["with"][0] >= ends["without"][1]).all():
        return 1
    return -1 if (ends["with"][1] <= ends["without"][0]).all() else 0


def _root(decreasing: Callable[[float], float], start: float, step: float, limit: float) -> float:
    """Where a decreasing function is 0; ±infinity where it is not within the limit."""
    from scipy.optimize import brentq

    a, at_a = start, decreasing(start)
    step = step if at_a > 0 else -step
    while abs(a - start) <= limit:
        b = a + step
        at_b = decreasing(b)
        if (at_b > 0) != (at_a > 0):
            zero: Any = brentq(decreasing, min(a, b), max(a, b), xtol=1e-6)
            return float(zero)
        a, at_a, step = b, at_b, 2 * step
    return float(np.copysign(np.inf, step))
