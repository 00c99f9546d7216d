"""Why the paper's frequency plots cannot show what they seem to, and what our report says instead: by simulation.

Facts are simulated whose base accuracy rises with frequency, and an edit that fixes wrong answers at a rate that
is independent of frequency ("none"), or falls or rises with it by a known odds ratio. Of many such data sets: how
often does each statistic find something, and how often do its 95 % intervals cover what is true?
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

import laser_interp as li
from analyses import Tables
from laser_interp.plots import figures as plots
from laser_interp.statistics.association import report as report_on
from laser_interp.storage import tables as results

RATE_BEFORE = 1.5  # log10 frequency at which half the facts are known
FIX = -0.5  # log-odds of being fixed at that frequency
EFFECTS = {"none": 0.0, "rare facts fixed": -0.8, "frequent facts fixed": 0.8}  # log-odds per tenfold frequency


def simulate(seed: int, slope: float, *, n_subjects: int = 120, facts_each: int = 4) -> pd.DataFrame:
    """A frame for `li.association.report`: base accuracy rises with frequency, wrong answers are fixed at a rate of
    their own.

    Args:
        slope: log-odds of being fixed, given wrong before, per tenfold frequency; 0: the edit ignores it.
    """
    rng = np.random.default_rng(seed)
    n = n_subjects * facts_each
    subject = np.repeat(np.arange(n_subjects), facts_each)
    n_both = np.round(10 ** rng.uniform(0, 3, n))
    known = np.log10(n_both) - RATE_BEFORE + rng.normal(0, 0.5, n_subjects)[subject]
    before = rng.random(n) < _share(known)
    fixed = rng.random(n) < _share(FIX + slope * (np.log10(1 + n_both) - RATE_BEFORE))
    after = np.where(before, rng.random(n) >= 0.05, fixed)
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


def study(n: int, *, n_boot: int = 200, seed: int = 0, effects: Mapping[str, float] = EFFECTS) -> Tables:
    """Simulate n data sets for each effect.

    Returns:
        `trap_rates`: per (effect, statistic) how often it is significant at 5 %, and how often its interval
        covers the truth, where that is known; `trap_bins`: the paper's gain and our conditional rates, by
        frequency, averaged where there is no effect.
    """
    rates, bins = [], []
    for number, (effect, slope) in enumerate(effects.items()):
        found: dict[str, list[float]] = {}
        for draw in range(n):
            frame = simulate(seed + 100_000 * number + draw, slope)
            report = report_on(frame, n_bins=5, n_boot=n_boot, seed=draw)
            for name, value in _looked_at(report, slope).items():
                found.setdefault(name, []).append(value)
            if slope == 0:
                bins.append(report.bins.assign(bin=range(len(report.bins)), gain=_gain(report.bins)))
        share = [float(np.nanmean(values)) for values in found.values()]
        rates.append(pd.DataFrame({"statistic": list(found), "effect": effect, "share": share, "n": n}))
    shown = ["lo", "hi", "base_top1", "edit_top1", "gain", "p_fixed_given_wrong", "p_broken_given_right"]
    averaged = pd.concat(bins).groupby("bin")[shown].mean().reset_index()
    return {"trap_rates": pd.concat(rates, ignore_index=True), "trap_bins": averaged}


def _gain(bins: pd.DataFrame) -> pd.Series:
    return bins["edit_top1"] - bins["base_top1"]


def _looked_at(report: li.Association, slope: float) -> dict[str, float]:
    """Of one data set: 1 where something is significant, or covered, 0 where not."""
    found: dict[str, float] = {"report finds an association": report.p_value < 0.05}
    for model in ("frequency", "confounders", "pmi"):
        terms = report.regression[report.regression["model"] == model]
        row = terms[terms["term"].isin(["log10_n_both", "pmi"])]
        if len(row):
            found[f"{model}: p < .05"] = float(row["p"].iloc[0] < 0.05)
            if model == "frequency":
                lo, hi = np.log(row["odds_lo"].iloc[0]), np.log(row["odds_hi"].iloc[0])
                found["frequency: interval covers"] = float(lo <= slope <= hi)
    for name in ("top1", "fixed"):
        row = report.spearman.loc[name]
        lo, hi, p = (float(row[c]) for c in ("lo", "hi", "p_permuted"))  # pyright: ignore[reportArgumentType]
        found[f"Spearman, {name}: interval without 0"] = float(not lo <= 0 <= hi)
        found[f"Spearman, {name}: permuted p < .05"] = float(p < 0.05)
    assert report.change is not None
    _, lo, hi = report.change
    found["change of accuracy: interval covers"] = float(lo <= true_change(slope) <= hi)
    return found


def true_change(slope: float) -> float:
    """The expected change of accuracy of `simulate`, by quadrature."""
    log10 = np.linspace(0, 3, 3001)
    luck = np.linspace(-4, 4, 401) * 0.5
    weight = np.exp(-((luck / 0.5) ** 2) / 2)
    known = (_share(log10[:, None] - RATE_BEFORE + luck) @ weight) / weight.sum()
    fixed = _share(FIX + slope * (np.log10(1 + 10**log10) - RATE_BEFORE))
    return float(np.mean((1 - known) * fixed - 0.05 * known))


def main(argv: list[str]) -> Tables:
    parser = argparse.ArgumentParser(prog="python -m analyses frequency_trap", description=study.__doc__)
    parser.add_argument("--n", type=int, default=400, help="data sets an effect (default: %(default)s)")
    parser.add_argument("--n-boot", type=int, default=200, help="draws of each bootstrap (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/frequency_trap"))
    args = parser.parse_args(argv)
    tables = study(args.n, n_boot=args.n_boot)
    print(tables["trap_rates"].pivot(index="statistic", columns="effect", values="share").round(3).to_string())
    for name, table in tables.items():
        print(results.write_table(table, args.out / "tables" / f"{name}.parquet", None, {"n": args.n, "seed": 0}))
    for path in plots.draw_all(tables, args.out / "figures"):
        print(path)
    return tables
