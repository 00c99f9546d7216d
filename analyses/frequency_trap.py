"""A simulation: what each statistic of the frequency report says of edits whose effect is known.

Facts have a margin before the edit, which rises with frequency, and the edit adds a gain to it. An answer is right
where its margin is above 0. So an edit that moves every margin alike fixes more of the frequent facts, which are wrong
by less. Or the edit takes probability only from a generic word, which is the main rival where no other is near. Each
kind of data set is simulated many times; the table says how often each statistic finds an effect at 5 %, and how often
the interval of the slope of log-odds, with generic words forbidden, covers the truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.cli.analyse import write_all
from laser_interp.cluster_intervals import Clusters
from laser_interp.plots.figure_functions import figure_function, no_sample
from laser_interp.plots.style import legend, new_figure, palette
from laser_interp.progress import progress_bar
from laser_interp.statistics.accuracy_change import sign_flip_p
from laser_interp.statistics.blind_edit import against_blind_edit
from laser_interp.statistics.frequency_effect import frequency_effects
from laser_interp.statistics.frequency_slope import frequency_slopes


@dataclass(frozen=True)
class Kind:
    """One kind of data set.

    Attributes:
        name: of the kind.
        slope: true slope of the gain, nats per tenfold frequency.
        rising: of the margin before, nats per tenfold frequency.
        n_subjects, facts_each: of the facts.
        relation_sd: of the relations' own gains.
        tied: how much a relation's gain rises with its mean frequency, nats per decade.
        count_error: of log10(1 + count), standard deviation in decades; the true slope is that of the true counts.
        zeros: share of facts that were never seen.
        skewed: a tenth of the subjects gain, and the others lose a ninth of that: the mean change is 0.
        generic: what an edit takes from the logit of a generic word, which rivals the answer, nats; 0: there is none.
    """

    name: str
    slope: float = 0.0
    rising: float = 0.6
    n_subjects: int = 200
    facts_each: int = 2
    relation_sd: float = 0.0
    tied: float = 0.0
    count_error: float = 0.0
    zeros: float = 0.0
    skewed: bool = False
    generic: float = 0.0


KINDS = (
    Kind("uniform shift, margins rise by .3", rising=0.3),
    Kind("uniform shift, margins rise by .6"),
    Kind("uniform shift, margins rise by .9", rising=0.9),
    Kind("relations have gains of their own", relation_sd=0.5),
    Kind("relations' gains tied to their frequency", tied=0.5),
    Kind("counts with an error of .4 decades", count_error=0.4),
    Kind("80 % zeros", zeros=0.8),
    Kind("skewed changes, 20 subjects", skewed=True, n_subjects=20, facts_each=10),
    Kind("skewed changes, 60 subjects", skewed=True, n_subjects=60, facts_each=4),
    Kind("5 subjects", n_subjects=5, facts_each=40),
    Kind("10 subjects", n_subjects=10, facts_each=20),
    Kind("20 subjects", n_subjects=20, facts_each=10),
    Kind("rare facts gain .1 more", slope=-0.1),
    Kind("rare facts gain .2 more", slope=-0.2),
    Kind("frequent facts gain .1 more", slope=0.1),
    Kind("frequent facts gain .2 more", slope=0.2),
    Kind("rare facts gain .2 more, counts with an error of .4 decades", slope=-0.2, count_error=0.4),
    Kind("only a generic word loses, margins rise by .6", generic=3.0),
)
WITH_ODDS = 200  # data sets on which the odds ratio, which takes longest, is estimated too
FOUND = (
    "log odds",
    "forbidden",
    "log p",
    "top1",
    "odds ratio",
    "blind edit",
    "mean change, t",
    "mean change, sign flips",
)
RELATIONS, SUBJECT_SD, NOISE_SD, SHIFT = 8, 0.2, 0.4, 0.5  # nats


def simulate(kind: Kind, seed: int) -> pd.DataFrame:
    """Paired rows of one data set: margins before and after, what was fixed and broken, and counts."""
    rng = np.random.default_rng(seed)
    n = kind.n_subjects * kind.facts_each
    subject = np.repeat(np.arange(kind.n_subjects), kind.facts_each)
    relation = rng.integers(RELATIONS, size=n)
    of_relation = rng.normal(0, 0.5, RELATIONS)
    x = np.clip(1.5 + of_relation[relation] + rng.normal(0, 0.8, n), 0.3, 5)
    x = np.where(rng.random(n) < kind.zeros, 0.0, x)
    before = kind.rising * (x - 1.5) - 0.7 + rng.normal(0, 1.2, n)
    gain = SHIFT + kind.slope * (x - 1.5)
    if kind.skewed:
        gain = np.where(rng.random(kind.n_subjects) < 0.1, 0.9, -0.1)[subject] + kind.slope * (x - 1.5)
    gain = gain + rng.normal(0, kind.relation_sd, RELATIONS)[relation] + kind.tied * of_relation[relation]
    noise = 0.02 if kind.skewed else 1.0
    gain = gain + noise * (SUBJECT_SD * rng.normal(0, 1, kind.n_subjects)[subject] + NOISE_SD * rng.normal(0, 1, n))
    rivals = gain  # what the margin over rivals changes by
    if kind.generic:  # a generic word beside them: the margin is that over both
        word = rng.normal(1.0, 1.0, n)
        rivals = gain - SHIFT
        after = -np.logaddexp(-before - rivals, word - kind.generic)
        before = -np.logaddexp(-before, word)
        gain = after - before
    seen = np.clip(x + kind.count_error * rng.normal(0, 1, n), 0, 6)
    rows = pd.DataFrame(
        {
            "fact_id": [f"f{i}" for i in range(n)],
            "prompt_id": 0,
            "subject": subject,
            "relation": relation,
            "n_both": np.round(10**seen - 1),
            "margin_before": before,
            "margin_after": before + gain,
            "gain": gain,
            "rivals": rivals,
        }
    )
    rows["top1_before"], rows["top1_after"] = before > 0, before + gain > 0
    rows["fixed"] = ~rows["top1_before"] & rows["top1_after"]
    rows["broken"] = rows["top1_before"] & ~rows["top1_after"]
    return rows


def looked_at(
    rows: pd.DataFrame, kind: Kind, n_permutations: int, seed: int, *, with_odds: bool = True
) -> dict[str, float]:
    """For one data set: 1 where a statistic finds an effect at 5 % or the interval covers the truth, 0 elsewhere."""
    how: dict[str, Any] = {"n_permutations": n_permutations, "seed": seed}
    change = rows["top1_after"].to_numpy(float) - rows["top1_before"].to_numpy(float)
    before, after = (-np.logaddexp(0, -rows[f"margin_{when}"].to_numpy(float)) for when in ("before", "after"))
    gain, rivals = rows["gain"].to_numpy(), rows["rivals"].to_numpy()  # a margin is a log-odds
    asked = {"log_odds": gain, "masked_log_odds": rivals, "whole": after - before, "top1": change}
    nats, forbidden, log_p, top1 = frequency_slopes(rows, asked, **how).to_dict("records")
    odds: dict[Any, Any] = {"p": np.nan, "odds_ratio": np.nan}
    if with_odds:
        odds |= frequency_effects(rows, ["frequency"], **how).iloc[0].to_dict()
    blind = against_blind_edit(rows, **how)
    clusters = Clusters(rows["subject"])
    *_, p_mean = clusters.difference(gain)
    p_flips = sign_flip_p(clusters.sums(np.round(gain, 2)))
    p = (*(row["p"] for row in (nats, forbidden, log_p, top1, odds, blind)), p_mean, p_flips)
    return {name: float(value <= 0.05) for name, value in zip(FOUND, p, strict=True)} | {
        "odds ratio": float(odds["p"] <= 0.05) if with_odds else np.nan,
        "coverage": float(forbidden["lo"] <= kind.slope <= forbidden["hi"]) if np.isfinite(forbidden["lo"]) else np.nan,
        "odds ratio above 1": float(odds["p"] <= 0.05 and odds["odds_ratio"] > 1) if with_odds else np.nan,
    }


def study(
    n: int, *, n_permutations: int = 199, seed: int = 0, kinds: Sequence[Kind] = KINDS, progress: bool = False
) -> pd.DataFrame:
    """One row a kind: how often each statistic finds an effect in n data sets, and how often the interval covers."""
    out = []
    for number, kind in enumerate(progress_bar(kinds, desc="simulating", unit="kind", disable=not progress)):
        found = [
            looked_at(
                simulate(kind, seed + 100_000 * number + draw), kind, n_permutations, draw, with_odds=draw < WITH_ODDS
            )
            for draw in range(n)
        ]
        out.append(asdict(kind) | pd.DataFrame(found).mean().to_dict() | {"n": n})
    return pd.DataFrame(out)


CAPTION = (
    "Simulated data. (a) An edit that moves every margin alike, where margins before it rise with frequency by .3, .6"
    " or .9 nats per decade: how often each statistic finds that frequency matters, at 5 % (dotted). (b) The slope in"
    " nats where rare or frequent facts gain more: how often it is found."
)
_SHOWN: Mapping[str, str] = {
    "log odds": "slope of log-odds",
    "log p": "slope of log p",
    "blind edit": "fixed, against a blind edit",
    "odds ratio": "odds ratio of fixed",
    "top1": "slope of top-1",
}


@figure_function("frequency_trap", caption=CAPTION, sample=no_sample)
def frequency_trap(table: pd.DataFrame) -> Figure:
    """How often each statistic finds an effect: where there is none, and where there is one."""
    colour = palette()
    figure, axes = new_figure(1, 2, 2.3)
    null = table[table["name"].str.startswith("uniform")]
    planted = table[(table["slope"] != 0) & (table["count_error"] == 0)].sort_values("slope")
    panels = (
        (null, "rising", "-", "margins rise, nats per decade", "(a) every margin moves alike"),
        (planted, "slope", "", "true slope, nats per decade", "(b) gains depend on it"),
    )
    for ax, (rows, x, line, label, title) in zip(axes.flat, panels, strict=True):
        for i, (column, name) in enumerate(_SHOWN.items()):
            ax.plot(rows[x], 100 * rows[column], "osv^D"[i] + line, color=colour[i], label=name)
        ax.axhline(5, color="0.2", linewidth=0.6, linestyle=":")
        ax.set_ylim(-3, 103)
        ax.set_xlabel(label)
        ax.set_title(title)
    axes.flat[0].set_ylabel("found, % of data sets")
    legend(axes.flat[0], ncols=2, columnspacing=1.0)
    return figure


def main(*, n: int = 1000, out: Path = Path("runs/frequency_trap")) -> None:
    """Simulate edits whose effect on facts of each frequency is known, and count what each statistic finds.

    For example: laser-interp analyse frequency_trap --n 20

    Args:
        n: Data sets of each kind. 1,000 take about a quarter of an hour on one core.
        out: Folder for the table and the figure.
    """
    if n < 1:
        raise ValueError(f"n is {n}: at least one data set is needed")
    table = study(n, progress=True)
    shown = table[["name", *FOUND, "coverage"]].round(3).to_string(index=False)
    about = {"command": f"laser-interp analyse frequency_trap --n {n}"}
    write_all(out, {"frequency_trap": table}, shown, about, frequency_trap)
