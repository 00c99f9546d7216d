"""From a task to a row of the paper: sweep, selection on validation, and a test with everything beside it.

`laser-interp evaluate` is this; see `evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.edits import edit as edits
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site, resolve_layers, resolve_matrices
from laser_interp.facts.published import Task
from laser_interp.models.model import Model
from laser_interp.plots import figures as plots
from laser_interp.scoring.answer_rules import judge, metrics, perplexity, robustness
from laser_interp.selection.cells import RHOS, Cell, divided, grid, provenance
from laser_interp.statistics.association import Association, report
from laser_interp.storage import tables as results

N_DRAWS = 2  # of each random control


@dataclass(frozen=True)
class Evaluation:
    """What was found, all of it also in the run's folder.

    Attributes:
        cells: one row per cell and one of the model as trained (`cell` ""), on validation: accuracy, score, loss.
        selected: the cell that validation chose, by score, then loss.
        improves: whether it is better there than the model as trained.
        rows: one row per (fact, prompt, edit) of the test split: base, selected, and controls.
        metrics, robustness: see `laser_interp.judge`.
        perplexity: one row per edit, where a text was given.
        frequency: the report, where counts were given.
        notes: what was lifted, dropped, or should not be overlooked.
    """

    cells: pd.DataFrame
    selected: str
    improves: bool
    rows: pd.DataFrame
    metrics: pd.DataFrame
    robustness: pd.DataFrame
    perplexity: pd.DataFrame | None
    frequency: Association | None
    notes: tuple[str, ...]


def evaluate(
    model: Model,
    task: Task,
    out: str | Path,
    *,
    matrices: str | Sequence[str] = "mlp",
    layers: str | int | Sequence[int] = "all",
    rhos: Sequence[float] = RHOS,
    split: str | None = None,
    seed: int = 0,
    text: str | None = None,
    counts: pd.DataFrame | None = None,
    memory: int | str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Sweep, select on validation, test with controls, and write tables, figures, `summary.json` and `REPORT.md`.

    Args:
        out: folder; the same settings go on from what is there.
        matrices, layers, rhos: see `laser_interp.sweep`; by default the paper's (section 4).
        split, seed: "subject" (default where the facts have no split) or "paper" (the first 20 %).
        text: for perplexity before and after.
        counts: from `laser_interp.count` or elsewhere: adds the frequency report.
        memory: see `laser_interp.score`.

    Raises:
        ValueError: bad settings, a folder with another run, or one that another process is writing to.
    """
    from tqdm.auto import tqdm

    task, told = _short_enough(model, task)
    facts = divided(task.facts, split, seed)
    sites = [Site(n, m) for m in resolve_matrices(model, matrices) for n in resolve_layers(model, layers)]
    by_site, notes = grid(model, sites, rhos=rhos)
    notes = told + notes
    settings = provenance(model, facts, rhos) | {
        "task": task.name,
        "kind": task.kind,
        "protocol": task.protocol,
        "sites": [str(site) for site in sites],
        "seed": seed,
    }
    folder = Path(out)
    validation, test = task.keep(facts.split("validation")), task.keep(facts.split("test"))
    with results.locked(folder), results.keeping(folder):
        results.open_run(folder, settings)
        with results.replacing(folder / results.FACTS) as path:
            facts.save(path, suffix=".jsonl")
        found = []
        units: list[tuple[str, list[Cell]]] = [("base", []), *((str(site), cells) for site, cells in by_site.items())]
        for name, cells in tqdm(units, desc=f"{task.name}: sites", disable=not progress):
            path = folder / "parts" / f"{name}.parquet"
            part = results.read_whole(path, "task_part")
            if part is None:
                runs: dict[str, Edit | None] = {str(c): c.edit(model) for c in cells} or {"": None}
                part = _means(judge(model, validation, runs, memory=memory, progress=False))
                results.write_table(part, path, "task_part", settings)
            found.append(part)
        cells = pd.concat(found, ignore_index=True)
        best = cells[cells["cell"] != ""].sort_values(["score", "loss"], ascending=[False, True], kind="stable").iloc[0]
        base = cells[cells["cell"] == ""].iloc[0]
        improves = (best["score"], -best["loss"]) > (base["score"], -base["loss"])
        selected = str(best["cell"])
        edit = Cell.parse(selected).edit(model)

        path = folder / "tables" / "rows.parquet"
        rows = results.read_whole(path, "judged")
        if rows is None or rows.attrs["provenance"].get("selected") != selected:
            rows = judge(model, test, _beside(model, edit, seed), memory=memory, progress=progress)
            results.write_table(rows, path, "judged", settings | {"selected": selected})
        told = metrics(rows, task.kind, seed=seed)
        robust = robustness(rows[rows["edit"].isin(["base", "laser"])])
        if not improves:
            notes = [*notes, "validation found no cell better than the model as trained"]
        if (flat := told[told["degenerate"]]["edit"].tolist()) and flat:
            notes = [*notes, f"degenerate: under {', '.join(flat)} nearly every answer is the same label"]
        written = None
        if text is not None:
            written = pd.DataFrame(
                [{"edit": n} | perplexity(model, text, e) for n, e in (("base", None), ("laser", edit))]
            )
        frequency = None
        if counts is not None:
            frequency = report(_given(rows, counts), seed=seed)
        evaluation = Evaluation(cells, selected, bool(improves), rows, told, robust, written, frequency, tuple(notes))
        _write(folder, evaluation, task, settings)
    return evaluation


def _short_enough(model: Model, task: Task) -> tuple[Task, list[str]]:
    """A task of generation without the answers that cannot be given in so many tokens."""
    if task.kind != "generation":
        return task, []
    lengths = model.encode_answers([(fact.prompt, fact.object) for fact in task.facts])
    kept = [f for f, ids in zip(task.facts, lengths, strict=True) if len(ids) <= task.max_new_tokens]
    if len(kept) == len(task.facts):
        return task, []
    if not kept:
        raise ValueError(f"every answer of {task.name} has more than {task.max_new_tokens} tokens of {model.name!r}")
    n = len(task.facts) - len(kept)
    return task.keep(task.facts.keep(kept)), [
        f"{n} facts have answers of more than {task.max_new_tokens} tokens: dropped"
    ]


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    out = rows.groupby("edit", sort=False).agg(
        n=("correct", "size"), accuracy=("correct", "mean"), score=("score", "mean"), logprob=("logprob", "mean")
    )
    out["loss"] = -out.pop("logprob")
    return out.reset_index(names="cell").astype({"accuracy": float})


def _beside(model: Model, edit: Edit, seed: int) -> dict[str, Edit | None]:
    runs: dict[str, Edit | None] = {"base": None, "laser": edit, "discarded": edit.discarded()}
    for draw in range(seed, seed + N_DRAWS):
        runs[f"same_spectrum_random/{draw}"] = edits.same_spectrum_random(model, edit, seed=draw)
        runs[f"random_kept/{draw}"] = edits.random_kept(model, edit, seed=draw)
    return runs | {"zeroed": edits.zeroed(model, edit.sites)}


def _given(rows: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    keys = ["fact_id", "prompt_id"]
    wide = rows[rows["edit"] == "base"].merge(rows[rows["edit"] == "laser"], on=keys, suffixes=("", "_after"))
    frame = wide[[*keys, "subject", "relation"]].assign(
        before=wide["correct"].astype(int), after=wide["correct_after"].astype(int)
    )
    known = ["fact_id", *(c for c in ("n_both", "n_subject", "n_object") if c in counts.columns)]
    return frame.merge(counts[known], on="fact_id", how="left")


def _write(folder: Path, e: Evaluation, task: Task, settings: dict[str, Any]) -> None:
    tables: dict[str, pd.DataFrame] = {"cells": e.cells, "metrics": e.metrics, "robustness": e.robustness}
    if e.perplexity is not None:
        tables["perplexity"] = e.perplexity
    if e.frequency is not None:
        tables |= {
            "rare_facts": e.frequency.table,
            "rare_facts_bins": e.frequency.bins,
            "rare_facts_cumulative": e.frequency.cumulative,
            "rare_facts_paper_ratio": e.frequency.paper_ratio,
        }
    for name, table in tables.items():
        results.write_table(table, folder / "tables" / f"{name}.parquet", None, settings)
    drawn = {name: table for name, table in tables.items() if len(table)}
    about = {"model": settings["model"], "edit": e.selected, "command": f"python -m figures {folder}"}
    figures = plots.draw_all(drawn, folder / "figures", about=about)
    by = e.metrics.set_index("edit")
    summary = settings | {
        "selected": e.selected,
        "improves_validation": e.improves,
        "test": {name: by.loc[name].to_dict() for name in by.index},
        "robustness": e.robustness.to_dict("records"),
        "perplexity": None if e.perplexity is None else e.perplexity.to_dict("records"),
        "frequency_p_value": None if e.frequency is None else e.frequency.p_value,
        "dropped": dict(task.dropped),
        "notes": list(e.notes),
    }
    results.write_json(summary, folder / "summary.json")
    with results.replacing(folder / "REPORT.md") as path:
        path.write_text(describe(e, task, settings, figures), encoding="utf-8")


def describe(e: Evaluation, task: Task, settings: dict[str, Any], figures: Sequence[Path]) -> str:
    """The report, in Markdown."""
    by = e.metrics.set_index("edit")
    base, laser = by.loc["base"], by.loc["laser"]
    lines = [
        f"# {task.title or task.name} on {settings['model']}",
        "",
        f"{task}",
        "",
        f"Validation chose `{e.selected}`" + ("." if e.improves else ", which is **no better than no edit** there."),
        "",
        "| test | accuracy | balanced | loss | commonest answer | p(candidates) | calibration error |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in by.iterrows():
        lines.append(
            f"| {name} | {row['accuracy']:.3f} [{row['accuracy_lo']:.3f}, {row['accuracy_hi']:.3f}] | "
            f"{row['balanced_accuracy']:.3f} | {row['loss']:.3f} | {row['commonest_prediction']!r} "
            f"({row['share_commonest']:.0%}) | {_number(row['p_candidates'])} | {_number(row['calibration_error'])} |"
        )
    change = 100 * (laser["accuracy"] - base["accuracy"])
    best = by.drop(index=["base", "laser", "discarded"])["accuracy"].max()
    lines += [
        "",
        f"Always giving the commonest right answer would score {base['majority_baseline']:.3f}. The edit changes "
        f"accuracy by {change:+.1f} points ({laser['n_fixed']:.0f} fixed, {laser['n_broken']:.0f} broken; McNemar p = "
        f"{laser['mcnemar_p']:.2g}); the best control reaches {best:.3f}.",
    ]
    if task.kind == "truths":
        lines.append(f"\nThe mc2 score is {base['score']:.3f} before and {laser['score']:.3f} after.")
    for name in by.index[by["degenerate"]]:
        lines.append(
            f"\n**Degenerate classifier:** under {name} {by.loc[name, 'share_commonest']:.0%} of the answers are "
            f"{by.loc[name, 'commonest_prediction']!r}: its accuracy says how common that label is, nothing else."
        )
    if len(e.robustness):
        lines += ["", "## Paraphrases", "", "| | right on all | right on any | agreement |", "|---|---|---|---|"]
        lines += [
            f"| {r['edit']} | {r['all_right']:.3f} | {r['any_right']:.3f} | {r['agreement']:.3f} |"
            for r in e.robustness.to_dict("records")
        ]
    if e.perplexity is not None:
        before, after = e.perplexity["perplexity"]
        lines += ["", f"Perplexity of the given text: {before:.2f} before, {after:.2f} after."]
    if e.frequency is not None:
        lines += ["", "## Frequency", "", e.frequency.paragraph]
    if e.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in e.notes)]
    return "\n".join([*lines, "", "## Figures", "", *(f"- {path}" for path in figures if path.suffix == ".pdf"), ""])


def _number(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:.3f}"
