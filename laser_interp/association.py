"""Do the gains fall on rare facts? Frames in, frames out.

A gain in accuracy is high wherever the accuracy before was low, so the paper's own plots appear even
where an edit ignores frequency. What it does to rare facts is therefore asked where it can be told:
among the answers that were wrong before, how many are fixed; among those right before, how many are
broken. Intervals resample subjects, because a subject's facts and paraphrases stand or fall together.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

PAPER_BINS = (0, 50, 1000, np.inf)  # section 5.1


@dataclass(frozen=True)
class Association:
    """What was found about one edit.

    Attributes:
        rows: one row per (fact, prompt): before and after, and the counts.
        bins: equal-count bins of frequency (facts never seen in a bin of their own): accuracy before and
            after, P(fixed | wrong before), P(broken | right before), each with a 95 % interval.
        cumulative: the paper's first plot: accuracy on facts of frequency ≤ N, before and after.
        paper_ratio: the paper's second plot: corrected ÷ originally correct in its three bins.
        spearman: rank correlations with frequency, over facts: of the change in top-1, of the change
            in log-probability, and of being fixed among those wrong before; each with a 95 %
            interval, and with the p-value of permuting the frequencies.
        regression: logistic regressions of "fixed", among prompts wrong before, with errors clustered by
            subject, one row per (model, term): the model "frequency" has log10(1 + n_both) and the
            relation, the model "confounders" also log n_subject and log n_object. A model that cannot be
            estimated is missing; `regression.attrs["problems"]` says why.
        baseline, edit: the labels compared.
        n_facts, n_subjects: how many.
    """

    rows: pd.DataFrame
    bins: pd.DataFrame
    cumulative: pd.DataFrame
    paper_ratio: pd.DataFrame
    spearman: pd.DataFrame
    regression: pd.DataFrame
    baseline: str
    edit: str
    n_facts: int
    n_subjects: int

    @property
    def p_value(self) -> float:
        """Of the association of *fixed, given wrong before* with frequency (the regression's model
        "frequency"); NaN if not estimable."""
        row = self._term("frequency")
        return float("nan") if row is None else float(row["p"])

    def _term(self, model: str) -> pd.Series | None:
        rows = self.regression[(self.regression["model"] == model) & (self.regression["term"] == "log10_n_both")]
        return None if rows.empty else rows.iloc[0]

    @property
    def paragraph(self) -> str:
        """What was found, in plain English, with its uncertainty."""
        s = self.spearman
        sentences = [
            f"Over {self.n_facts} facts of {self.n_subjects} subjects, the change in top-1 accuracy correlates with "
            f"training frequency at Spearman {_interval(s.loc['top1'])}: "
            + _direction(s.loc["top1"], "the gains fall on rare facts", "the gains fall on frequent facts")
            + ".",
            f"For the change in log-probability it is {_interval(s.loc['logprob'])}: "
            + _direction(s.loc["logprob"], "rare facts gain more", "frequent facts gain more")
            + ".",
        ]
        if "fixed" in s.index:
            sentences.append(
                "Accuracy can only rise where it was low, so the fairer question is which of the wrong answers are "
                "fixed: among prompts wrong before, being fixed correlates with frequency at "
                f"{_interval(s.loc['fixed'])}: "
                + _direction(s.loc["fixed"], "rare ones are fixed more often", "frequent ones are fixed more often")
                + "."
            )
        for model, told in (("frequency", ""), ("confounders", ", with subject and object frequency held fixed,")):
            row = self._term(model)
            if row is not None:
                sentences.append(
                    f"In a logistic regression{told} tenfold frequency multiplies the odds of a wrong answer being "
                    f"fixed by {row['odds_ratio']:.2f} [{row['odds_lo']:.2f}, {row['odds_hi']:.2f}] "
                    f"(p = {row['p']:.2g}): "
                    + ("an association" if row["p"] < 0.05 else "no association that this sample can show")
                    + "."
                )
            elif problem := self.regression.attrs.get("problems", {}).get(model):
                sentences.append(f"The logistic regression{told} could not be estimated: {problem}.")
        return " ".join(sentences)

    def _repr_html_(self) -> str:
        return f"<p>{self.paragraph}</p>{self.bins.round(3).to_html(index=False)}"


def _interval(row: Any) -> str:
    return f"{row['rho']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]"


def _direction(row: Any, negative: str, positive: str) -> str:
    if not (np.isfinite(row["lo"]) and np.isfinite(row["hi"])) or row["lo"] <= 0 <= row["hi"]:
        return "no association that this sample can show"
    return negative if row["rho"] < 0 else positive


@dataclass(frozen=True)
class Gain:
    """Change of top-1 accuracy by an edit, with a 95 % interval from a bootstrap over subjects.

    Attributes:
        change, lo, hi: of the share of prompts answered right, after minus before.
        n_fixed, n_broken, n: prompts.
    """

    change: float
    lo: float
    hi: float
    n_fixed: int
    n_broken: int
    n: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval lies above zero."""
        return self.lo > 0

    def __str__(self) -> str:
        told = "a gain" if self.is_shown else "a loss" if self.hi < 0 else "no gain that this sample can show"
        return (
            f"top-1 changes by {100 * self.change:+.1f} points [{100 * self.lo:+.1f}, {100 * self.hi:+.1f}] over "
            f"{self.n} prompts ({self.n_fixed} fixed, {self.n_broken} broken): {told}"
        )


def gain(
    scores: pd.DataFrame, *, baseline: str = "base", edit: str = "laser", n_boot: int = 1000, seed: int = 0
) -> Gain:
    """How much an edit gains, and whether the sample can show it.

    Args:
        scores: from `li.score`; where it holds a split named "test", only that is used.

    Raises:
        ValueError: see `pair`.
    """
    rows = pair(_reported(scores).assign(frequency=0.0), None, baseline=baseline, edit=edit)
    change = rows["top1_after"].to_numpy(float) - rows["top1_before"].to_numpy(float)
    boot = _Bootstrap(rows["subject"], n_boot, seed)
    total = np.bincount(boot.codes, weights=change, minlength=boot.n)
    size = np.bincount(boot.codes, minlength=boot.n)
    lo, hi = np.quantile((boot.weights @ total) / (boot.weights @ size), [0.025, 0.975])
    return Gain(
        float(change.mean()), float(lo), float(hi), int((change > 0).sum()), int((change < 0).sum()), len(change)
    )


def _reported(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows that may be reported: the test half, where there is one, because the edit was chosen on the rest."""
    return scores[scores["split"] == "test"] if "test" in set(scores["split"]) else scores


def pair(scores: pd.DataFrame, counts: pd.DataFrame | None, *, baseline: str, edit: str) -> pd.DataFrame:
    """One row per (fact, prompt): scores before and after, joined with the counts.

    Without counts, the `frequency` that the fact set carries stands for `n_both`.

    Raises:
        ValueError: an unknown label, facts without a count, or two labels scored on different prompts.
    """
    have = sorted(set(scores["edit"]))
    for label in (baseline, edit):
        if label not in have:
            raise ValueError(f"no scores of the edit {label!r}: the table has {have}")
    keys = ["fact_id", "prompt_id"]
    values = ["top1", "top10", "logprob"]
    before = scores.loc[scores["edit"] == baseline, [*keys, "subject", "relation", "frequency", *values]]
    after = scores.loc[scores["edit"] == edit, [*keys, *values]]
    for name, frame in ((baseline, before), (edit, after)):
        if frame.duplicated(keys).any():
            raise ValueError(f"the scores of {name!r} hold a prompt more than once: score each edit once")
    rows = before.merge(after, on=keys, how="outer", suffixes=("_before", "_after"), indicator=True)
    if (unmatched := int((rows["_merge"] != "both").sum())) > 0:
        raise ValueError(
            f"{unmatched} prompts were scored under one of {baseline!r} and {edit!r} only: score both alike"
        )
    rows = rows.drop(columns="_merge")
    if counts is None:
        rows["n_both"] = rows["frequency"]
    else:
        columns = ["fact_id", *(c for c in ("n_both", "n_subject", "n_object") if c in counts.columns)]
        if "n_both" not in columns:
            raise ValueError(f"the counts have no column 'n_both': they have {', '.join(counts.columns)}")
        if counts["fact_id"].duplicated().any():
            raise ValueError("the counts hold a fact more than once: expected one row a fact_id")
        rows = rows.merge(counts[columns], on="fact_id", how="left")
    if (missing := rows.loc[rows["n_both"].isna(), "fact_id"].unique()).size:
        raise ValueError(f"no frequency for {missing.size} facts, {missing[0]!r} among them: count them, or drop them")
    if (rows["n_both"] < 0).any():
        raise ValueError("a frequency is negative: expected counts")
    return rows.drop(columns="frequency")


def frequency_bins(n_both: pd.Series, n_bins: int) -> pd.Series:
    """Bin number of each fact: 0 for never seen, then bins of about equal numbers of facts.

    Equal counts never straddle an edge, so ties may make bins unequal or fewer.
    """
    seen = n_both[n_both > 0]
    if seen.empty:
        return pd.Series(0, index=n_both.index)
    edges = np.unique(np.quantile(np.log1p(seen), np.linspace(0, 1, n_bins + 1)[1:-1]))
    return pd.Series(np.where(n_both > 0, 1 + np.searchsorted(edges, np.log1p(n_both), side="left"), 0), n_both.index)


class _Bootstrap:
    """Draws of subjects with replacement, the same for everything that is estimated."""

    def __init__(self, subjects: pd.Series, n_boot: int, seed: int) -> None:
        self.codes, labels = pd.factorize(subjects)
        self.n = len(labels)
        rng = np.random.default_rng(seed)
        self.draws = rng.integers(self.n, size=(n_boot, self.n))
        self.weights = np.zeros((n_boot, self.n))
        np.add.at(self.weights, (np.arange(n_boot)[:, None], self.draws), 1)

    def rate(self, hit: np.ndarray, among: np.ndarray) -> tuple[float, float, float]:
        """Share of hits among the chosen rows, and its 95 % interval.

        Where nothing or everything was hit, resampling sees no spread; the exact binomial bound on
        the number of subjects is given instead.
        """
        hits = np.bincount(self.codes, weights=hit & among, minlength=self.n)
        size = np.bincount(self.codes, weights=among, minlength=self.n)
        if size.sum() == 0:
            return np.nan, np.nan, np.nan
        share = float(hits.sum() / size.sum())
        if share in (0.0, 1.0):
            slack = 1 - 0.025 ** (1 / np.count_nonzero(size))
            return share, max(0.0, share - slack), min(1.0, share + slack)
        with np.errstate(invalid="ignore"):
            drawn = (self.weights @ hits) / (self.weights @ size)
        drawn = drawn[np.isfinite(drawn)]
        lo, hi = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
        return share, float(lo), float(hi)

    def correlate(self, x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
        """Spearman's rho, its 95 % interval, and the p-value of permuting `x`."""
        members = [np.flatnonzero(self.codes == s) for s in range(self.n)]
        drawn = []
        for draw in self.draws:
            rows = np.concatenate([members[s] for s in draw])
            drawn.append(_spearman(x[rows], y[rows]))
        finite = np.array(drawn)[np.isfinite(drawn)]
        lo, hi = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
        rho = _spearman(x, y)
        rng = np.random.default_rng(seed)
        permuted = np.array([_spearman(rng.permutation(x), y) for _ in range(len(self.draws))])
        p = (1 + np.sum(np.abs(permuted) >= abs(rho) - 1e-12)) / (1 + len(permuted)) if np.isfinite(rho) else np.nan
        return {"rho": rho, "lo": float(lo), "hi": float(hi), "p_permuted": float(p), "n": float(len(x))}


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.stats import rankdata

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def associate(
    scores: pd.DataFrame,
    counts: pd.DataFrame | None = None,
    *,
    baseline: str = "base",
    edit: str = "laser",
    n_bins: int = 8,
    n_boot: int = 1000,
    seed: int = 0,
) -> Association:
    """Relate an edit's gains in score to how often training showed each fact.

    Args:
        scores: from `li.score`. Where it holds a split named "test", only that is used: the edit was
            chosen on the rest.
        counts: from `li.count`; None takes the `frequency` of the fact set.
        baseline, edit: labels in `scores`.
        n_bins: bins of frequency, besides the one for facts never seen.
        n_boot, seed: of the bootstrap over subjects and the permutations.

    Raises:
        ValueError: see `pair`.
    """
    rows = pair(_reported(scores), counts, baseline=baseline, edit=edit)
    wrong = ~rows["top1_before"].to_numpy(bool)
    right_after = rows["top1_after"].to_numpy(bool)
    rows["fixed"] = wrong & right_after
    rows["broken"] = ~wrong & ~right_after
    per_fact = rows.groupby("fact_id", sort=True).agg(subject=("subject", "first"), n_both=("n_both", "first"))
    rows["bin"] = rows["fact_id"].map(frequency_bins(per_fact["n_both"], n_bins))
    boot = _Bootstrap(rows["subject"], n_boot, seed)
    return Association(
        rows=rows,
        bins=_binned(rows, boot),
        cumulative=_cumulative(rows),
        paper_ratio=_paper_ratio(rows),
        spearman=_correlations(rows, n_boot, seed),
        regression=_regression(rows),
        baseline=baseline,
        edit=edit,
        n_facts=len(per_fact),
        n_subjects=int(rows["subject"].nunique()),
    )


def _binned(rows: pd.DataFrame, boot: _Bootstrap) -> pd.DataFrame:
    before, after = rows["top1_before"].to_numpy(bool), rows["top1_after"].to_numpy(bool)
    out = []
    for number, members in rows.groupby("bin", sort=True):
        inside = (rows["bin"] == number).to_numpy()
        row: dict[str, Any] = {
            "lo": members["n_both"].min(),
            "hi": members["n_both"].max(),
            "n": len(members),
            "n_facts": members["fact_id"].nunique(),
            "n_wrong": int((inside & ~before).sum()),
        }
        for name, hit, among in (
            ("base_top1", before, inside),
            ("edit_top1", after, inside),
            ("p_fixed_given_wrong", after, inside & ~before),
            ("p_broken_given_right", ~after, inside & before),
        ):
            row[name], row[f"{name}_lo"], row[f"{name}_hi"] = boot.rate(hit, among)
        out.append(row)
    return pd.DataFrame(out)


def _cumulative(rows: pd.DataFrame) -> pd.DataFrame:
    metrics = ["top1_before", "top1_after", "top10_before", "top10_after"]
    ordered = rows.sort_values("n_both", kind="stable")
    means = ordered[metrics].astype(float).cumsum().div(np.arange(1, len(ordered) + 1), axis=0)
    means["n_both"], means["n"] = ordered["n_both"], np.arange(1, len(ordered) + 1)
    return means.groupby("n_both", as_index=False).last()


def _paper_ratio(rows: pd.DataFrame) -> pd.DataFrame:
    label = pd.cut(rows["n_both"], PAPER_BINS, right=False, labels=["< 50", "50-1000", "> 1000"])
    out = rows.groupby(label, observed=False).agg(
        n=("fixed", "size"), n_corrected=("fixed", "sum"), n_originally_correct=("top1_before", "sum")
    )
    out["ratio"] = out["n_corrected"] / out["n_originally_correct"].where(out["n_originally_correct"] > 0)
    return out.reset_index(names="frequency")


def _correlations(rows: pd.DataFrame, n_boot: int, seed: int) -> pd.DataFrame:
    """Over facts: a fact's prompts share its frequency, so each fact is one observation."""
    work = rows.assign(
        d_top1=rows["top1_after"].astype(float) - rows["top1_before"].astype(float),
        d_logprob=rows["logprob_after"] - rows["logprob_before"],
    )

    def over_facts(chosen: pd.DataFrame, column: str) -> dict[str, float]:
        facts = chosen.groupby("fact_id", sort=True).agg(
            subject=("subject", "first"), n_both=("n_both", "first"), value=(column, "mean")
        )
        facts = facts[np.isfinite(facts["value"])]
        boot = _Bootstrap(facts["subject"], n_boot, seed)
        return boot.correlate(facts["n_both"].to_numpy(float), facts["value"].to_numpy(float), seed + 1)

    found = {"top1": over_facts(work, "d_top1"), "logprob": over_facts(work, "d_logprob")}
    wrong = work[~work["top1_before"].astype(bool)]
    if wrong["fact_id"].nunique() >= 3:
        found["fixed"] = over_facts(wrong, "fixed")
    return pd.DataFrame(found).T


def _regression(rows: pd.DataFrame) -> pd.DataFrame:
    wrong = rows[~rows["top1_before"].astype(bool)]
    confounders = [c for c in ("n_subject", "n_object") if c in wrong.columns]
    found, problems = [], {}
    for model, columns in (("frequency", []), ("confounders", confounders)):
        if model == "frequency" or columns:
            try:
                found.append(_logistic(wrong, columns).assign(model=model))
            except ValueError as error:
                problems[model] = str(error)
    columns = ["model", "term", "coefficient", "se", "p", "odds_ratio", "odds_lo", "odds_hi"]
    out = pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)
    out.attrs["problems"] = problems
    return out


def _logistic(wrong: pd.DataFrame, confounders: list[str]) -> pd.DataFrame:
    """One logistic regression of "fixed".

    Raises:
        ValueError: it cannot be estimated; the message says why.
    """
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

    fixed = wrong["fixed"].astype(float)
    if fixed.nunique() < 2:
        raise ValueError(f"of {len(fixed)} prompts wrong before, {'all' if fixed.any() else 'none'} were fixed")
    if wrong["n_both"].nunique() < 2:
        raise ValueError("all facts wrong before have the same frequency")
    design = pd.DataFrame({"log10_n_both": np.log10(1 + wrong["n_both"].astype(float))})
    for column in confounders:
        design[f"log_{column}"] = np.log(wrong[column].clip(lower=1).astype(float))
    design = design.loc[:, design.nunique() > 1]
    relations = pd.get_dummies(wrong["relation"], prefix="relation", drop_first=True, dtype=float)
    design = sm.add_constant(pd.concat([design, relations], axis=1), has_constant="add")
    if np.linalg.matrix_rank(np.asarray(design)) < design.shape[1]:
        raise ValueError("frequencies and relations are collinear among the prompts wrong before")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", category=RuntimeWarning)
            warnings.simplefilter("error", category=PerfectSeparationWarning)
            fit = sm.GLM(fixed, design, family=sm.families.Binomial()).fit(
                cov_type="cluster", cov_kwds={"groups": pd.factorize(wrong["subject"])[0]}
            )
    except (RuntimeWarning, PerfectSeparationWarning, np.linalg.LinAlgError) as error:
        raise ValueError(f"the fit did not converge ({error})") from error
    interval = fit.conf_int()
    table = pd.DataFrame(
        {
            "coefficient": fit.params,
            "se": fit.bse,
            "p": fit.pvalues,
            "odds_ratio": np.exp(fit.params),
            "odds_lo": np.exp(interval[0]),
            "odds_hi": np.exp(interval[1]),
        }
    )
    return table.reset_index(names="term")
