"""The data of a run that the page holds, for JSON."""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.edits.edit_spec import CHOSEN_KINDS
from laser_interp.progress import progress_bar
from laser_interp.report.run_reader import KEYS, FinishedRun, sites_of
from laser_interp.scoring.categories import CATEGORIES
from laser_interp.statistics.association import associate
from laser_interp.statistics.frequency_bins import bin_numbers, binned, cumulative
from laser_interp.statistics.paired_scores import reported
from laser_interp.storage.checksums import read_checked_json
from laser_interp.storage.provenance import code_version
from laser_interp.storage.run_folder import SUMMARY, read_tables
from laser_interp.studies.question import rounded
from laser_interp.studies.questions import QUESTIONS

_WORST = 32.0  # nats: a log-probability below −32 is shown as −32
_MISSING = 65535
_CUMULATIVE = 80  # points of the paper's curve that the page holds of each cell


def fixed_part(run: FinishedRun, lasers: Sequence[str], known: pd.DataFrame | None) -> dict[str, Any]:
    means = {
        (row["cell"], row["split"]): [row["n"], rounded(row["top1"]), rounded(row["loss"])]
        for row in run.cells.to_dict("records")
    }
    splits = list(dict.fromkeys(run.cells["split"]))
    described = []
    for name in lasers:
        cell = run.specs[name]
        site = cell.site if len(cell.sites) == 1 and cell.kind == "laser" else None
        kinds = {n: c for n, c in run.edits.get(sites_of(cell), {}).items() if c.ranks == cell.ranks}
        described.append(
            {
                "name": name,
                "site": sites_of(cell),
                "layer": None if site is None else site.layer,
                "matrix": None if site is None else site.matrix,
                "rho": cell.rho,
                "rank": cell.rank,
                "means": {split: means.get((name, split)) for split in splits},
                "discarded": next((n for n, c in kinds.items() if c.kind == "discarded"), None),
                "injected": {n: c.alpha for n, c in kinds.items() if c.kind == "inject"},
            }
        )
    return {
        "about": {
            **{k: v for k, v in run.about.items() if k != "sites"},
            "written_by": code_version(),
            "n_facts": len(run.facts),
            "n_prompts": len(run.items),
            "notes": run.notes[:20],
            "counts": None if known is None else f"{known.attrs['source']} (unit: {known.attrs['unit']})",
        },
        "splits": splits,
        "base": {split: means.get(("", split)) for split in splits},
        "cells": described,
        "selected": run.selected,
        "categories": list(CATEGORIES),
    }


def by_frequency(
    run: FinishedRun, known: pd.DataFrame, lasers: Sequence[str], seed: int, progress: bool
) -> dict[str, Any]:
    """The paper's frequency view and the conditional one for every cell, on test facts if the run has a test split."""
    rows = run.items.merge(known, on="fact_id", how="left").assign(top1_before=run.right[""])
    rows = reported(rows).dropna(subset=["top1_before", "n_both"]).astype({"top1_before": bool})
    rows["bin"] = rows["fact_id"].map(bin_numbers(rows.groupby("fact_id")["n_both"].first(), 8))
    out: dict[str, Any] = {"cells": {}, "paragraph": None}
    columns = ["base_top1", "edit_top1", "p_fixed_given_wrong", "p_broken_given_right"]
    for name in progress_bar(lasers, desc="frequency", disable=not progress, leave=False):
        after = run.right.get(name)
        if after is None or rows.empty or np.isnan(after[rows.index]).any():
            continue
        one = rows.assign(top1_after=after[rows.index].astype(bool))
        bins, curve = binned(one), cumulative(one)
        thin = curve.iloc[np.unique(np.linspace(0, len(curve) - 1, _CUMULATIVE).astype(int))]
        out["bins"] = bins[["lo", "hi", "n"]].astype(float).to_numpy().tolist()
        out["cells"][name] = {
            **{
                c: [[rounded(row[c + end]) for end in ("", "_lo", "_hi")] for _, row in bins.iterrows()]
                for c in columns
            },
            "cumulative": [[rounded(v) for v in r] for r in thin[["n_both", "top1_before", "top1_after"]].to_numpy()],
        }
        if name == run.selected:
            out["paragraph"] = _paragraph(one, run, known, seed)
    return out


def _paragraph(rows: pd.DataFrame, run: FinishedRun, known: pd.DataFrame, seed: int) -> str:
    before, after = run.answers(""), run.answers(run.selected)
    at = rows.index.to_numpy()
    frames = []
    for label, answers, column in (("base", before, "top1_before"), ("laser", after, "top1_after")):
        frame = rows[[*KEYS, "subject", "relation", "split"]].assign(frequency=0.0, top1=rows[column], top10=False)
        logprob = answers["logprob"].to_numpy()[at] if answers is not None else np.nan
        frames.append(frame.assign(edit=label, logprob=logprob))
    return associate(pd.concat(frames, ignore_index=True), known, seed=seed).paragraph


def study_part(run: Path) -> dict[str, Any] | None:
    """Words and tables of a study's folder; None where the run is a search alone."""
    if not (run / SUMMARY).is_file():
        return None
    summary, tables = read_checked_json(run / SUMMARY), read_tables(run)
    answers = [question(tables, summary) for question in QUESTIONS if question.key in summary]
    return {
        "words": [line for answer in answers for line in answer.page_words()],
        "frequency": summary.get("frequency_in_words"),
        "mechanism": summary.get("mechanism", {}).get("in_words", []),
        "tables": [table.as_json() for answer in answers if (table := answer.page_table()) is not None],
    }


def items_of(run: FinishedRun, chosen: np.ndarray) -> np.ndarray:
    """Items of the chosen facts."""
    return np.flatnonzero(run.items["fact_id"].isin([run.facts.facts[i].fact_id for i in chosen]))


def facts_part(
    run: FinishedRun, lasers: Sequence[str], chosen: np.ndarray, known: pd.DataFrame | None
) -> dict[str, Any]:
    facts = [run.facts.facts[i] for i in chosen]
    items = items_of(run, chosen)
    relations = sorted({fact.relation for fact in facts})
    number = {relation: i for i, relation in enumerate(relations)}
    part: dict[str, Any] = {
        "relations": relations,
        "facts": {
            "id": [f.fact_id for f in facts],
            "subject": [f.subject for f in facts],
            "relation": [number[f.relation] for f in facts],
            "object": [f.object for f in facts],
            "aliases": [list(f.aliases) for f in facts],
            "split": [f.split or "" for f in facts],
            "prompts": [list(f.prompts) for f in facts],
        },
    }
    if known is not None:
        by_id = known.set_index("fact_id")
        for column in by_id.columns:
            part["facts"][column] = [rounded(v) for v in by_id.loc[part["facts"]["id"], column]]
    # Stored as the changes from the model as trained, so that answers that stay the same compress well.
    base = run.right[""][items]
    part["right"] = {"": _bits(np.nan_to_num(base).astype(bool))}
    part["scored"] = {"": _bits(np.isfinite(base))}
    for name in lasers:
        if name in run.right:
            after = run.right[name][items]
            part["right"][name] = _bits(np.nan_to_num(after).astype(bool) ^ np.nan_to_num(base).astype(bool))
            if not np.isfinite(after).all():
                part["scored"][name] = _bits(np.isfinite(after))
    return part


def by_interest(run: FinishedRun, lasers: Sequence[str]) -> Iterator[str]:
    """Cells in the order of interest: the chosen edit's parts, the cells of its site, then other sites as validation
    ranks them."""
    validation = run.cells[run.cells["split"] == "validation"].set_index("cell")
    value = {name: (validation["top1"].get(name, -1.0), -validation["loss"].get(name, np.inf)) for name in lasers}
    chosen = run.specs[run.selected]
    ranked = sorted(lasers, key=lambda name: value[name], reverse=True)
    sites = list(dict.fromkeys(sites_of(run.specs[name]) for name in ranked))
    sites.sort(key=lambda site: site != sites_of(chosen))
    here = run.edits.get(sites_of(chosen), {})
    yield from (n for n, c in here.items() if c.ranks == chosen.ranks and c.kind in ("discarded", "inject"))
    for site in sites:
        for kind in (*CHOSEN_KINDS, "discarded", "inject"):
            yield from (n for n, c in run.edits.get(site, {}).items() if c.kind == kind)


def encoded(answers: pd.DataFrame, items: np.ndarray, words: dict[str, int]) -> dict[str, bytes]:
    logprob, probability = (answers[name].to_numpy(float)[items] for name in ("logprob", "top_prob"))
    scaled = np.where(np.isfinite(logprob), np.minimum(-logprob / _WORST, 1) * (_MISSING - 1), _MISSING)
    share = np.where(np.isfinite(probability), probability * (_MISSING - 1), _MISSING)
    index = np.array([words.setdefault(str(w), len(words)) for w in answers["prediction"].to_numpy()[items]], "<u4")
    number = {name: i for i, name in enumerate(CATEGORIES)}
    category = np.array([number.get(name, 255) for name in answers["category"].to_numpy()[items]], dtype=np.uint8)
    return {
        "logprob": np.rint(scaled).astype("<u2").tobytes(),
        "probability": np.rint(share).astype("<u2").tobytes(),
        "answer": index.tobytes(),
        "category": category.tobytes(),
    }


def _bits(values: np.ndarray) -> str:
    return base64.b64encode(np.packbits(values, bitorder="little").tobytes()).decode()
