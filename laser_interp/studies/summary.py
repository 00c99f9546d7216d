"""The numbers of a study, as `summary.json` holds them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.facts.giveaways import giveaways
from laser_interp.scoring.categories import CATEGORIES
from laser_interp.statistics.accuracy_change import change
from laser_interp.statistics.mechanism import Mechanism, explain
from laser_interp.storage.atomic import plain
from laser_interp.storage.provenance import code_version
from laser_interp.studies.context import StudyContext
from laser_interp.studies.steps import METRICS

Tables = Mapping[str, pd.DataFrame]


def summarise_study(context: StudyContext, tables: Tables, seconds: float) -> dict[str, Any]:
    """All numbers of the report. An analysis that was not run has no entry."""
    model, cell, selected = context.model, context.cell, context.selection
    summary: dict[str, Any] = {
        "model": {"name": model.name, "n_params": model.n_params, "weights_sha256": model.weights_sha256}
        | ({"quantisation": model.quantisation} if model.quantisation else {}),
        "task": {"name": context.task.name, "rule": context.task.rule, "protocol": context.task.protocol},
        "dropped": dict(context.task.dropped),
        "selected": {
            "cell": str(cell),
            "site": "+".join(map(str, cell.sites)),
            "rho": cell.rho,
            "rank": cell.rank,
            "improves_validation": selected.improves,
            "validation": {
                "base": {"score": selected.base_score, "loss": selected.base_loss},
                "laser": {"score": selected.score, "loss": selected.loss},
            },
        },
        "test": _test(tables["controls"]),
        "search": None
        if context.search.spent is None
        else asdict(context.search.spent) | {"in_words": str(context.search.spent)},
        "change": _change(tables["scores"], context.settings.study_seed),
        "metrics": {row.pop("edit"): row for row in tables["metrics"].to_dict("records")},
    }
    if context.task.rule == "next_token":
        summary["mechanism"] = _mechanism(explain(tables["scores"], seed=context.settings.study_seed))
    if away := giveaways(context.test.facts):
        others = tables["scores"][~tables["scores"]["fact_id"].isin(away)]
        summary["without_giveaways"] = {"n_giveaways": len(away)} | _change(others, context.settings.study_seed)
    if "relations" in tables:
        summary["relations"] = _relations(tables["relations"], str(cell))
    if "rare_facts_bins" in tables:
        summary |= {
            "by_frequency": _by_frequency(tables["rare_facts_bins"]),
            "spearman": _spearman(tables["rare_facts_spearman"]),
            "spearman_permuted": _spearman(tables["rare_facts_permuted"]),
            "effects": _effects(tables["rare_facts_effects"]),
            "fixed_given_wrong_p_value": context.association.p_value,
            "counts": _against_known(context, tables["counts"]),
        }
    if "discarded_categories" in tables:
        summary["discarded"] = _discarded(tables["discarded_categories"])
    if "robustness" in tables:
        summary["paraphrases"] = {row.pop("edit"): row for row in tables["robustness"].to_dict("records")}
    if "composition" in tables:
        summary["composed"] = _composed(context, tables)
    if "perplexity" in tables:
        summary["perplexity"] = tables["perplexity"].to_dict("records")
    if "control_model" in tables:
        summary["control_model"] = _control_model(tables["control_model"])
    notes = [*context.notes, *context.search.notes]
    if not selected.improves:
        notes.append("validation found no cell better than the model as trained")
    degenerate = tables["metrics"].loc[tables["metrics"]["degenerate"], "edit"].tolist()
    if degenerate:
        notes.append(f"degenerate: under {', '.join(degenerate)} nearly every answer is the same label")
    return plain(
        summary
        | {
            "notes": notes,
            "code_version": code_version(),
            "seed": context.settings.study_seed,
            "seconds": round(seconds, 1),
        }
    )


def _test(table: pd.DataFrame) -> dict[str, Any]:
    rows = {
        row["control"]: {**{m: row[m] for m in METRICS}, "n": int(row["n"])}
        | (
            {"accuracy_lowest": row["accuracy_lowest"], "accuracy_highest": row["accuracy_highest"]}
            if row["n_draws"] > 1
            else {}
        )
        for row in table.to_dict("records")
    }
    named = {name: rows.pop(name) for name in ("base", "laser", "discarded") if name in rows}
    return {**named, "controls": rows}


def _change(scores: pd.DataFrame, seed: int, baseline: str = "base", edit: str = "laser") -> dict[str, Any]:
    found = change(scores, baseline=baseline, edit=edit, seed=seed)
    return {
        "change": found.change,
        "lo": found.lo,
        "hi": found.hi,
        "p": found.p,
        "n_fixed": found.n_fixed,
        "n_broken": found.n_broken,
        "n": found.n,
        "in_words": str(found),
    }


def _mechanism(found: Mechanism) -> dict[str, Any]:
    parts = {"masked_base": found.masked_base, "with_masks": found.with_masks}
    parts |= {"among_answers": found.among_answers, "zeroed": found.zeroed}
    return {
        **{name: {"change": part.change, "lo": part.lo, "hi": part.hi} for name, part in parts.items() if part},
        "p_generic": list(found.p_generic),
        "masked_loss": list(found.masked_loss),
        "chance": found.chance,
        "suppression": found.suppression,
        "rivals": found.rivals,
        "low_rank_matters": found.low_rank_matters,
        "in_words": found.sentences(),
    }


def _relations(table: pd.DataFrame, cell: str) -> dict[str, Any]:
    """How many relations make the same choice, gain or lose, and the change under the choice of the other relations."""
    gain = table["chosen"] - table["as_trained"]
    weight = table["n_test"] / table["n_test"].sum()
    return {
        "n": len(table),
        "choose_the_same": int((table["own_choice"] == cell).sum()),
        "choose_no_edit": int((table["own_choice"] == "").sum()),
        "others_choose_the_same": int((table["others_choice"] == cell).sum()),
        "gain": int((gain > 0).sum()),
        "lose": int((gain < 0).sum()),
        "change_held_out": float((weight * (table["held_out"] - table["as_trained"])).sum()),
        "largest_gain": str(table["relation"].iloc[int(gain.to_numpy().argmax())]),
        "largest_loss": str(table["relation"].iloc[int(gain.to_numpy().argmin())]),
    }


def _by_frequency(bins: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "lo": row["lo"],
            "hi": row["hi"],
            "n": int(row["n"]),
            "base_top1": row["base_top1"],
            "laser_top1": row["edit_top1"],
            "p_fixed_given_wrong": row["p_fixed_given_wrong"],
            "p_broken_given_right": row["p_broken_given_right"],
        }
        for row in bins.to_dict("records")
    ]


def _effects(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Odds ratios of tenfold frequency, by what is held fixed beside it."""
    columns = ("odds_ratio", "odds_lo", "odds_hi", "p", "n_events")
    return {str(row["effect"]): {name: row[name] for name in columns} for row in table.to_dict("records")}


def _spearman(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {str(row["of"]): {k: row[k] for k in ("rho", "lo", "hi", "p")} for row in table.to_dict("records")}


def _against_known(context: StudyContext, counts: pd.DataFrame) -> dict[str, int]:
    """Counts beside the frequencies that the facts carry, where they carry some."""
    known = {fact.fact_id: fact.frequency for fact in context.facts if fact.frequency is not None}
    both = [(n, known[i]) for i, n in zip(counts["fact_id"], counts["n_both"], strict=True) if i in known]
    return {"matched": sum(n == k for n, k in both), "mismatched": sum(n != k for n, k in both)}


def _discarded(categories: pd.DataFrame) -> dict[str, float]:
    """Categories of the whole discarded part's answers, on the prompts that the edit fixed."""
    rows = categories[
        (categories["outcome"] == "fixed") & (categories["edit"] == "discarded") & (categories["share"] == 1)
    ]
    if rows.empty:
        return dict.fromkeys(CATEGORIES, np.nan) | {"n": 0}
    return {name: float(rows.iloc[0][name]) for name in CATEGORIES} | {"n": int(rows.iloc[0]["n"])}


def _composed(context: StudyContext, tables: Tables) -> dict[str, Any]:
    if "composed_test" not in tables:
        return {"edit": None}
    rows = tables["composed_test"]
    both = pd.concat([tables["scores"], rows])
    return {
        "edit": str(context.composition),
        "top1": float(rows["top1"].mean()),
        "loss": -float(rows["logprob"].mean()),
        "over_one": _change(both, context.settings.study_seed, "laser", "composed"),
    }


def _control_model(table: pd.DataFrame) -> dict[str, Any]:
    rows = {row["edit"]: row for row in table.to_dict("records")}
    own, base = rows["own"], rows["base"]
    return {
        "base_top1": base["top1"],
        "own_edit_change": own["top1"] - base["top1"],
        "own_edit": {"site": own["site"], "rank": int(own["rank_kept"])},
        "same_edit_change": rows["same"]["top1"] - base["top1"],
    }
