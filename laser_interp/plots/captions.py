"""Captions in plain text: what is drawn, over how many, of which model and edit."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from laser_interp.plots.loss_by_layer import drawn_split

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
        "An edit that ignores frequency also gives a slope in (a) and (b), but not in (d)."
    ),
    "discarded_answers": (
        "Category of the most probable answer as trained, under LASER, and under growing shares of the discarded "
        "part alone (smallest singular values first). For the facts that LASER fixed, the first two are left out: by "
        "definition all answers are wrong as trained and right under LASER. Lines are 95 % intervals of the share of "
        "generic words, over subjects; the data hold the intervals of the other categories."
    ),
    "controls": (
        "Top-1 as trained, under LASER, and under its discarded part alone; then the controls from the best to the "
        "worst. Controls are other edits of the model, and the model as trained with generic words masked. Lines are "
        "95 % intervals over subjects. For a control drawn several times, the bar is the mean of the draws, and dots "
        "mark the lowest and highest draw."
    ),
    "relations": (
        "Accuracy of each relation as trained and under the edit, the largest gain first. No intervals are drawn, "
        "because most relations have few prompts; the report gives an interval for the change over all relations."
    ),
    "robustness": (
        "Share of facts that are right on all of their prompts; share of prompts that are right; share of facts that "
        "are right on any prompt; and share of pairs of a fact's prompts that get the same answer. Lines are 95 % "
        "intervals over subjects."
    ),
    "composition": (
        "Composition: accuracy and loss after each edit that was kept, in order, on validation, which chose the "
        "edits, and on test, which did not. No intervals are drawn."
    ),
    "transfer": (
        "Change of each task's score on test, in points, under the edit chosen for each task. With up to five tasks, "
        "the 95 % interval over subjects stands below each number; with more, it is only in the data."
    ),
    "attribution_map": (
        "Mean gradient of log p(answer) with respect to the gain of each singular direction, summed over bins of "
        "directions from the largest to the smallest; below zero, removing the directions helps. No intervals are "
        "drawn."
    ),
    "compared_edits": (
        "Change of accuracy, and odds ratio of a wrong answer being fixed per tenfold frequency, of the edit and "
        "of random edits of equal norm. Intervals hold for all edits at once (Bonferroni, 95 %). An edit "
        "without an odds ratio fixed too few answers to estimate one. Intervals are cut at the edge of the scale, and "
        "an arrow marks an estimate beyond it."
    ),
    "frequency_simulation": (
        "Simulated data sets in which frequency has no effect on being fixed (a) or has one (b): how often a method "
        "finds an association at 5 %. Bars are 95 % intervals of the simulation; the dotted line is 5 %. The replaced "
        "method is a logistic regression with a dummy for each relation and errors clustered by subject."
    ),
    "frequency_trap": (
        "Simulated data. (a) An edit that fixes wrong answers at the same rate at every frequency: its gain in "
        "accuracy, and the share of wrong answers that it fixes. (b) How often each statistic is significant at 5 %, "
        "for each true effect."
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
        split = drawn_split(first)
        return f"n = {int(first.loc[first['split'] == split, 'n'].max())} prompts, {split} split"
    n = f"n = {int(first['n'].sum() if name == 'rare_facts' else first['n'].max())} prompts, " if "n" in first else ""
    return f"{n}test split"
