"""How often the frequency report errs: many simulated data sets, with few and many events, zeros, clusters and
relations.

In a null cell, frequency has no effect on being fixed. There a method should find an effect at 5 % in at most .05 of
the data sets, up to the Monte-Carlo error. In the other cells this share is the power, and the interval should cover
the true effect. Two methods that the report's method replaced are run too: a logistic regression with a dummy for each
relation and errors clustered by subject, and the same permutation with every fact as a subject of its own.
"""

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from laser_interp.cli.analyse import write_all
from laser_interp.extras import require
from laser_interp.plots.figure_functions import figure_function, no_sample
from laser_interp.plots.style import legend, new_figure, palette
from laser_interp.progress import progress_bar
from laser_interp.statistics.frequency_effect import frequency_effects
from laser_interp.storage.run_folder import TABLES
from laser_interp.storage.tables import read_table, write_table

PERMUTATIONS = 399  # in each data set; a report takes 1,999
COMPARED = 200  # data sets on which the replaced methods are run too


@dataclass(frozen=True)
class Simulated:
    """One kind of data set: facts that were all wrong before.

    Attributes:
        family: what is varied.
        events: expected number of fixed facts.
        zeros: share of facts that were never seen.
        slope: log odds of being fixed per tenfold frequency; 0: a null cell.
        n_facts: number of facts, over all relations.
        facts_each: facts of each subject, in relations drawn at random.
        shared: whether a subject's facts have the same frequency.
        subject_sd: of the subjects' own log odds of being fixed.
        in_relation: facts of each relation; the log odds of relations have a standard deviation of 1.
        prompts: prompts of each fact; each takes the fact's own outcome with probability 0.9, else a new draw.
    """

    family: str
    events: float
    zeros: float = 0.7
    slope: float = 0.0
    n_facts: int = 400
    facts_each: int = 1
    shared: bool = False
    subject_sd: float = 0.0
    in_relation: int = 100
    prompts: int = 1


def cells() -> list[Simulated]:
    """All kinds of data sets."""
    events = (1, 2, 3, 5, 10, 20, 50, 200)
    null = [Simulated("events and zeros", n, zeros=z) for n in events for z in (0.0, 0.5, 0.7, 0.9)]
    null += [
        Simulated("facts a subject", n, facts_each=k, shared=shared, subject_sd=1.0)
        for n in (5, 20, 100)
        for k in (3, 10, 30)
        for shared in (True, False)
    ]
    null += [
        Simulated("facts a relation", n, zeros=0.5, in_relation=g, n_facts=1000 if g == 1000 else 400)
        for n in (20, 100)
        for g in (3, 5, 10, 100, 1000)
    ]
    null += [
        Simulated("few subjects", 50, facts_each=400 // n, shared=True, subject_sd=1.0, n_facts=400 // n * n)
        for n in (5, 8, 12, 30)
    ]
    null += [Simulated("prompts a fact", n, prompts=k) for n in (10, 50) for k in (3, 10)]
    effects = [Simulated("power", n, slope=slope) for n in events for slope in (-0.4, -0.8, 0.7)]
    effects += [Simulated("small relations", 100, zeros=0.5, slope=0.7, in_relation=g) for g in (3, 5, 10)]
    return null + effects


def data_set(kind: Simulated, seed: int) -> pd.DataFrame:
    """One row per (fact, prompt), as `frequency_effects` takes it."""
    rng = np.random.default_rng(seed)
    n = kind.n_facts
    subject = np.arange(n) // kind.facts_each
    n_relations = max(n // kind.in_relation, 1)
    relation = rng.permutation(np.arange(n) % n_relations)
    drawn = np.round(10 ** rng.uniform(0, 4, n)) * (rng.random(n) >= kind.zeros)
    n_both = drawn[subject * kind.facts_each] if kind.shared else drawn
    logit = rng.normal(0, 1, n_relations)[relation] + kind.slope * np.log10(1 + n_both)
    logit += kind.subject_sd * rng.normal(0, 1, n)[subject]
    low, high = -40.0, 40.0  # the intercept that gives so many events
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-logit - middle))).sum() < kind.events else (low, middle)
    p = 1 / (1 + np.exp(-logit - low))
    own = rng.random(n) < p
    fact = np.repeat(np.arange(n), kind.prompts)
    fixed = np.where(rng.random(len(fact)) < 0.9, own[fact], rng.random(len(fact)) < p[fact])
    columns = {"fact_id": fact, "subject": subject[fact], "relation": relation[fact], "n_both": n_both[fact]}
    return pd.DataFrame(columns | {"top1_before": False, "fixed": fixed, "broken": False})


def with_dummies(rows: pd.DataFrame) -> tuple[float, float, float, float]:
    """p, coefficient and 95 % interval of a logistic regression with a dummy for each relation, clustered by subject;
    NaN where it does not converge."""
    require("simulation", "statsmodels", what="the replaced method")
    import statsmodels.api as sm

    nothing = (np.nan, np.nan, np.nan, np.nan)
    share = rows.groupby("relation")["fixed"].transform("mean")
    used = rows[(share > 0) & (share < 1)]
    if used.empty or used["subject"].nunique() < 3 or used["n_both"].nunique() < 2:
        return nothing
    dummies = pd.get_dummies(used["relation"], drop_first=True, dtype=float)
    design = np.column_stack([np.ones(len(used)), np.log10(1 + used["n_both"]), dummies])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = sm.GLM(used["fixed"].to_numpy(float), design, family=sm.families.Binomial())
            fit = model.fit(cov_type="cluster", cov_kwds={"groups": pd.factorize(used["subject"])[0]}, use_t=True)
    except Exception:  # perfect separation, overflow, singular matrices
        return nothing
    lo, hi = fit.conf_int()[1]
    return float(fit.pvalues[1]), float(fit.params[1]), float(lo), float(hi)


def simulate(kind: Simulated, n: int, seed: int) -> dict[str, float]:
    """What the methods do on n data sets of a kind."""
    found: dict[str, list[float]] = {"p": [], "covers": [], "coefficient": [], "bounded": []}
    replaced: dict[str, list[float]] = {"dummies_p": [], "dummies_covers": [], "dummies_coefficient": [], "facts_p": []}
    for draw in range(n):
        rows = data_set(kind, seed + draw)
        effect = frequency_effects(rows, ["frequency"], n_permutations=PERMUTATIONS, seed=draw).iloc[0]
        found["p"].append(effect["p"])
        if np.isfinite(effect["odds_hi"]) or effect["odds_lo"] > 0:
            true = np.exp(kind.slope)
            found["covers"].append(float(effect["odds_lo"] <= true <= effect["odds_hi"]))
            found["bounded"].append(float(np.isfinite(effect["odds_hi"]) and effect["odds_lo"] > 0))
        if np.isfinite(effect["odds_ratio"]):
            found["coefficient"].append(float(np.log(effect["odds_ratio"])))
        if draw < COMPARED:
            p, coefficient, lo, hi = with_dummies(rows)
            replaced["dummies_p"].append(p)
            if np.isfinite(p):
                replaced["dummies_covers"].append(float(lo <= kind.slope <= hi))
                replaced["dummies_coefficient"].append(coefficient)
            alone = rows.assign(subject=rows["fact_id"])
            naive = frequency_effects(alone, ["frequency"], n_permutations=PERMUTATIONS, seed=draw).iloc[0]
            replaced["facts_p"].append(naive["p"])
    p = np.array(found["p"], float)
    rate = float((p <= 0.05).mean())  # where the data give no answer (NaN), nothing is found
    out = {"rejected": rate, "se": float(np.sqrt(0.05 * 0.95 / n)), "no_answer": float(np.isnan(p).mean()), "n": n}
    out |= {"coverage": _mean(found["covers"]), "bounded": _mean(found["bounded"])}
    out["coefficient"] = float(np.median(found["coefficient"])) if found["coefficient"] else np.nan
    out["rejected_facts"] = float((np.array(replaced["facts_p"], float) <= 0.05).mean())
    dummies = np.array(replaced["dummies_p"], float)
    dummies = dummies[np.isfinite(dummies)]
    out["rejected_dummies"] = float((dummies <= 0.05).mean()) if len(dummies) else np.nan
    out["coverage_dummies"] = _mean(replaced["dummies_covers"])
    coefficients = replaced["dummies_coefficient"]
    return out | {"coefficient_dummies": float(np.median(coefficients)) if coefficients else np.nan}


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


CAPTION = (
    "Simulated data sets in which frequency has no effect on being fixed (a) or has one (b): how often a method "
    "finds an association at 5 %. Bars are 95 % intervals of the simulation; the dotted line is 5 %. The replaced "
    "method is a logistic regression with a dummy for each relation and errors clustered by subject."
)


@figure_function("frequency_simulation", caption=CAPTION, sample=no_sample)
def frequency_simulation(table: pd.DataFrame) -> Figure:
    """How often the frequency report finds an association: where there is none, and where there is one."""
    colour = palette()
    figure, axes = new_figure(1, 2, 3.0)
    ax = axes.flat[0]
    null = table[table["slope"] == 0]
    rng = np.random.default_rng(0)  # moves points sideways, so that they do not overlap
    events = np.sort(table["events"].unique())
    for name, label, c in (("rejected_dummies", "replaced", "0.6"), ("rejected", "the report", colour[0])):
        x = np.searchsorted(events, null["events"]) + rng.uniform(-0.25, 0.25, len(null))
        ax.plot(x, 100 * null[name], "o", color=c, label=f"(a) {label}, each kind of data")
    ax.axhline(5, color="0.2", linewidth=0.6, linestyle=":")
    ax.set_yscale("symlog", linthresh=10)
    ax.set_ylim(-0.5, 110)
    ax.set_yticks([0, 5, 10, 50, 100], ["0", "5", "10", "50", "100"])
    ax.set_title("(a) frequency says nothing")
    ax.set_ylabel("finds something, % of data sets")
    ax = axes.flat[1]
    power = table[table["family"] == "power"]
    for i, slope in enumerate(sorted(power["slope"].unique())):
        rows = power[power["slope"] == slope].sort_values("events")
        rate, x = rows["rejected"].to_numpy(float), np.searchsorted(events, rows["events"])
        half_width = 1.96 * np.sqrt(rate * (1 - rate) / rows["n"].to_numpy(float))
        ax.errorbar(x, 100 * rate, yerr=100 * half_width, fmt="o-", color=colour[1 + i], elinewidth=0.7, capsize=1.2,
                    label=f"(b) odds × {np.exp(slope):.2f} per tenfold frequency")  # fmt: skip
    ax.set_ylim(-3, 103)
    ax.set_title("(b) it says something")
    for ax in axes.flat:
        ax.set_xticks(np.arange(len(events)), [f"{n:g}" for n in events], fontsize=6, rotation=45)
        ax.set_xlabel("fixed facts, expected")
    legend(*axes.flat, ncols=1, handlelength=1.6, handletextpad=0.4)
    return figure


def main(*, n: int = 1000, out: Path = Path("runs/frequency_simulation")) -> None:
    """Simulate many kinds of data sets. Count how often the frequency report finds an effect where there is one, and
    where there is none.

    For example: laser-interp analyse frequency_simulation --n 20

    Args:
        n: Data sets of each kind. A thousand take about an hour.
        out: Folder for the results. The same command goes on from it.
    """

    path = out / TABLES / "frequency_simulation.parquet"
    kinds = cells()
    rows: list[dict[Any, Any]] = []
    if path.is_file():
        rows = [row for row in read_table(path).to_dict("records") if row["n"] == n][: len(kinds)]
    command = f"laser-interp analyse frequency_simulation --n {n}"
    about = {"n": n, "permutations": PERMUTATIONS, "command": command}
    for number in progress_bar(range(len(rows), len(kinds)), desc="simulating", unit="cell"):
        rows.append(asdict(kinds[number]) | simulate(kinds[number], n, 1_000_000 * number))
        write_table(pd.DataFrame(rows), path, None, about)
    table = pd.DataFrame(rows)
    null = table[table["slope"] == 0]
    over = null[null["rejected"] > 0.05 + 2 * null["se"]]
    text = (
        f"{table.drop(columns=['se', 'n']).round(3).to_string(index=False)}\n{len(null)} null cells, {len(over)} above "
        f".05 + two standard errors; {len(table) - len(null)} other cells."
    )
    write_all(out, {"frequency_simulation": table}, text, about, frequency_simulation)
