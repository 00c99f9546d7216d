"""What was found, in words. Numbers come in; nothing is computed here.

Each sentence is chosen from the direction of a result, its size and its certainty. A paragraph says what changed, for
which facts, in nats and then in shares, how sure that is, and what could have been missed. The rest is in the tables.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import LEVEL
from laser_interp.plots.names import plain_name
from laser_interp.statistics.formatting import in_nats, interval, odds_ratio, p_value, points, row_in_nats
from laser_interp.statistics.frequency_slope import LOG_ODDS, MASKED_LOG_ODDS

NOTHING_SHOWN = "no association that this sample can show"


def is_shown(p: Any) -> bool:
    """Whether a p-value refuses chance at the 5 % level; one that could not be computed does not."""
    return not pd.isna(p) and float(p) <= 1 - LEVEL


def association(a: Any) -> str:
    """The paragraph of an `Association`."""
    over = f"Over {a.n_facts} facts of {a.n_subjects} subject{'' if a.n_subjects == 1 else 's'}"
    lines = _accuracy_alone(a, over) if a.edit is None else _gains(a, over)
    return " ".join(line for line in lines if line)


def _accuracy_alone(a: Any, over: str) -> list[str]:
    row = a.spearman.loc["accuracy"]
    if np.isfinite(row["rho"]):
        rho = interval(row["rho"], row["lo"], row["hi"], "+.2f")
        p = "" if pd.isna(row["p"]) else f", {p_value(row['p'])}"
        better = f"frequent facts are known {'better' if row['rho'] > 0 else 'less well'}"
        verdict = better if is_shown(row["p"]) else NOTHING_SHOWN
        known = f"accuracy correlates with training frequency at Spearman {rho}{p}: {verdict}."
    else:
        known = (
            "the rank correlation of accuracy with frequency is not defined, because one of them is always the same."
        )
    return [f"{over}, {known}", _right(a.effect("accuracy")), _CAUSE]


def _right(row: Any) -> str:
    """The odds ratio of an answer being right."""
    of = "an answer being right"
    if pd.isna(row["p"]):
        return f"Whether frequency changes the odds of {of} cannot be told, because {row['problem']}."
    if not is_shown(row["p"]):
        verdict = NOTHING_SHOWN
    elif row["odds_ratio"] > 1 or row["odds_lo"] >= 1:
        verdict = "frequent facts are right more often"
    elif row["odds_ratio"] < 1 or row["odds_hi"] <= 1:
        verdict = "rare facts are right more often"
    else:
        verdict = "an association"
    if ratio := _ratio(row):
        return f"Tenfold frequency multiplies the odds of {of} by {ratio} ({p_value(row['p'])}): {verdict}."
    return f"The test of {of} gives {p_value(row['p'])}: {verdict}; there is no ratio, because {row['problem']}."


_CAUSE = "This is an association: facts that differ in frequency differ in other things too."
_THRESHOLD = "An answer counts as right here where its probability is above one half: it is then the most probable one."


def _gains(a: Any, over: str) -> list[str]:
    slopes = {row["of"]: row for row in a.slopes.to_dict("records")}
    return [
        f"{over}, accuracy changes by {points(a.change.change, a.change.lo, a.change.hi)}.",
        *_in_nats(slopes, a.rows),
        *_in_shares(slopes),
        *_fixed(a),
        _THRESHOLD if a.threshold else "",
        _CAUSE,
    ]


def _in_nats(slopes: dict[str, Any], rows: pd.DataFrame) -> list[str]:
    """The main result: the slope of log p(answer) and of its parts, and the verdict of the log-odds."""
    whole = slopes.get("whole")
    if whole is None:
        return []
    if not np.isfinite(whole["slope"]) or pd.isna(whole["p"]):
        return [f"Whether the change in log-probability depends on frequency cannot be told: {whole['problem']}."]
    odds = slopes[LOG_ODDS]
    main = odds if np.isfinite(odds["slope"]) else whole
    verdict = "they change alike for all facts" if pd.isna(main["p"]) else _who_gains(main, rows)
    told = [
        f"Within relations, the change of the answer's log-probability has a slope of {row_in_nats(whole, 'slope')} "
        f"per tenfold frequency ({p_value(whole['p'])}){f': {verdict}' if main is whole else ''}."
    ]
    if main is odds:
        p = "" if pd.isna(odds["p"]) else f" ({p_value(odds['p'])})"
        told.append(f"The slope of log-odds, which have no ceiling, is {row_in_nats(odds, 'slope')}{p}: {verdict}.")
        told += _masked(slopes, rows)
        if is_shown(whole["p"]) and not (is_shown(odds["p"]) and odds["slope"] * whole["slope"] > 0):
            told.append("The ceiling may explain the slope of log-probability: probable answers have less room.")
    if not is_shown(main["p"]) and np.isfinite(main["least_up"]):
        told.append(
            f"A sample like this one shows slopes from {main['least_up']:+.2f}, or {main['least_down']:+.2f}, on in "
            "about 80 % of cases."
        )
    return told


def _masked(slopes: dict[str, Any], rows: pd.DataFrame) -> list[str]:
    """The slope of log-odds with generic words forbidden on both sides, and whether it says the same."""
    odds, masked = slopes[LOG_ODDS], slopes.get(MASKED_LOG_ODDS)
    if masked is None or not np.isfinite(masked["slope"]) or pd.isna(masked["p"]):
        if not is_shown(odds["p"]):
            return []
        return [
            "Whether generic words explain this cannot be told from these scores: an edit that lowers them alone has "
            "such a slope too."
        ]
    slope = f"{row_in_nats(masked, 'slope')} ({p_value(masked['p'])})"
    sentence = f"With generic words forbidden before and after, it is {slope}"
    if not is_shown(odds["p"]):
        return [f"{sentence}."]
    if is_shown(masked["p"]) and masked["slope"] * odds["slope"] > 0:
        return [f"{sentence}, so that generic words do not explain it."]
    return [
        f"{sentence}: {_who_gains(masked, rows)}. So generic words make the slope: where they lose "
        "probability, answers without another rival gain most."
    ]


def _who_gains(row: Any, rows: pd.DataFrame) -> str:
    """What a slope says of rare and frequent facts; where it shows nothing, the slopes that it rules out."""
    if is_shown(row["p"]):
        with np.errstate(invalid="ignore"):
            change = rows["logprob_after"].to_numpy(float) - rows["logprob_before"].to_numpy(float)
        change = change[np.isfinite(change)]
        lose = change.mean() + 2 * change.std() / np.sqrt(len(change)) < 0
        return f"{'frequent' if row['slope'] > 0 else 'rare'} facts {'lose less' if lose else 'gain more'}"
    if np.isfinite(row["lo"]):
        return (
            f"no trend that this sample can show; it rules out slopes below {row['lo']:+.2f} and above "
            f"{row['hi']:+.2f} nats"
        )
    return "no trend that this sample can show"


def _in_shares(slopes: dict[str, Any]) -> list[str]:
    """What the paper plots: top-1, top-5 and top-10, and why they may disagree."""
    known = [(name, slopes[name]) for name in ("top1", "top5", "top10") if name in slopes]
    known = [(name, row) for name, row in known if np.isfinite(row["slope"])]
    if not known:
        return []
    each = [
        f"{name.replace('top', 'top-')} {points(row['slope'], row['lo'], row['hi'])}"
        + (f" ({p_value(row['p'])})" if not pd.isna(row["p"]) else "")
        for name, row in known
    ]
    told = [f"The share of right answers changes by, in {'; '.join(each)}."]
    signs = {np.sign(row["slope"]) for _, row in known if is_shown(row["p"])}
    whole = slopes.get("whole")
    alone = bool(signs) and whole is not None and not pd.isna(whole["p"]) and not is_shown(whole["p"])
    if len(signs) > 1 or alone:
        told.append("A share counts who passes a threshold and depends on where it lies; nats do not.")
    return told


def _fixed(a: Any) -> list[str]:
    """Which wrong answers are fixed, beside an edit with the same gains that is blind to frequency."""
    main, blind = a.effect("frequency"), a.blind
    if pd.isna(main["p"]):
        of = "Whether frequency changes the odds of a wrong answer being fixed"
        return [f"{of} cannot be told, because {main['problem']}."]
    if not _ratio(main):
        told = f"Which wrong answers are fixed goes with frequency ({p_value(main['p'])}), without a ratio: "
        told += f"{main['problem']}. That alone is no finding, because frequent facts are wrong by less"
        if blind and not pd.isna(blind["p"]):
            told += f"; against an edit with the same gains that is blind to frequency, {p_value(blind['p'])}"
        return [f"{told}."] if is_shown(main["p"]) else []
    found = f"Tenfold frequency multiplies the odds of a wrong answer being fixed by {_ratio(main)}"
    if not blind or not np.isfinite(blind["blind"]):
        return [
            f"{found} ({p_value(main['p'])}). That alone is no finding: an edit that is blind to frequency does so "
            "too, because frequent facts are wrong by less."
        ]
    beside = odds_ratio(blind["blind"], blind["blind_lo"], blind["blind_hi"])
    if is_shown(blind["p"]):
        who = "frequent" if blind["odds_ratio"] > blind["blind"] else "rare"
        verdict = f"{who} facts are fixed more often than that"
    else:
        verdict = "no difference that this sample can show"
    return [
        f"{found}. On the first prompt of each subject in a relation it is {blind['odds_ratio']:.2f}; if the same "
        f"gains were dealt without regard to frequency, it would be {beside} ({p_value(blind['p'])}): {verdict}."
    ]


def _ratio(row: Any) -> str:
    return odds_ratio(row["odds_ratio"], row["odds_lo"], row["odds_hi"])


def comparison(c: Any) -> str:
    """The paragraph of a `Comparison`."""
    table, m = c.table, len(c.table)
    own, placebos = (table[table["placebo"] == flag].to_dict("records") for flag in (False, True))
    lines = [f"The intervals hold for all {m} comparisons with {c.baseline!r} at once."]
    lines += [_compared(row) for row in own[:3]]
    if len(own) > 3:
        lines.append(f"Of the other {len(own) - 3} edits, {_counted(own[3:])}.")
    if placebos:
        lines.append(of_placebos(c))
    return " ".join(lines)


def of_placebos(c: Any) -> str:
    """What a `Comparison` says of its placebos, all together."""
    rows = c.table[c.table["placebo"]].to_dict("records")
    return f"Of {len(rows)} placebo{'' if len(rows) == 1 else 's'}, {_counted(rows)}."


def _compared(row: dict[str, Any]) -> str:
    if np.isfinite(row["slope"]):
        forbidden = ", with generic words forbidden" if row["slope_of"] == MASKED_LOG_ODDS else ""
        p = row["slope_problem"] or f"Holm {p_value(row['p_slope_holm'])}"
        odds = (
            f"log-odds change by {in_nats(row['slope'], row['slope_lo'], row['slope_hi'])} per tenfold "
            f"frequency{forbidden} ({p})"
        )
    elif pd.isna(row["p"]):
        odds = f"whether its fixed facts are rare or frequent cannot be told ({row['problem']})"
    elif ratio := _ratio(row):
        odds = f"the odds of being fixed change by {ratio} per tenfold frequency (Holm {p_value(row['p_holm'])})"
    else:
        odds = f"the test of its fixes gives Holm {p_value(row['p_holm'])}, without a ratio ({row['problem']})"
    name = plain_name(row["edit"])
    return f"{name[0].upper()}{name[1:]}: accuracy {points(row['change'], row['change_lo'], row['change_hi'])}; {odds}."


def _counted(rows: Sequence[dict[str, Any]]) -> str:
    changed = sum(is_shown(row["p_change_holm"]) for row in rows)
    have_slopes = any(np.isfinite(row["slope"]) for row in rows)
    p, depended = ("p_slope", "the log-odds") if have_slopes else ("p", "the fixes")
    associated = sum(is_shown(row[f"{p}_holm"]) for row in rows)
    unknown = sum(pd.isna(row[p]) for row in rows)
    cannot = f"; for {unknown} the latter cannot be told" if unknown else ""
    than = "" if have_slopes else " more than a blind edit's would"
    if unknown == len(rows):
        return f"{changed} changed accuracy; whether {depended} depended on frequency cannot be told for any"
    return (
        f"{changed} changed accuracy, and {depended} of {associated} depended on frequency{than} (Holm p ≤ 0.05)"
        f"{cannot}"
    )
