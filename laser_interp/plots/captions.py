"""Captions in plain text: what is drawn, over how many, of which model and edit."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

CAPTIONS = {
    "loss_by_layer": (
        "Change of the loss (mean −log p of the answer, nats) when one matrix keeps the fraction ρ of its rank, by"
        " layer and matrix; below zero is better. The axis is linear to ±.5 and logarithmic beyond. Bands are 95 % "
        "intervals, errors clustered by subject."
    ),
    "spectrum": (
        "Singular values of the edited matrix, the Marchenko–Pastur edge (the largest value that a matrix of noise"
        " alone would have, its scale estimated from the median), and the rank that LASER keeps."
    ),
    "rare_facts": (
        "(a, b) The paper's views: accuracy on facts of training frequency at most N, and corrected answers for "
        "each originally right one. (c) Top-1 by frequency in bins of equal numbers of facts. (d) Among prompts "
        "answered wrong before, the share fixed; among those right before, the share broken. Bars are 95 % "
        "intervals over subjects (Wilson's, at the effective number of prompts). "
        "(a) and (b) slope even for an edit that ignores frequency; (d) need not."
    ),
    "discarded_answers": (
        "Category of the most probable answer as trained, under LASER, and under growing shares of the discarded "
        "part alone (smallest singular values first). On the facts that LASER fixed, the first two are what they are "
        "by definition, and are left out. Lines are 95 % intervals of the share of generic words, over subjects; those "
        "of the others are in the data."
    ),
    "controls": (
        "Top-1 under LASER and under its discarded part alone; then, from the best to the worst, under controls that "
        "edit as much of the same matrix otherwise, and without an edit but with generic words masked. Lines are 95 % "
        "intervals over subjects. Bars of controls drawn several times are means, their dots the lowest and highest "
        "draw."
    ),
    "relations": (
        "Accuracy of each relation as trained and under the edit, the largest gain first. No intervals are drawn: most "
        "relations have too few prompts for one that says anything; the change over all of them has one."
    ),
    "robustness": (
        "Share of facts answered right on all their prompts, per prompt, on any prompt, and agreement among "
        "prompts. Lines are 95 % intervals over subjects."
    ),
    "composition": (
        "Composition: accuracy and loss after each edit that was kept, in order, on validation, which chose the "
        "edits, and on test, which did not. No intervals are drawn."
    ),
    "transfer": (
        "Change of each task's score on test, in points, under the edit chosen for each task; below each its 95 % "
        "interval over subjects."
    ),
    "attribution_map": (
        "Mean gradient of log p(answer) with respect to the gain of each singular direction, summed over bins of "
        "directions from the largest to the smallest; below zero, removing the directions helps. No intervals are "
        "drawn."
    ),
    "compared_edits": (
        "Change of accuracy, and odds ratio of a wrong answer being fixed per tenfold frequency, of the edit and "
        "of random edits of equal norm. Intervals hold for all edits at once (Bonferroni, 95 %). An edit "
        "without an odds ratio fixed too little to tell; what is off the scale ends at its edge, an estimate as an "
        "arrow."
    ),
    "frequency_simulation": (
        "Simulated data sets in which frequency says nothing about being fixed (a) or does (b): how often a method "
        "finds an association at 5 %. Bars are 95 % intervals of the simulation; the dotted line is 5 %. The replaced "
        "method is a logistic regression with a dummy for each relation and errors clustered by subject."
    ),
    "frequency_trap": (
        "Simulated. (a) An edit that fixes wrong answers at a rate that ignores frequency: gain in accuracy, and "
        "share fixed of those wrong. (b) How often each statistic is significant at 5 %, by the size of the true "
        "effect."
    ),
}

# Figures of one edit, which their captions name; the others show many, or none.
OF_ONE_EDIT = ("spectrum", "rare_facts", "discarded_answers", "controls", "relations", "robustness", "compared_edits")


def caption(name: str, tables: Mapping[str, pd.DataFrame], needed: Sequence[str], about: Mapping[str, Any]) -> str:
    """A caption in plain text: what is drawn, over how many, of which model and edit, and what draws it again."""
    parts = [_sample(name, tables, needed), f"model {about['model']}" if about.get("model") else ""]
    if name in OF_ONE_EDIT and about.get("edit"):
        parts.append(f"edit {about['edit']}")
    tail = f" ({', '.join(filter(None, parts))}.)" if any(parts) else ""
    drawn = f" Drawn by `{about['command']}`." if about.get("command") else ""
    return f"{CAPTIONS[name]}{tail}{drawn}\n"


def _sample(name: str, tables: Mapping[str, pd.DataFrame], needed: Sequence[str]) -> str:
    """How many prompts or facts a figure shows, and of which split."""
    first, last = (tables[needed[k]] for k in (0, -1))
    if name in ("spectrum", "frequency_trap", "frequency_simulation"):
        return ""
    if name == "composition":
        sizes = last.drop_duplicates("split").set_index("split")["n"]
        return ", ".join(f"n = {n} prompts of the {split} split" for split, n in sizes.items())
    if name == "attribution_map":  # summaries have a row a direction, or one a direction and group
        n = first.groupby(["site", "direction"])["n"].sum().max()
        return f"n = {int(n)} prompts"
    if name == "relations":
        return f"n = {int(first['n_test'].sum())} prompts of {len(first)} relations, test split"
    if name == "robustness":
        return f"n = {int(first['n_facts'].max())} facts, test split"
    if name == "transfer":
        lo, hi = int(first["n"].min()), int(first["n"].max())
        return f"n = {lo if lo == hi else f'{lo} to {hi}'} prompts a task, test split"
    if name == "loss_by_layer":  # the split that it draws
        split = "test" if "test" in set(first["split"]) else str(first["split"].iloc[0])
        return f"n = {int(first.loc[first['split'] == split, 'n'].max())} prompts, {split} split"
    n = f"n = {int(first['n'].sum() if name == 'rare_facts' else first['n'].max())} prompts, " if "n" in first else ""
    return f"{n}test split"
