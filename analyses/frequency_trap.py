"""A simulation: why the paper's frequency plots cannot show what they seem to, and what our report says instead.

In the simulated facts, base accuracy rises with frequency. The simulated edit fixes wrong answers at a rate that is
independent of frequency ("none"), or that falls or rises with it by a known odds ratio. The facts of a subject have
similar frequencies and correlated outcomes. Over many such data sets, the simulation counts how often each statistic
finds an effect, and how often its 95 % interval covers the truth.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import laser_interp as li
from laser_interp.plots.figure_functions import figure_function, no_sample
from laser_interp.plots.registry import draw_all
from laser_interp.plots.style import legend, new_figure, palette
from laser_interp.statistics.association import frequency_report
from laser_interp.storage.run_folder import FIGURES, TABLES
from laser_interp.storage.tables import write_table

RATE_BEFORE = 1.5  # log10 frequency at which half the facts are known
FIX = -0.5  # log-odds of being fixed at that frequency
BROKEN = 0.05  # share of right answers that are broken
SUBJECT_SD = 0.7  # of the subjects' own log-odds of being fixed
EFFECTS = {"none": 0.0, "rare facts fixed": -0.8, "frequent facts fixed": 0.8}  # log-odds per tenfold frequency


def simulate(seed: int, slope: float, *, n_subjects: int = 120, facts_each: int = 4) -> pd.DataFrame:
    """A frame for `li.frequency_report`: base accuracy rises with frequency, and a rate set by `slope` fixes wrong
    answers.

    Args:
        slope: log-odds of being fixed, given wrong before, per tenfold frequency; 0: the edit ignores it.
    """
    rng = np.random.default_rng(seed)
    n = n_subjects * facts_each
    subject = np.repeat(np.arange(n_subjects), facts_each)
    n_both = np.round(10 ** np.clip(rng.uniform(0, 3, n_subjects)[subject] + rng.normal(0, 0.3, n), 0, 3))
    known = np.log10(n_both) - RATE_BEFORE + rng.normal(0, 0.5, n_subjects)[subject]
    before = rng.random(n) < _share(known)
    luck = SUBJECT_SD * rng.normal(0, 1, n_subjects)[subject]
    fixed = rng.random(n) < _share(FIX + luck + slope * (np.log10(1 + n_both) - RATE_BEFORE))
    after = np.where(before, rng.random(n) >= BROKEN, fixed)
    return pd.DataFrame(
        {
            "fact_id": [f"f{i}" for i in range(n)],
            "subject": [f"s{s}" for s in subject],
            "relation": rng.choice(["p", "q", "r"], n),
            "before": before.astype(int),
            "after": after.astype(int),
            "n_both": n_both,
            "n_subject": n_both + np.round(10 ** rng.uniform(1, 4, n)),
            "n_object": n_both + np.round(10 ** rng.uniform(1, 4, n)),
        }
    )


def _share(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def study(
    n: int, *, n_permutations: int = 399, seed: int = 0, effects: Mapping[str, float] = EFFECTS
) -> dict[str, pd.DataFrame]:
    """Simulate n data sets for each effect.

    Returns:
        `trap_rates`: per (effect, statistic) how often it is significant at 5 %, and how often its interval
        covers the truth, where that is known; `trap_bins`: the paper's gain and our conditional rates, by
        frequency, averaged where there is no effect.
    """
    rates, bins = [], []
    for number, (effect, slope) in enumerate(effects.items()):
        by_statistic: dict[str, list[float]] = {}
        for draw in range(n):
            frame = simulate(seed + 100_000 * number + draw, slope)
            report = frequency_report(frame, n_bins=5, n_permutations=n_permutations, seed=draw)
            for name, value in _looked_at(report, slope, true_change(slope)).items():
                by_statistic.setdefault(name, []).append(value)
            if slope == 0:
                bins.append(report.bins.assign(bin=range(len(report.bins)), gain=_gain(report.bins)))
        share = [float(np.nanmean(values)) for values in by_statistic.values()]
        rates.append(pd.DataFrame({"statistic": list(by_statistic), "effect": effect, "share": share, "n": n}))
    shown = ["lo", "hi", "base_top1", "edit_top1", "gain", "p_fixed_given_wrong", "p_broken_given_right"]
    averaged = pd.concat(bins).groupby("bin")[shown].mean().reset_index()
    return {"trap_rates": pd.concat(rates, ignore_index=True), "trap_bins": averaged}


def _gain(bins: pd.DataFrame) -> pd.Series:
    return bins["edit_top1"] - bins["base_top1"]


def _looked_at(report: li.Association, slope: float, change: float) -> dict[str, float]:
    """For one data set: 1 where a statistic is significant or its interval covers the truth, 0 elsewhere."""
    findings: dict[str, float] = {}
    for name in ("frequency", "confounders", "pmi"):
        row = report.effect(name)
        findings[f"{name}: p < .05"] = float(row["p"] < 0.05)
        if name == "frequency" and slope == 0:  # the subjects' own rates weaken any other effect
            findings["frequency: interval covers"] = float(row["odds_lo"] <= 1 <= row["odds_hi"])
    for name in ("top1", "fixed"):
        findings[f"Spearman, {name}: p < .05"] = float(report.spearman["p"][name] < 0.05)
    assert report.change is not None
    findings["change of accuracy: interval covers"] = float(report.change.lo <= change <= report.change.hi)
    return findings


@cache
def true_change(slope: float) -> float:
    """The expected change of accuracy of `simulate`, from a large sample."""
    frame = simulate(2**40, slope, n_subjects=250_000)
    return float((frame["after"] - frame["before"]).mean())


CAPTION = (
    "Simulated data. (a) An edit that fixes wrong answers at the same rate at every frequency: its gain in "
    "accuracy, and the share of wrong answers that it fixes. (b) How often each statistic is significant at 5 %, "
    "for each true effect."
)


@figure_function("trap_bins", "trap_rates", caption=CAPTION, sample=no_sample)
def frequency_trap(bins: pd.DataFrame, rates: pd.DataFrame) -> Figure:
    """Simulated: an edit that ignores frequency, in the paper's plot and in ours; how often each finds an effect."""
    colour = palette()
    figure, axes = new_figure(1, 2, 2.5)
    x = np.arange(len(bins))
    ax = axes.flat[0]
    ax.bar(x, 100 * bins["gain"], color=colour[4], width=0.6, label="(a) gain in accuracy, points: the paper's plot")
    ax.plot(x, 100 * bins["p_fixed_given_wrong"], "o-", color=colour[2], label="(a) fixed, % of those wrong before")
    ax.set_ylim(0)
    ax.set_xticks(x, [f"{lo:.0f}–{hi:.0f}" for lo, hi in zip(bins["lo"], bins["hi"], strict=True)], rotation=50,
                  ha="right", rotation_mode="anchor", fontsize=6)  # fmt: skip
    ax.set_xlabel("frequency")
    ax.set_title("(a) an edit that ignores it")
    ax = axes.flat[1]
    shown = {
        "Spearman, top1: p < .05": "ρ of the gain",
        "Spearman, fixed: p < .05": "ρ of fixed",
        "frequency: p < .05": "report's p",
    }
    y = np.arange(len(shown))[::-1]
    effects = list(dict.fromkeys(rates["effect"]))
    for i, effect in enumerate(effects):
        share = rates[rates["effect"] == effect].set_index("statistic")["share"]
        ax.barh(y + 0.27 * (1 - i), [100 * share[name] for name in shown], 0.25,
                color=["0.7", colour[0], colour[1]][i], label=f"(b) effect: {effect}")  # fmt: skip
    ax.axvline(5, color="0.2", linewidth=0.6, linestyle=":")
    ax.set_yticks(y, list(shown.values()), fontsize=6)
    ax.set_xlabel("significant, % of data sets")
    ax.set_title("(b) what finds it")
    handles = [entry for ax in axes.flat for entry in zip(*ax.get_legend_handles_labels(), strict=True)]
    legend(figure, [h for h, _ in handles], [label for _, label in handles], ncols=1,
                  handlelength=1.6, handletextpad=0.4)  # fmt: skip
    return figure


def main(*, n: int = 400, n_permutations: int = 399, out: Path = Path("runs/frequency_trap")) -> None:
    """Simulate edits that depend on frequency or ignore it, and count how often each statistic finds an effect.

    For example: laser-interp analyse frequency_trap --n 100

    Args:
        n: Data sets an effect.
        n_permutations: Permutations behind each p-value.
        out: Folder for the results.
    """
    tables = study(n, n_permutations=n_permutations)
    rates = tables["trap_rates"].pivot(index="statistic", columns="effect", values="share")
    paths = [write_table(table, out / TABLES / f"{name}.parquet", None, {"n": n}) for name, table in tables.items()]
    about = {"command": f"laser-interp analyse frequency_trap --n {n}"}
    paths += draw_all(tables, out / FIGURES, about=about, figures=[frequency_trap.figure])  # type: ignore[attr-defined]
    print("\n".join([rates.round(3).to_string(), *map(str, paths)]))
