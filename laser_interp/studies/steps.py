"""The steps of a study: each asks one question and returns its tables."""

from dataclasses import replace

import numpy as np
import pandas as pd

from laser_interp.discarded.answers import answers_under, category_shares, favoured_answers
from laser_interp.discarded.attribution import attribute
from laser_interp.edits.controls import CONTROLS, same_rank_in_layer
from laser_interp.edits.edit import Edit
from laser_interp.edits.spectra import spectrum
from laser_interp.facts.tasks import own_task
from laser_interp.models.model import Model
from laser_interp.scoring.categories import CATEGORIES
from laser_interp.scoring.scores import score, summarise
from laser_interp.scoring.text_loss import perplexity
from laser_interp.selection.search_run import search
from laser_interp.statistics.association import Association, associate
from laser_interp.statistics.classification import metrics
from laser_interp.statistics.cluster_intervals import Clusters
from laser_interp.statistics.paraphrases import robustness
from laser_interp.studies.context import StudyContext, lifted_cells_are_in_the_notes
from laser_interp.studies.relations import by_relation
from laser_interp.studies.task_transfer import transfer

Tables = dict[str, pd.DataFrame]
METRICS = ("accuracy", "score", "top1", "top10", "loss", "generic_masked_top1", "candidate_top1")


def selection(context: StudyContext) -> Tables:
    """Which truncation helps? The search, with every ρ and the discarded part at the chosen site."""
    if context.task.rule == "next_token":
        _ = context.around  # its cells are for the page
    return {"cells": context.search.cells}


def controls(context: StudyContext) -> Tables:
    """Would anything else have done as well? The edit on test, beside its controls."""
    scores = context.scores
    return {
        "scores": scores,
        "controls": control_table(scores),
        "metrics": metrics(scores, context.task.rule, seed=context.settings.study_seed),
    }


def control_table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per edit or control: means of `METRICS` (over draws too), a 95 % interval of the accuracy over
    subjects, the lowest and the highest accuracy of any draw, and whether it edits a weight.

    "generic_masked" is the model as trained, with generic words forbidden where the answer begins.
    """
    base = scores[scores["edit"] == "base"]
    clusters = Clusters(base["subject"])
    # The mean over draws for each prompt, in the order of the base's rows
    prompts = pd.MultiIndex.from_frame(base[["fact_id", "prompt_id"]])
    name = scores["edit"].str.partition("/")[0].rename("control")
    each = scores["correct"].astype(float).groupby([name, scores["fact_id"], scores["prompt_id"]]).mean()
    intervals = {control: clusters.mean(each[control].reindex(prompts).to_numpy())[1:] for control in name.unique()}
    intervals["generic_masked"] = clusters.mean(base["generic_masked_top1"].to_numpy(float))[1:]
    means = summarise(scores)
    means["control"] = means["edit"].str.partition("/")[0]
    grouped = means.groupby("control", sort=False)
    table = grouped[[*METRICS, "p_generic"]].mean()
    table["n"] = grouped["n"].first()
    table["n_draws"] = grouped.size()
    table["accuracy_lowest"], table["accuracy_highest"] = grouped["accuracy"].min(), grouped["accuracy"].max()
    table["edits_weight"] = ~table.index.isin(["base"])
    table = pd.concat([table.reset_index(), pd.DataFrame([_generic_masked(base)])], ignore_index=True)
    table[["accuracy_lo", "accuracy_hi"]] = [intervals[control] for control in table["control"]]
    return table


def _generic_masked(base: pd.DataFrame) -> dict[str, object]:
    """The model as trained, with generic words forbidden where the answer begins."""
    top1 = float(base["generic_masked_top1"].mean())
    same = ("accuracy", "score", "top1", "generic_masked_top1", "accuracy_lowest", "accuracy_highest")
    masked_row: dict[str, object] = dict.fromkeys(same, top1)
    return masked_row | {
        "control": "generic_masked",
        "top10": float((base["generic_masked_rank"] <= 10).mean()),
        "loss": float(-base["generic_masked_logprob"].mean()),
        "candidate_top1": float(base["candidate_top1"].mean()),
        "p_generic": 0.0,
        "n": len(base),
        "n_draws": 1,
        "edits_weight": False,
    }


def relations(context: StudyContext) -> Tables:
    """Is it the same edit for all relations, and does it help on those that it was not chosen on?"""
    if context.task.rule != "next_token":
        return {}
    table = by_relation(context)
    return {"relations": table} if len(table) else {}


def frequency(context: StudyContext) -> Tables:
    """Do the gains fall on rare facts? Beside placebos, and with the frequencies permuted among the facts."""
    if context.counts is None:
        return {}
    association = context.association
    permuted = permuted_association(context)
    return {
        "counts": context.counts,
        "rare_facts": association.table,
        "rare_facts_relations": association.relations,
        "rare_facts_bins": association.bins,
        "rare_facts_cumulative": association.cumulative,
        "rare_facts_paper_ratio": association.paper_ratio,
        "rare_facts_spearman": association.spearman.reset_index(names="of"),
        "rare_facts_effects": association.effects,
        "rare_facts_permuted": permuted.spearman.reset_index(names="of"),
        "rare_facts_placebo": context.placebo.table,
    }


def permuted_association(context: StudyContext) -> Association:
    """The frequency analysis with the frequencies permuted among the facts."""
    assert context.counts is not None
    settings = context.settings
    permuted = context.counts.copy()
    columns = [c for c in ("n_subject", "n_object", "n_both") if c in permuted.columns]
    order = np.random.default_rng(settings.study_seed).permutation(len(permuted))
    permuted[columns] = permuted[columns].to_numpy()[order]
    return associate(context.counted_scores, permuted, seed=settings.study_seed, n_permutations=settings.n_permutations)


def discarded(context: StudyContext) -> Tables:
    """What do the discarded components say? Categories of their answers, for growing shares (section 5.2)."""
    if context.task.rule != "next_token" or not context.discards_something:
        return {}
    answers = favoured_answers(
        context.model,
        context.test.facts,
        context.edit,
        shares=context.settings.shares,
        generic=context.settings.generic,
        progress=context.progress,
    )
    answers, categories = outcomes(answers)
    return {"discarded_answers": answers, "discarded_categories": categories}


def outcomes(answers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers with the `outcome` of their prompt under the edit ("fixed", "broken", "right", "wrong"), and the share of
    each category per (outcome, edit, share), "all" outcomes included."""
    keys = ["fact_id", "prompt_id"]
    right = {
        label: answers.loc[answers["edit"] == label].set_index(keys)["category"] == "correct"
        for label in ("base", "edit")
    }
    before, after = right["base"], right["edit"]
    outcome = pd.Series("wrong", index=before.index)
    outcome[before & after] = "right"
    outcome[~before & after] = "fixed"
    outcome[before & ~after] = "broken"
    attributes = answers.attrs
    answers = answers.join(outcome.rename("outcome"), on=keys)
    answers.attrs |= attributes
    tables = [category_shares(answers).assign(outcome="all")]
    tables += [category_shares(part).assign(outcome=name) for name, part in answers.groupby("outcome", sort=True)]
    return answers, pd.concat(tables, ignore_index=True)


def discarded_controls(context: StudyContext, *, n_draws: int = 3) -> pd.DataFrame:
    """What the discarded part answers, and what comparable parts of the model answer.

    The controls are as many random directions of the same matrix, random directions with the same energy, and the same
    part of the matrix with this name in every other layer.

    Returns:
        One row per control: `control`, the shares `correct, generic, same_type, other`, the number of answers `n`, and
        the mean `similarity` of the answers to the truth. Random controls are averaged over their draws.
    """
    model, edit, seed = context.model, context.edit, context.settings.study_seed
    part = edit.discarded()
    runs: dict[str, Edit | None] = {"base": None, "laser": edit, "discarded": part}
    for draw in range(seed, seed + n_draws):
        for name in ("random_kept", "random_equal_energy"):
            runs[f"{name}/{draw}"] = CONTROLS[name].make(model, part, draw)
    if len(edit.sites) == 1:
        others = [layer for layer in range(model.n_layers) if layer != edit.sites[0].layer]
        runs |= {f"layer_{layer}": same_rank_in_layer(model, part, layer) for layer in others}
    answers = answers_under(model, context.test.facts, runs, top_k=0, progress=context.progress)
    answers["control"] = answers["edit"].str.partition("/")[0]
    shares = answers.groupby("control", sort=False)["category"].value_counts(normalize=True).unstack()
    shares = shares.reindex(columns=list(CATEGORIES)).fillna(0.0)
    by = answers.groupby("control", sort=False)
    return (
        shares.loc[list(dict.fromkeys(answers["control"]))]
        .assign(n=by.size(), similarity=by["similarity"].mean())
        .reset_index()
    )


def paraphrases(context: StudyContext) -> Tables:
    """Are facts right on all of their prompts?"""
    table = robustness(context.scores_of_all_prompts)
    return {"robustness": table} if len(table) else {}


def composition(context: StudyContext) -> Tables:
    """Do several edits together help more than one?"""
    wanted = context.settings.compose
    if not (context.task.rule == "next_token" if wanted is None else wanted):
        return {}
    tables = {"composition": context.composition.steps, "composition_scores": context.composition.scores}
    if context.composition.ranks:
        tables["composed_test"] = context.composition.test
    return tables


def side_effects(context: StudyContext) -> Tables:
    """What does the edit cost elsewhere? Perplexity of running text, where one was given."""
    if context.text is None:
        return {}
    rows = [
        {"edit": name} | perplexity(context.model, context.text, edit)
        for name, edit in (("base", None), ("laser", context.edit))
    ]
    return {"perplexity": pd.DataFrame(rows)}


def directions(context: StudyContext) -> Tables:
    """Which singular directions help or harm?"""
    tables = {"spectrum": spectrum_table(context.model, context.edit)}
    wanted = context.settings.attribute
    if context.task.rule == "next_token" if wanted is None else wanted:
        facts = context.facts.split("validation")
        if context.settings.attributed is not None:
            facts = facts.draw(context.settings.attributed, seed=context.settings.study_seed)
        tables["directions_gradients"] = attribute(context.model, facts, progress=context.progress).summary()
    return tables


def spectrum_table(model: Model, edit: Edit) -> pd.DataFrame:
    """The singular values of an edit's sites: `site, direction, singular_value, noise_edge, rank_kept`."""
    frames = []
    for site, part in edit.parts.items():
        frame = part.spectrum.figure_tables["spectrum"]
        frames.append(frame.assign(site=str(site), rank_kept=int((part.gains != 0).sum())))
    return pd.concat(frames, ignore_index=True)


def control_model(context: StudyContext) -> Tables:
    """A second model, on which the edit should have no effect: as trained, and under its own and this edit."""
    other = context.on_control_model()
    if other is None:
        return {}
    same = Edit(
        {
            site: replace(part, spectrum=spectrum(other.model, site, blocks=part.spectrum.blocks))
            for site, part in context.edit.parts.items()
        },
        context.edit.kind,
        context.edit.rho,
    )
    runs: dict[str, Edit | None] = {"base": None, "own": other.edit, "same": same}
    scores = score(other.model, other.test, runs, progress=False)
    return {"control_model": summarise(scores, ("edit", "site", "rank_kept"))}


def transfer_between_relations(context: StudyContext) -> pd.DataFrame:
    """Treat each relation as a task: its validation facts choose an MLP edit, which is tested on all relations.

    Returns:
        The table of `li.transfer`, with the edit in `cell`. Relations without validation or test facts are left out.
    """
    tasks, chosen = [], {}
    for relation in sorted({fact.relation for fact in context.facts}):
        own = context.facts.keep([fact for fact in context.facts if fact.relation == relation])
        if {"validation", "test"} <= set(own.splits):
            tasks.append(replace(own_task(own), name=relation))
            with lifted_cells_are_in_the_notes():
                result = search(context.model, own, matrices="mlp", test="chosen", progress=context.progress)
            chosen[relation] = result.select()
    edits = {name: selected.edit(context.model) for name, selected in chosen.items()}
    table = transfer(context.model, tasks, edits, progress=context.progress)
    return table.assign(cell=table["edit"].map({name: str(selected.cell) for name, selected in chosen.items()}))


# In the order in which a study takes them.
STEPS = (
    selection,
    controls,
    relations,
    frequency,
    discarded,
    paraphrases,
    composition,
    side_effects,
    directions,
    control_model,
)
