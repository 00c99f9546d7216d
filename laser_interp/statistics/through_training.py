"""Scores at the checkpoints of a training: tables, and what they say in words.

Tables, each with the `step`:

- `trajectory`: one row per (step, edit, facts): means over prompts. `facts` is "all", "rare" and "frequent" (below the
  median count at the end or not), or "fixed", the prompts that the edit fixes at the last checkpoint. `generic_ahead`
  is the share of prompts on which a generic word is more probable than the answer's first token; `generic, kind,
  rivals, rest` are the parts of `logprob`; `answers_CATEGORY` are shares of the most probable words.
- `trajectory_changes`: the change of log p(answer) by each edit, in parts, as `li.decompose` tells them.
- `trajectory_slopes`: slopes of the edit's change per tenfold frequency, by the counts of what had been read by then.
- `trajectory_recall`: one row a prompt: the step at which it is first answered, as trained and under the edit, and how
  often the fact had been read by then.
- `trajectory_spectra`: of each edited matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import Clusters, with_interval
from laser_interp.plots.names import CATEGORIES
from laser_interp.statistics.decomposition import WHOLE, decompose, parts_of
from laser_interp.statistics.formatting import interval, is_known, p_value, percent, row_in_nats
from laser_interp.statistics.frequency_slope import MASKED_LOG_ODDS, frequency_slopes, log_odds_changes
from laser_interp.statistics.paired_scores import KEYS, pair

_PERMUTATIONS = 2000


def training_tables(
    scored: Mapping[int, tuple[pd.DataFrame, pd.DataFrame]], counts: Mapping[int, pd.DataFrame] | None
) -> dict[str, pd.DataFrame]:
    """The tables, from the scores and spectra at each step, and the counts that hold then."""
    steps = list(scored)
    last = scored[steps[-1]][0]
    groups = _groups(last, None if counts is None else counts[steps[-1]])
    tables: dict[str, list[pd.DataFrame]] = {"": [], "_changes": [], "_slopes": [], "_spectra": []}
    for step, (scores, spectra) in scored.items():
        labels = list(dict.fromkeys(scores["edit"]))
        tables[""].append(_means(scores, groups).assign(step=step))
        for label in labels[1:]:
            tables["_changes"].append(decompose(scores, edit=label).table.assign(step=step, edit=label))
        if counts is not None:
            tables["_slopes"].append(_slopes(scores, counts[step]).assign(step=step))
        tables["_spectra"].append(spectra.assign(step=step))
    out = {f"trajectory{name}": pd.concat(rows, ignore_index=True) for name, rows in tables.items() if rows}
    out["trajectory_recall"] = _recall({step: scores for step, (scores, _) in scored.items()}, counts)
    return out


def _groups(last: pd.DataFrame, counts: pd.DataFrame | None) -> dict[str, pd.Index]:
    """Name -> the prompts of a group."""
    base, laser = (last[last["edit"] == edit].set_index(KEYS) for edit in ("base", "laser"))
    index = base.index
    groups = {"all": index, "fixed": index[(~base["correct"] & laser["correct"].loc[index]).to_numpy()]}
    if counts is not None:
        n_both = counts.set_index("fact_id")["n_both"].reindex(index.get_level_values("fact_id")).to_numpy(float)
        median = np.nanmedian(n_both)
        groups |= {"rare": index[n_both < median], "frequent": index[n_both >= median]}
    return groups


def _means(scores: pd.DataFrame, groups: Mapping[str, pd.Index]) -> pd.DataFrame:
    rows = []
    for label, of_edit in scores.groupby("edit", sort=False):
        of_edit = of_edit.set_index(KEYS)
        for name, prompts in groups.items():
            some = of_edit.loc[prompts]
            if some.empty:
                continue
            clusters, everything = Clusters(some["subject"]), np.ones(len(some), bool)
            generic_ahead = (some["generic_logprob"] > some["first_logprob"]).to_numpy()
            row: dict[Any, Any] = {"edit": label, "facts": name, "n": len(some)}
            row |= with_interval("accuracy", clusters.rate(some["correct"].to_numpy(), everything))
            row |= with_interval("generic_ahead", clusters.rate(generic_ahead, everything))
            row |= with_interval("logprob", clusters.difference(some["logprob"].to_numpy())[:3])
            row |= parts_of(some).mean().to_dict()
            row["p_generic"] = float(some["p_generic"].mean())
            rows.append(row | {f"answers_{c}": float((some["category"] == c).mean()) for c in CATEGORIES})
    return pd.DataFrame(rows)


def _slopes(scores: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    known = scores[scores["fact_id"].isin(counts["fact_id"])]
    rows = pair(known, counts, baseline="base", edit="laser")
    change = (rows["logprob_after"] - rows["logprob_before"]).to_numpy(float)
    outcomes = {WHOLE: change} | log_odds_changes(rows)
    return frequency_slopes(rows, outcomes, n_permutations=_PERMUTATIONS, seed=0)


def _recall(scored: Mapping[int, pd.DataFrame], counts: Mapping[int, pd.DataFrame] | None) -> pd.DataFrame:
    """The step at which each prompt is first answered: NaN where it never is."""
    steps = list(scored)
    first = scored[steps[0]]
    out = first[first["edit"] == "base"].set_index(KEYS)[["subject", "relation"]].copy()
    read = None
    if counts is not None:
        read = np.stack(
            [c.set_index("fact_id")["n_both"].reindex(out.index.get_level_values(0)) for c in counts.values()]
        )
        out["frequency"] = read[-1]
    for label in [label for label in dict.fromkeys(first["edit"]) if label in ("base", "laser", "each")]:
        right = np.stack(
            [s[s["edit"] == label].set_index(KEYS)["correct"].loc[out.index].to_numpy() for s in scored.values()]
        )
        at, ever = right.argmax(0), right.any(0)
        out[label] = np.where(ever, np.array(steps, float)[at], np.nan)
        out[f"{label}_at_end"] = right[-1]
        if read is not None:
            out[f"{label}_read"] = np.where(ever, np.take_along_axis(read, at[None], 0)[0], np.nan)
    return out.reset_index()


def in_words(tables: Mapping[str, pd.DataFrame], edit: str) -> Sequence[str]:
    """What the tables say."""
    means, changes = tables["trajectory"], tables["trajectory_changes"]
    whole = changes[(changes["edit"] == "laser") & (changes["part"] == WHOLE)]
    steps = sorted(means["step"].unique())
    at: dict[Any, Any] = {
        (row["step"], row["edit"], row["facts"]): row for row in means.sort_values("step").to_dict("records")
    }
    first, last = at[steps[0], "base", "all"], at[steps[-1], "base", "all"]
    told = [
        f"From step {steps[0]} to step {steps[-1]}, accuracy goes from {percent(first['accuracy'])} to "
        f"{percent(last['accuracy'])} as trained, and from {percent(at[steps[0], 'laser', 'all']['accuracy'])} to "
        f"{percent(at[steps[-1], 'laser', 'all']['accuracy'])} under {edit} ({int(last['n'])} test prompts)."
    ]
    helps = whole[whole["lo"] > 0]
    if helps.empty:
        told.append("At no checkpoint does the interval of the edit's change of log p(answer) lie above 0.")
    else:
        begin, end = helps.iloc[0], whole.iloc[-1]
        told.append(
            f"The edit first raises the log-probability of the answer at step {int(begin['step'])}, by "
            f"{row_in_nats(begin)}; at the end it changes it by {row_in_nats(end)}."
        )
    told += [line for line in (_of_groups(at, steps), _of_discarded(at, steps), _brought_forward(tables)) if line]
    if "trajectory_slopes" in tables:
        told.append(_of_slopes(tables["trajectory_slopes"]))
    for site, rows in tables["trajectory_spectra"].groupby("site", sort=False):
        a, b, end = rows.iloc[0], rows.iloc[-2], rows.iloc[-1]
        line = f"The stable rank of {site} goes from {a['stable_rank']:.1f} to {end['stable_rank']:.1f}."
        if is_known(a["overlap_in"]):
            k, then = int(a["rank_kept"]), f", and with those of step {int(b['step'])} by {percent(b['overlap_in'])}"
            line += (
                f" The space of the {k} input directions that the edit keeps at the end overlaps with the first {k} of "
                f"step {int(a['step'])} by {percent(a['overlap_in'])}{then if len(rows) > 2 else ''} (mean squared "
                "cosine of the principal angles)."
            )
        told.append(line)
    return told


def _of_groups(at: Mapping[Any, Mapping[str, Any]], steps: Sequence[int]) -> str:
    """Until when a generic word is more probable than the answer."""
    parts = []
    for name in ("frequent", "rare"):
        if (steps[-1], "base", name) not in at:
            return ""
        shares = {edit: [at[step, edit, name]["generic_ahead"] for step in steps] for edit in ("base", "laser")}
        ends = []
        for edit, said in (("base", "as trained"), ("laser", "under the edit")):
            below = [step for step, share in zip(steps, shares[edit], strict=True) if share < 0.5]
            end = at[steps[-1], edit, name]
            shown = interval(*(100 * end[f"generic_ahead{x}"] for x in ("", "_lo", "_hi")), form=".0f")
            when = f"is below half first at step {below[0]}" if below else "is never below half"
            ends.append(f"{said} this share {when}, and {shown} % at the end")
        parts.append(
            f"On {100 * shares['base'][0]:.0f} % of the prompts of {name} facts a generic word is more probable than "
            f"the answer at first; {'; '.join(ends)}."
        )
    return " ".join(parts)


def _of_discarded(at: Mapping[Any, Mapping[str, Any]], steps: Sequence[int]) -> str:
    """What the discarded part answers on the prompts that the edit fixes in the end."""
    if (steps[-1], "discarded", "fixed") not in at:
        return "The edit fixes no prompt at the last checkpoint."
    shown = dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1]))
    said = ", ".join(
        f"{100 * at[step, 'discarded', 'fixed']['answers_generic']:.0f} % at step {step} (as trained "
        f"{100 * at[step, 'base', 'fixed']['answers_generic']:.0f} %)"
        for step in shown
    )
    n = int(at[steps[-1], "discarded", "fixed"]["n"])
    cost = [[-at[step, edit, "all"]["generic"] for step in (steps[0], steps[-1])] for edit in ("base", "discarded")]
    wrong = at[steps[-1], "discarded", "fixed"]["answers_same_type"]
    return (
        f"On the {n} prompts that the edit fixes at the end, the discarded part alone answers with a generic word in "
        f"{said}; with a wrong answer of the right type in {100 * wrong:.0f} % at the end. On all prompts, generic "
        f"words cost the answer {cost[0][0]:.2f} nats at the first checkpoint and {cost[0][1]:.2f} at the last as "
        f"trained, and {cost[1][0]:.2f} and {cost[1][1]:.2f} in the discarded part alone."
    )


def _brought_forward(tables: Mapping[str, pd.DataFrame]) -> str:
    """Whether the edit answers earlier what training teaches anyway."""
    recall = tables["trajectory_recall"]
    both = recall[recall["base"].notna() & recall["laser"].notna()]
    if both.empty:
        return "No prompt is answered both as trained and under the edit."
    sooner, later = (both["laser"] < both["base"]).to_numpy(), (both["laser"] > both["base"]).to_numpy()
    net = Clusters(both["subject"]).difference(sooner.astype(float) - later)
    only = recall[recall["laser"].notna() & recall["base"].isna()]
    ahead = both[sooner]
    median = (ahead["base"] / ahead["laser"].clip(lower=1)).median()
    times = "" if ahead.empty else f" (its step is earlier by a factor of {median:.1f} in the median)"
    return (
        f"Of {len(both)} prompts that are answered at some checkpoint both as trained and under the edit, the edit "
        f"answers {int(sooner.sum())} at an earlier one{times}, and {int(later.sum())} at a later one (difference "
        f"{interval(100 * net[0], 100 * net[1], 100 * net[2], '+.0f')} % of them). {len(only)} more are answered "
        "under the edit alone: training had not yet taught them, or would not."
    )


def _of_slopes(slopes: pd.DataFrame) -> str:
    of = slopes[(slopes["of"] == MASKED_LOG_ODDS) & slopes["lo"].notna()]
    if of.empty:
        return "Slopes by frequency cannot be estimated at any checkpoint."
    shown = [row for row in of.to_dict("records") if row["lo"] > 0 or row["hi"] < 0]
    last = of.iloc[-1]
    said = (
        "With generic words forbidden, the slope of the edit's change in log-odds per tenfold frequency is "
        f"{row_in_nats(last, 'slope')} at step {int(last['step'])}"
    )
    p = f" ({p_value(last['p'])})" if is_known(last["p"]) else ""
    some = f"; its interval excludes 0 at {len(shown)} of {len(of)} checkpoints"
    return f"{said}{p}{some}."
