"""The main job: the whole argument of the paper, on the model organism."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.discarded.attribution import attribute
from laser_interp.facts.fact_set import load_facts
from laser_interp.frequency import count
from laser_interp.models.model import load_model
from laser_interp.organism import corpus_of
from laser_interp.organism.train import one_thread
from laser_interp.plots import figures as plots
from laser_interp.scoring.scorer import score
from laser_interp.selection.composition import compose
from laser_interp.statistics.association import Association, Gain, gain
from laser_interp.storage import tables as results
from laser_interp.studies import steps as study

SEED = 0
COLUMNS = ["n_docs", "n_subject", "n_object", "n_both"]


@one_thread()
def reproduce(out: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Run the main job and write `summary.json`, `SUMMARY.md`, tables and figures into `out`.

    Returns:
        What `summary.json` holds; every number is computed in this run. Done parts of the sweep are
        taken up again.

    Raises:
        ValueError: `out` holds another run.
    """
    started = time.perf_counter()
    out = Path(out)
    model, facts = load_model("organism"), load_facts("organism")
    grid = study.quiet_sweep(model, facts, out / "sweep", progress=progress)
    selection = grid.select()
    provenance = {
        "model": model.name,
        "edit": selection.cell,
        "weights_sha256": model.weights_sha256,
        "facts_sha256": facts.sha256,
        "seed": SEED,
    }
    laser = selection.edit(model)
    study.around(model, facts, selection.site, out / "sweep-selected", progress=progress)
    test = facts.split("test")

    counts = count(facts, "organism", progress=progress)
    matched, mismatched = _against_ledger(counts)
    controls = study.controls(model, test, laser, seed=SEED, progress=progress)
    association, permuted = study.rare_facts(controls.scores, counts, seed=SEED)
    placebo = study.placebo(controls.scores, counts, seed=SEED)
    answers, categories = study.discarded_answers(model, test, laser, progress=progress)
    composed = compose(model, facts, out=out / "composed", progress=progress)
    together = score(model, test, {"composed": composed.edit(model)}, progress=progress)
    control = study.control_organism(laser, out / "sweep-control", progress=progress)

    tables: dict[str, pd.DataFrame] = {
        "layer_sweep": grid.cells,
        "controls": controls.table,
        "counts": counts,
        **study.association_tables(association, permuted, placebo),
        "control_organism": control,
        "discarded_answers": answers,
        "discarded_categories": categories,
        "scores": controls.scores,
        "robustness": study.paraphrases(controls.scores, seed=SEED),
        "composition": composed.steps,
        "composition_scores": composed.scores,
        "spectrum": study.spectra(model, laser),
        "directions_gradients": attribute(model, facts.split("validation"), progress=progress).summary(),
    }
    schemas = {"layer_sweep": "cells", "counts": "counts", "discarded_answers": "answers", "scores": "scores"}
    schemas["composition"] = "steps"
    for name, table in tables.items():
        results.write_table(table, out / "tables" / f"{name}.parquet", schemas.get(name), provenance)
    about = {"model": model.name, "edit": selection.cell, "command": f"python -m figures {out}"}
    figures = plots.draw_all(tables, out / "figures", about=about)

    summary = {
        "model": {"name": model.name, "n_params": model.n_params, "weights_sha256": model.weights_sha256},
        "selected": {"site": str(selection.site), "rho": selection.rho, "rank": selection.rank},
        "test": _test(controls.table),
        "by_frequency": [
            {
                "lo": row["lo"],
                "hi": row["hi"],
                "n": int(row["n"]),
                "base_top1": row["base_top1"],
                "laser_top1": row["edit_top1"],
                "p_fixed_given_wrong": row["p_fixed_given_wrong"],
                "p_broken_given_right": row["p_broken_given_right"],
            }
            for row in association.bins.to_dict("records")
        ],
        "spearman": _spearman(association),
        "spearman_permuted": _spearman(permuted),
        "fixed_given_wrong_p_value": association.p_value,
        "counts": {"matched": matched, "mismatched": mismatched},
        "discarded": _discarded(categories),
        "paraphrases": {row.pop("edit"): row for row in tables["robustness"].to_dict("records")},
        "composed": _composed(str(composed), pd.concat([controls.scores, together])),
        "control": _control(control),
        "notes": list(grid.notes),
        "code_version": results.code_version(),
        "seed": SEED,
        "seconds": round(time.perf_counter() - started, 1),
    }
    results.write_json(summary, out / "summary.json")
    text = describe(summary, association, gain(controls.scores, seed=SEED), [p for p in figures if p.suffix == ".pdf"])
    with results.replacing(out / "SUMMARY.md") as path:
        path.write_text(text, encoding="utf-8")
    return summary


def _against_ledger(counts: pd.DataFrame) -> tuple[int, int]:
    ledger = corpus_of("organism").ledger
    both = counts.merge(ledger, on="fact_id", suffixes=("", "_ledger"), validate="one_to_one", how="outer")
    same = pd.concat([both[c] == both[f"{c}_ledger"] for c in COLUMNS], axis=1).all(axis=1)
    return int(same.sum()), int((~same).sum())


def _test(table: pd.DataFrame) -> dict[str, Any]:
    rows = {
        row["control"]: {**{m: row[m] for m in study.METRICS}, "n": int(row["n"])}
        | ({"top1_lowest": row["top1_lowest"], "top1_highest": row["top1_highest"]} if row["n_draws"] > 1 else {})
        for row in table.to_dict("records")
    }
    named = {name: rows.pop(name) for name in ("base", "laser", "discarded")}
    return {**named, "controls": rows}


def _spearman(association: Association) -> dict[str, dict[str, float]]:
    return {
        str(name): {"rho": row["rho"], "lo": row["lo"], "hi": row["hi"]}
        for name, row in association.spearman.iterrows()
    }


def _discarded(categories: pd.DataFrame) -> dict[str, float]:
    """Categories of the whole discarded part's answers, on the prompts that the edit fixed."""
    chosen = categories[
        (categories["outcome"] == "fixed") & (categories["edit"] == "discarded") & (categories["share"] == 1)
    ]
    if chosen.empty:
        return {
            "correct": float("nan"),
            "generic": float("nan"),
            "same_type": float("nan"),
            "other": float("nan"),
            "n": 0,
        }
    row = chosen.iloc[0]
    return {name: float(row[name]) for name in ("correct", "generic", "same_type", "other")} | {"n": int(row["n"])}


def _composed(edit: str, scores: pd.DataFrame) -> dict[str, Any]:
    rows, more = scores[scores["edit"] == "composed"], gain(scores, baseline="laser", edit="composed", seed=SEED)
    return {
        "edit": edit,
        "top1": float(rows["top1"].mean()),
        "loss": -float(rows["logprob"].mean()),
        "over_one": {"change": more.change, "lo": more.lo, "hi": more.hi, "told": str(more)},
    }


def _control(table: pd.DataFrame) -> dict[str, Any]:
    rows = {row["edit"]: row for row in table.to_dict("records")}
    own, base = rows["own"], rows["base"]
    return {
        "base_top1": base["top1"],
        "organism_control_gain": own["top1"] - base["top1"],
        "organism_control_selected": {"site": own["site"], "rank": int(own["rank_kept"])},
        "same_edit_gain": rows["same"]["top1"] - base["top1"],
    }


def describe(summary: dict[str, Any], association: Association, gained: Gain, figures: list[Path]) -> str:
    """The summary in words: what was found, its controls, and what the organism does not show."""
    test, chosen, control = summary["test"], summary["selected"], summary["control"]
    base, laser = test["base"], test["laser"]
    weight_controls = {k: v["top1"] for k, v in test["controls"].items() if k != "generic_masked"}
    best = max(weight_controls, key=weight_controls.__getitem__)
    masked = test["controls"]["generic_masked"]["top1"]
    part, composed = summary["discarded"], summary["composed"]
    before, after = (summary["paraphrases"][name] for name in ("base", "laser"))
    bins = association.bins
    lines = [
        "# LASER on the model organism",
        "",
        f"{summary['model']['n_params']:,} parameters; {base['n']} test prompts of {association.n_facts} facts; "
        f"{summary['seconds']:.0f} s.",
        "",
        "## Which truncation helps",
        f"Validation chose matrix `{chosen['site']}` at rho = {chosen['rho']:g} (rank {chosen['rank']}).",
        "",
        "| on test | top-1 | loss | top-10 | generic words masked |",
        "|---|---|---|---|---|",
    ]
    rows = {"as trained": base, "LASER": laser, "discarded part alone": test["discarded"], **test["controls"]}
    for name, row in rows.items():
        spread = f" ({row['top1_lowest']:.3f}–{row['top1_highest']:.3f})" if "top1_lowest" in row else ""
        lines.append(
            f"| {name} | {row['top1']:.3f}{spread} | {row['loss']:.3f} | {row['top10']:.3f} | "
            f"{row['generic_masked_top1']:.3f} |"
        )
    lines += [
        "",
        f"Against the model as trained {gained}. The best control that edits a weight ({best}) reaches "
        f"{weight_controls[best]:.3f}. The control organism, trained without generic continuations, "
        f"changes by {100 * control['organism_control_gain']:+.1f} points under its own best "
        f"edit ({control['organism_control_selected']['site']}) and by {100 * control['same_edit_gain']:+.1f} under "
        "this one.",
        "",
        "## Do the gains fall on rare facts?",
        association.paragraph,
        "",
        "| frequency | prompts | as trained | LASER | P(fixed given wrong) | P(broken given right) |",
        "|---|---|---|---|---|---|",
    ]
    for row in bins.to_dict("records"):
        rates = " | ".join(
            f"{row[c]:.2f} [{row[f'{c}_lo']:.2f}, {row[f'{c}_hi']:.2f}]"
            for c in ("base_top1", "edit_top1", "p_fixed_given_wrong", "p_broken_given_right")
        )
        lines.append(f"| {row['lo']:.0f}–{row['hi']:.0f} | {row['n']} | {rates} |")
    permuted = summary["spearman_permuted"]["top1"]
    lines += [
        "",
        f"With the frequencies permuted among the facts the first correlation is {permuted['rho']:+.2f} "
        f"[{permuted['lo']:+.2f}, {permuted['hi']:+.2f}]. The scanner's counts equal the ledger's for "
        f"{summary['counts']['matched']} facts and differ for {summary['counts']['mismatched']}.",
        "",
        "## What do the discarded components say?",
        f"On the {part['n']} prompts that LASER fixed, the discarded part alone answers with a generic word in "
        f"{part['generic']:.0%}, correctly in {part['correct']:.0%}, with a wrong answer of the same type in "
        f"{part['same_type']:.0%}, otherwise in {part['other']:.0%}.",
        "",
        "## Paraphrases, and more edits than one",
        f"Right on both of its prompts are {_rate(before, 'all_right')} of facts as trained, "
        f"{_rate(after, 'all_right')} under LASER; the two prompts of a fact are answered alike in "
        f"{before['agreement']:.3f} and {after['agreement']:.3f}. Greedy composition, chosen on validation, keeps "
        f"`{composed['edit']}` and reaches {composed['top1']:.3f} on test, where the one edit has "
        f"{laser['top1']:.3f}; against that {composed['over_one']['told']}.",
        "",
        "## What this organism does not show",
        f"- *Nothing is learned by the edit.* Masking generic words in the **unedited** model gives {masked:.3f}, "
        f"{'more' if masked > laser['top1'] else 'not more'} than LASER's {laser['top1']:.3f}; among the answers of "
        f"the relation the right one is first in {base['candidate_top1']:.3f} before and "
        f"{laser['candidate_top1']:.3f} after: the gain comes from suppressing the generic word.",
        f"- *A threshold effect.* The gain in log-probability correlates with frequency at "
        f"{_interval(summary['spearman']['logprob'])}, that in top-1 at {_interval(summary['spearman']['top1'])}: "
        "where only the second is far from zero, rare facts do not gain more, they merely sit nearer the decision "
        "boundary.",
        "- *No same-type answers.* The paper's finding that the discarded part prefers wrong answers of the right type "
        f"{'does not appear' if part['same_type'] < 0.05 else 'appears'} here ({part['same_type']:.0%}): it prefers "
        "the generic word.",
        f"- *Top-10* is {base['top10']:.3f} before and {laser['top10']:.3f} after, so it can show no gain.",
    ]
    if summary["notes"]:
        lines += [
            "",
            f"({len(summary['notes'])} cells of the grid were lifted to rank 1 or dropped: {summary['notes'][0]} …)",
        ]
    lines += ["", "## Figures", *(f"- {path}" for path in figures), ""]
    return "\n".join(lines)


def _rate(row: dict[str, float], name: str) -> str:
    return f"{row[name]:.3f} [{row[f'{name}_lo']:.3f}, {row[f'{name}_hi']:.3f}]"


def _interval(values: dict[str, float]) -> str:
    return f"{values['rho']:+.2f} [{values['lo']:+.2f}, {values['hi']:+.2f}]"
