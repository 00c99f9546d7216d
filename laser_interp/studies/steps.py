"""The paper's questions asked of one model: each function here returns tidy tables.

`analyses/` runs them one at a time, `laser-interp reproduce` all of them on the organism.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from laser_interp.discarded.answers import CATEGORIES, answers_under, category_shares, favoured_answers
from laser_interp.edits import edit as edits
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import spectrum
from laser_interp.facts.fact_set import FactSet, load_facts
from laser_interp.facts.published import own_task
from laser_interp.models.model import Model, load_model
from laser_interp.scoring.answer_rules import robustness, transfer
from laser_interp.scoring.scorer import score, summarise
from laser_interp.selection.grid_run import Sweep, sweep
from laser_interp.statistics.association import Association, Comparison, SubjectBootstrap, associate, compare

RANDOM_CONTROLS = {
    "same_spectrum_random": edits.same_spectrum_random,
    "random_subspace": edits.random_subspace,
    "random_kept": edits.random_kept,
    "random_equal_energy": edits.random_equal_energy,
}
PLACEBOS = ("same_spectrum_random", "random_subspace")  # what they subtract has the norm of the discarded part
ALPHAS = (-0.5, 0.25, 0.5, 0.75, 1.5)
SHARES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
METRICS = ("top1", "top10", "loss", "generic_masked_top1", "candidate_top1")


@dataclass(frozen=True)
class Controls:
    """An edit beside everything that should not do what it does.

    Attributes:
        scores: one row per (fact, prompt, edit); random controls are labelled "NAME/SEED".
        table: one row per edit or control: means of the metrics (over draws too), a 95 % interval of top-1 from a
            bootstrap over subjects, the lowest and the highest top-1 of any draw, and whether it edits a weight.
    """

    scores: pd.DataFrame
    table: pd.DataFrame


def controls(
    model: Model,
    facts: FactSet,
    edit: Edit,
    *,
    n_draws: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> Controls:
    """Score an edit, what it discards, and its controls.

    Controls: a random matrix with the discarded part's spectrum subtracted; a random subspace of equal
    norm removed; as many directions kept, but random ones; random directions of equal energy removed;
    as many kept, but the smallest; the matrix zeroed; the same gains in layer 0; and, editing nothing,
    generic words masked in the answers of the model as trained.

    Args:
        n_draws, seed: each random control is drawn with the seeds `seed … seed + n_draws − 1`.
    """
    runs: dict[str, Edit | None] = {"base": None, "laser": edit, "discarded": edit.discarded()}
    for name, make in RANDOM_CONTROLS.items():
        for draw in range(seed, seed + n_draws):
            runs[f"{name}/{draw}"] = make(model, edit, seed=draw)
    runs["bottom_kept"] = edits.bottom_kept(model, edit)
    runs["zeroed"] = edits.zeroed(model, edit.sites)
    if all(site.layer != 0 for site in edit.sites):
        runs["layer_0"] = edits.same_rank_in_layer(model, edit, 0)
    scores = score(model, facts, runs, progress=progress)
    return Controls(scores, control_table(scores))


def control_table(scores: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Means per edit, over draws; see `Controls.table`."""
    base = scores[scores["edit"] == "base"]
    boot = SubjectBootstrap(base["subject"], n_boot, seed)
    # Of each prompt the mean over draws, in the order of the base's rows
    prompts = pd.MultiIndex.from_frame(base[["fact_id", "prompt_id"]])
    name = scores["edit"].str.partition("/")[0].rename("control")
    each = scores["top1"].astype(float).groupby([name, scores["fact_id"], scores["prompt_id"]]).mean()
    intervals = {one: boot.mean(each[one].reindex(prompts).to_numpy())[1:] for one in name.unique()}
    intervals["generic_masked"] = boot.mean(base["generic_masked_top1"].to_numpy(float))[1:]
    means = summarise(scores)
    means["control"] = means["edit"].str.partition("/")[0]
    grouped = means.groupby("control", sort=False)
    table = grouped[[*METRICS, "p_generic"]].mean()
    table["n"] = grouped["n"].first()
    table["n_draws"] = grouped.size()
    table["top1_lowest"], table["top1_highest"] = grouped["top1"].min(), grouped["top1"].max()
    table["edits_weight"] = ~table.index.isin(["base"])
    table = pd.concat([table.reset_index(), pd.DataFrame([_generic_masked(scores)])], ignore_index=True)
    table[["top1_lo", "top1_hi"]] = [intervals[name] for name in table["control"]]
    return table


def _generic_masked(scores: pd.DataFrame) -> dict[str, object]:
    """The model as trained, with generic words forbidden where the answer begins."""
    base = scores[scores["edit"] == "base"]
    masked = base["logprob"] - np.log1p(-base["p_generic"].clip(upper=1 - 1e-12))
    top1 = float(base["generic_masked_top1"].mean())
    return {
        "control": "generic_masked",
        "top1": top1,
        "top10": float((base["generic_masked_rank"] <= 10).mean()),
        "loss": float(-masked.mean()),
        "generic_masked_top1": top1,
        "candidate_top1": float(base["candidate_top1"].mean()),
        "p_generic": 0.0,
        "n": len(base),
        "n_draws": 1,
        "top1_lowest": top1,
        "top1_highest": top1,
        "edits_weight": False,
    }


def rare_facts(
    scores: pd.DataFrame, counts: pd.DataFrame, *, seed: int = 0, n_boot: int = 1000
) -> tuple[Association, Association]:
    """The frequency analysis, and the same with the frequencies permuted among the facts."""
    permuted = counts.copy()
    columns = [c for c in ("n_subject", "n_object", "n_both") if c in counts.columns]
    order = np.random.default_rng(seed).permutation(len(counts))
    permuted[columns] = counts[columns].to_numpy()[order]
    return (
        associate(scores, counts, seed=seed, n_boot=n_boot),
        associate(scores, permuted, seed=seed, n_boot=n_boot),
    )


def placebo(scores: pd.DataFrame, counts: pd.DataFrame, *, edit: str = "laser", seed: int = 0) -> Comparison:
    """The same question asked of random edits of equal norm, which should show nothing."""
    random = [name for name in dict.fromkeys(scores["edit"]) if str(name).partition("/")[0] in PLACEBOS]
    return compare(scores, counts, edits=[edit, *random], placebos=random, seed=seed)


def paraphrases(scores: pd.DataFrame, edits: Sequence[str] = ("base", "laser"), *, seed: int = 0) -> pd.DataFrame:
    """Whether facts are right on all of their prompts; see `judge.robustness`, of which this is one on scores."""
    chosen = scores[scores["edit"].isin(list(edits))]
    return robustness(chosen.assign(prediction=chosen["top_answer"], correct=chosen["top1"]), seed=seed)


def discarded_answers(
    model: Model,
    facts: FactSet,
    edit: Edit,
    *,
    shares: Sequence[float] = SHARES,
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What growing shares of the discarded part answer.

    Returns:
        Answers, one row per (fact, prompt, edit), with the `outcome` of the prompt under the edit
        ("fixed", "broken", "right", "wrong"); and the share of each category per (outcome, edit,
        share), "all" outcomes included.
    """
    return outcomes(favoured_answers(model, facts, edit, shares=shares, progress=progress))


def outcomes(answers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers with the `outcome` of their prompt, and the shares of categories by outcome; see `discarded_answers`."""
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
    told = answers.attrs
    answers = answers.join(outcome.rename("outcome"), on=keys)
    answers.attrs |= told
    tables = [category_shares(answers).assign(outcome="all")]
    tables += [category_shares(part).assign(outcome=name) for name, part in answers.groupby("outcome", sort=True)]
    return answers, pd.concat(tables, ignore_index=True)


def transfer_between_relations(model: Model, facts: FactSet, *, progress: bool = True) -> pd.DataFrame:
    """Each relation as a task of its own: the MLP edit that its validation facts choose, tested on all relations.

    Returns:
        See `judge.transfer`; `cell` says which edit it was. Relations without facts in either split are left out.
    """
    tasks, chosen = [], {}
    for relation in sorted({fact.relation for fact in facts}):
        own = facts.keep([fact for fact in facts if fact.relation == relation])
        if {"validation", "test"} <= set(own.splits):
            tasks.append(replace(own_task(own), name=relation))
            with _told_elsewhere():
                chosen[relation] = sweep(model, own, matrices="mlp", progress=progress).select()
    table = transfer(model, tasks, {name: one.edit(model) for name, one in chosen.items()}, progress=progress)
    return table.assign(cell=table["edit"].map({name: one.cell for name, one in chosen.items()}))


def discarded_controls(
    model: Model, facts: FactSet, edit: Edit, *, n_draws: int = 3, seed: int = 0, progress: bool = True
) -> pd.DataFrame:
    """What the discarded part answers, beside parts that should not answer so.

    Controls: as many directions of the same matrix, drawn at random; random directions with as much energy; the
    same part of the matrix's namesakes in other layers, where this edit does nothing.

    Returns:
        The share of each category, one row a control: `control, correct, generic, same_type, other, n`, and
        `similarity` of the answers to the truth. Random ones are means over their draws.
    """
    part = edit.discarded()
    runs: dict[str, Edit | None] = {"base": None, "laser": edit, "discarded": part}
    for draw in range(seed, seed + n_draws):
        runs[f"random_kept/{draw}"] = edits.random_kept(model, part, seed=draw)
        runs[f"random_equal_energy/{draw}"] = edits.random_equal_energy(model, part, seed=draw)
    if len(edit.sites) == 1:
        runs |= {
            f"layer_{n}": edits.same_rank_in_layer(model, part, n)
            for n in range(model.n_layers)
            if n != edit.sites[0].layer
        }
    answers = answers_under(model, facts, runs, top_k=0, progress=progress)
    answers["control"] = answers["edit"].str.partition("/")[0]
    shares = answers.groupby("control", sort=False)["category"].value_counts(normalize=True).unstack()
    shares = shares.reindex(columns=list(CATEGORIES)).fillna(0.0)
    by = answers.groupby("control", sort=False)
    return (
        shares.loc[list(dict.fromkeys(answers["control"]))]
        .assign(n=by.size(), similarity=by["similarity"].mean())
        .reset_index()
    )


def association_tables(
    association: Association, permuted: Association, placebo: Comparison | None = None
) -> dict[str, pd.DataFrame]:
    """The tables of the frequency analysis, by the names that figures know them by."""
    more = {} if placebo is None else {"rare_facts_placebo": placebo.table}
    return more | {
        "rare_facts": association.table,
        "rare_facts_relations": association.relations,
        "rare_facts_bins": association.bins,
        "rare_facts_cumulative": association.cumulative,
        "rare_facts_paper_ratio": association.paper_ratio,
        "rare_facts_spearman": association.spearman.reset_index(names="of"),
        "rare_facts_regression": association.regression,
        "rare_facts_permuted": permuted.spearman.reset_index(names="of"),
    }


def control_organism(edit: Edit, out: str | Path | None = None, *, progress: bool = True) -> pd.DataFrame:
    """The organism trained without generic continuations, on its own test facts.

    Returns:
        A row for the model as trained, for the best edit its own validation chooses, and for the given
        edit's rank at the same site.
    """
    model, facts = load_model("organism-control"), load_facts("organism-control")
    own = quiet_sweep(model, facts, out, progress=progress).select().edit(model)
    runs = {"base": None, "own": own, "same": _same_ranks(model, edit)}
    return summarise(score(model, facts.split("test"), runs, progress=False), ("edit", "site", "rank_kept"))


def _same_ranks(model: Model, edit: Edit) -> Edit:
    return Edit(
        {site: replace(part, spectrum=spectrum(model, site)) for site, part in edit.parts.items()}, edit.kind, edit.rho
    )


def spectra(model: Model, edit: Edit) -> pd.DataFrame:
    """The singular values of an edit's sites: `site, direction, singular_value, noise_edge, rank_kept`."""
    frames = []
    for site, part in edit.parts.items():
        known = spectrum(model, site)
        frames.append(
            pd.DataFrame({"direction": np.arange(known.max_rank), "singular_value": known.S.numpy()}).assign(
                site=str(site), noise_edge=known.noise_edge, rank_kept=int((part.gains != 0).sum())
            )
        )
    return pd.concat(frames, ignore_index=True)


def around(model: Model, facts: FactSet, site: Site, out: str | Path | None, *, progress: bool = True) -> Sweep:
    """At one site: every ρ, what it discards, and that part injected at several strengths."""
    with _told_elsewhere():
        return sweep(
            model, facts, matrices=[site.matrix], layers=[site.layer], alphas=ALPHAS, controls=["discarded"], out=out,
            progress=progress,
        )  # fmt: skip


def quiet_sweep(model: Model, facts: FactSet, out: str | Path | None, *, progress: bool = True) -> Sweep:
    """A sweep whose lifted and dropped cells the caller tells of itself."""
    with _told_elsewhere():
        return sweep(model, facts, out=out, progress=progress)


@contextmanager
def _told_elsewhere() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\d+ cells of the grid")
        yield
