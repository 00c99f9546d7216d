"""What was found, in words. Numbers come in; nothing is computed here.

Each sentence is chosen from the direction of a result, its size and its certainty. A paragraph has six sentences at
most: what changed, for which facts, how sure that is, and what could have been missed. The rest is in the tables.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.statistics.cluster_intervals import LEVEL
from laser_interp.statistics.formatting import interval, odds_ratio, p_value, points

NOTHING_SHOWN = "no association that this sample can show"


def _rank_correlation(row: Any) -> str:
    """With its interval and its p-value, where there are some."""
    text = interval(row["rho"], row["lo"], row["hi"], "+.2f")
    return text if pd.isna(row["p"]) else f"{text}, {p_value(row['p'])}"


def is_shown(p: Any) -> bool:
    """Whether a p-value refuses chance at the 5 % level; one that could not be computed does not."""
    return not pd.isna(p) and float(p) <= 1 - LEVEL


def association(a: Any) -> str:
    """The paragraph of an `Association`."""
    over = f"Over {a.n_facts} facts of {a.n_subjects} subject{'' if a.n_subjects == 1 else 's'}"
    lines = _accuracy_alone(a, over) if a.edit is None else _gains(a, over)
    return " ".join(line for line in lines if line)


def _accuracy_alone(a: Any, over: str) -> list[str]:
    row, effect = a.spearman.loc["accuracy"], a.effect("accuracy")
    known = _correlation(row, "accuracy", "frequent facts are known better", "frequent facts are known less well")
    of = "an answer being right"
    return [
        f"{over}, {known}",
        _odds(effect, of, "frequent facts are right more often", "rare facts are right more often"),
        "" if is_shown(effect["p"]) else _missed(effect),
        _CAUSE,
    ]


_CAUSE = "This is an association: facts that differ in frequency differ in other things too."


def _gains(a: Any, over: str) -> list[str]:
    main = a.effect("frequency")
    return [
        f"{over}, {a.change}.",
        _pattern(a.spearman.loc["top1"]),
        _odds(
            main, "a wrong answer being fixed", "frequent facts are fixed more often", "rare facts are fixed more often"
        ),
        _threshold() if a.threshold else _adjusted(a),
        _broken(a) if is_shown(main["p"]) else _missed(main),
        _CAUSE,
    ]


def _pattern(row: Any) -> str:
    """What the paper plots, and why it does not answer the question."""
    if pd.isna(row["p"]):
        return ""
    if not is_shown(row["p"]):
        return f"The gain itself shows no trend with frequency (Spearman {_rank_correlation(row)})."
    found = f"Spearman {_rank_correlation(row)}"
    if row["rho"] > 0:
        return f"The gain is larger on frequent facts ({found}), the opposite of the paper's plots."
    return (
        f"The gain is larger on rare facts ({found}), as in the paper's plots; but accuracy can only rise where it was "
        "low, so what counts is which of the wrong answers are fixed."
    )


def _known(row: Any) -> bool:
    return bool(np.isfinite(row["rho"]))


def _correlation(row: Any, what: str, positive: str, negative: str) -> str:
    if not _known(row):
        return f"the rank correlation of {what} with frequency is not defined, because one of them is always the same."
    verdict = (positive if row["rho"] > 0 else negative) if is_shown(row["p"]) else NOTHING_SHOWN
    return f"{what} correlates with training frequency at Spearman {_rank_correlation(row)}: {verdict}."


def _odds(row: Any, of: str, positive: str, negative: str) -> str:
    if pd.isna(row["p"]):
        return f"Whether frequency changes the odds of {of} cannot be told, because {row['problem']}."
    ratio, shown = _ratio(row), is_shown(row["p"])
    if not shown:
        verdict = NOTHING_SHOWN
    elif not np.isfinite(row["odds_ratio"]):
        verdict = positive if row["odds_lo"] >= 1 else negative if row["odds_hi"] <= 1 else "an association"
    else:
        verdict = positive if row["odds_ratio"] > 1 else negative
    if ratio:
        return f"Tenfold frequency multiplies the odds of {of} by {ratio} ({p_value(row['p'])}): {verdict}."
    return f"The test of {of} gives {p_value(row['p'])}: {verdict}; there is no ratio, because {row['problem']}."


def _ratio(row: Any) -> str:
    return odds_ratio(row["odds_ratio"], row["odds_lo"], row["odds_hi"])


def _adjusted(a: Any) -> str:
    if "confounders" not in set(a.effects["effect"]):
        return ""
    row = a.effect("confounders")
    if pd.isna(row["p"]) or not _ratio(row):
        return ""
    verdict = "an association" if is_shown(row["p"]) else NOTHING_SHOWN
    return (
        f"With subject and object frequency held fixed, the factor is {_ratio(row)} ({p_value(row['p'])}): {verdict}."
    )


def _threshold() -> str:
    return "An answer counts as right here where its probability is above one half: it is then the most probable one."


def _broken(a: Any) -> str:
    row = a.effect("broken")
    if pd.isna(row["p"]) or not _ratio(row):
        return ""
    verdict = "frequent" if row["odds_ratio"] > 1 else "rare"
    what = f"{verdict} facts are broken more often" if is_shown(row["p"]) else NOTHING_SHOWN
    return f"For the odds of a right answer being broken the factor is {_ratio(row)} ({p_value(row['p'])}): {what}."


def _missed(row: Any) -> str:
    least = row["least_odds_ratio"]
    if pd.isna(least):
        return ""
    return (
        f"A sample of this size and spread shows a factor of {least:.2f} or more (or {1 / least:.2f} or less) in 80 % "
        "of cases; it could well have missed a smaller one."
    )


def comparison(c: Any) -> str:
    """The paragraph of a `Comparison`."""
    table, m = c.table, len(c.table)
    own, placebos = (table[table["placebo"] == flag].to_dict("records") for flag in (False, True))
    lines = [f"The intervals hold for all {m} comparisons with {c.baseline!r} at once."]
    lines += [_compared(row) for row in own[:3]]
    if len(own) > 3:
        lines.append(f"Of the other {len(own) - 3} edits, {_counted(own[3:])}.")
    if placebos:
        lines.append(f"Of {len(placebos)} placebo{'s' if len(placebos) > 1 else ''}, {_counted(placebos)}.")
    return " ".join(lines)


def _compared(row: dict[str, Any]) -> str:
    if pd.isna(row["p"]):
        odds = f"whether its fixed facts are rare or frequent cannot be told ({row['problem']})"
    elif ratio := _ratio(row):
        odds = f"the odds of being fixed change by {ratio} per tenfold frequency (Holm {p_value(row['p_holm'])})"
    else:
        odds = f"the test of its fixes gives Holm {p_value(row['p_holm'])}, without a ratio ({row['problem']})"
    return f"{row['edit']}: accuracy {points(row['change'], row['change_lo'], row['change_hi'])}; {odds}."


def _counted(rows: Sequence[dict[str, Any]]) -> str:
    changed = sum(is_shown(row["p_change_holm"]) for row in rows)
    associated = sum(is_shown(row["p_holm"]) for row in rows)
    unknown = sum(pd.isna(row["p"]) for row in rows)
    cannot = f"; for {unknown} the latter cannot be told" if unknown else ""
    return f"{changed} changed accuracy, and the fixes of {associated} depended on frequency (Holm p ≤ 0.05){cannot}"
