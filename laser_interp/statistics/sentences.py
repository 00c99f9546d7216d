"""What was found, in words. Numbers come in; nothing is computed here."""

from typing import Any

import numpy as np

from laser_interp.statistics.bootstrap import LEVEL

NOTHING_SHOWN = "no association that this sample can show"


def interval(row: Any) -> str:
    """A rank correlation with its interval."""
    return f"{row['rho']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]"


def direction(row: Any, negative: str, positive: str) -> str:
    """What a rank correlation shows, by the side of 0 on which its interval lies."""
    if not (np.isfinite(row["lo"]) and np.isfinite(row["hi"])) or row["lo"] <= 0 <= row["hi"]:
        return NOTHING_SHOWN
    return negative if row["rho"] < 0 else positive


def association(a: Any) -> str:
    """The paragraph of an `Association`."""
    over = f"Over {a.n_facts} facts of {a.n_subjects} subjects"
    lines = _accuracy_alone(a, over) if a.edit is None else _gains(a, over)
    return " ".join(line for line in lines if line)


def _accuracy_alone(a: Any, over: str) -> list[str]:
    row = a.spearman.loc["accuracy"]
    verdict = direction(row, "frequent facts are known less well", "frequent facts are known better")
    return [
        f"{over}, accuracy correlates with training frequency at Spearman {interval(row)}: {verdict}.",
        _odds(a, "accuracy", "an answer being right", ""),
        _power(a, "accuracy"),
    ]


def _gains(a: Any, over: str) -> list[str]:
    s = a.spearman
    change, lo, hi = (100 * value for value in a.change)
    top1 = direction(s.loc["top1"], "the gains fall on rare facts", "the gains fall on frequent facts")
    lines = [
        f"{over}, accuracy changes by {change:+.1f} points [{lo:+.1f}, {hi:+.1f}].",
        f"The change in top-1 accuracy correlates with training frequency at Spearman {interval(s.loc['top1'])}: "
        f"{top1}, the pattern of the paper's plots.",
    ]
    if "logprob" in s.index:
        verdict = direction(s.loc["logprob"], "rare facts gain more", "frequent facts gain more")
        lines.append(f"For the change in log-probability it is {interval(s.loc['logprob'])}: {verdict}.")
    if a.threshold:
        lines.append(
            "An answer counts as right here where its probability is above one half, which is certain to be the "
            "most probable; with top-1 given, more would be."
        )
    if "fixed" in s.index:
        verdict = direction(s.loc["fixed"], "rare ones are fixed more often", "frequent ones are fixed more often")
        lines.append(
            "Accuracy can only rise where it was low, so the fairer question is which of the wrong answers are "
            "fixed: among prompts wrong before, being fixed correlates with frequency at "
            f"{interval(s.loc['fixed'])}: {verdict}."
        )
    lines.append(_odds(a, "frequency", "a wrong answer being fixed", ""))
    held = ", with subject and object frequency held fixed,"
    lines.append(_odds(a, "confounders", "a wrong answer being fixed", held))
    row = a.term("pmi")
    if row is not None:
        lines.append(
            "With pointwise mutual information in place of frequency the odds ratio is "
            f"{row['odds_ratio']:.2f} [{row['odds_lo']:.2f}, {row['odds_hi']:.2f}] per unit (p = {row['p']:.2g})."
        )
    row = a.term("broken")
    if row is not None:
        lines.append(
            f"Of a right answer being broken it is {row['odds_ratio']:.2f} "
            f"[{row['odds_lo']:.2f}, {row['odds_hi']:.2f}] per tenfold frequency (p = {row['p']:.2g})."
        )
    lines.append(_power(a, "frequency"))
    lines.append(
        "This is an association: facts that differ in frequency differ in other things, and none of it says that "
        "frequency is the cause."
    )
    return lines


def _odds(a: Any, model: str, of: str, held: str) -> str:
    row = a.term(model)
    if row is not None:
        return (
            f"In a logistic regression{held} tenfold frequency multiplies the odds of {of} "
            f"by {row['odds_ratio']:.2f} [{row['odds_lo']:.2f}, {row['odds_hi']:.2f}] "
            f"(p = {row['p']:.2g}): {'an association' if row['p'] < 1 - LEVEL else NOTHING_SHOWN}."
        )
    problem = a.regression.attrs.get("problems", {}).get(model)
    return f"The logistic regression{held} could not be estimated: {problem}." if problem else ""


def _power(a: Any, model: str) -> str:
    least = a.detectable(model)
    if not np.isfinite(least):
        return ""
    return (
        f"A sample of this size and spread shows an odds ratio of {least:.2f} or more per tenfold frequency (or "
        f"{1 / least:.2f} or less) in 80% of cases; it could well have missed a smaller one."
    )


def comparison(c: Any) -> str:
    """The paragraph of a `Comparison`."""
    m = len(c.table)
    lines = [f"Of {m} edits compared with {c.baseline!r}, with intervals that hold for all {m} at once:"]
    placebo = c.table["placebo"]
    for prefix, rows in (("", c.table[~placebo]), ("placebo ", c.table[placebo])):
        for row in rows.to_dict("records"):
            odds = (
                f"the odds of a wrong answer being fixed change by a factor of {row['odds_ratio']:.2f} "
                f"[{row['odds_lo']:.2f}, {row['odds_hi']:.2f}] per tenfold frequency (Holm p = {row['p_holm']:.2g})"
                if np.isfinite(row["odds_ratio"])
                else f"no odds ratio can be estimated ({row['problem']})"
            )
            lines.append(
                f"{prefix}{row['edit']}: accuracy {100 * row['change']:+.1f} points "
                f"[{100 * row['change_lo']:+.1f}, {100 * row['change_hi']:+.1f}]; {odds}."
            )
    return " ".join(lines)
