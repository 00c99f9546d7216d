"""What a study found, for the top of the page: a summary in words, and a table for each analysis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.plots.control_bars import by_value
from laser_interp.plots.names import CATEGORIES, plain_name
from laser_interp.storage.checksums import read_checked_json
from laser_interp.storage.run_folder import SUMMARY, read_tables

_MOST_ROWS = 60


def study_part(run: Path) -> dict[str, Any] | None:
    """Words and tables of a study's folder; None where the run is a search alone."""
    if not (run / SUMMARY).is_file():
        return None
    summary = read_checked_json(run / SUMMARY)
    tables = read_tables(run, ["controls", "discarded_categories", "robustness", "composition_scores", "relations"])
    parts = [make(tables) for make in _TABLES]
    return {
        "words": in_words(summary),
        "mechanism": summary.get("mechanism", {}).get("in_words", []),
        "tables": [part for part in (*parts, _perplexity(summary)) if part],
    }


def in_words(summary: Mapping[str, Any]) -> list[str]:
    """What was found, for a reader who knows neither LASER nor this package."""
    chosen, test = summary["selected"], summary["test"]
    change, kept = summary["change"], chosen["rank"]
    words = [
        f"LASER replaces one weight matrix of a language model by a simpler one, made of its largest singular "
        f"directions. Validation facts chose the matrix {chosen['site']} (its layer, counted from 0, and its name), "
        f"and that its {'largest direction is' if kept == 1 else f'{kept} largest directions are'} kept.",
        f"On {test['base']['n']} test prompts, which had no part in this choice, the model as trained answers "
        f"{_percent(test['base']['accuracy'])} correctly and the edited model {_percent(test['laser']['accuracy'])}: "
        f"{change['in_words']}.",
    ]
    editing = {name: row for name, row in test["controls"].items() if name != "generic_masked"}
    if editing:
        best = max(editing, key=lambda name: editing[name]["accuracy"])
        words.append(
            f"Controls are edits that do not use LASER's choice of matrix and directions. The best of them is "
            f"“{plain_name(best)}” with {_percent(editing[best]['accuracy'])}."
            + (
                f" Forbidding generic words, such as “the”, without any edit gives "
                f"{_percent(test['controls']['generic_masked']['accuracy'])}."
                if "generic_masked" in test["controls"]
                else ""
            )
        )
    if summary.get("mechanism"):
        words.append(summary["mechanism"]["in_words"][-1])
    return words


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def table_of(name: str, title: str, hint: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A table as the page shows it."""
    return {
        "name": name,
        "title": title,
        "hint": hint,
        "columns": list(columns),
        "rows": [list(map(_shown, row)) for row in rows],
    }


def _shown(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    return round(number, 4) if math.isfinite(number) else None


def _controls(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    table = tables.get("controls")
    if table is None or table.empty:
        return None
    columns = ("accuracy", "accuracy_lo", "accuracy_hi", "loss", "top10", "n_draws")
    return table_of(
        "controls",
        "Beside its controls",
        "If a control gains as much, the gain is no evidence for LASER. From and to: 95 % interval over subjects.",
        ("edit", "accuracy", "from", "to", "loss", "top-10", "draws"),
        [(plain_name(r["control"]), *(r[name] for name in columns)) for _, r in by_value(table).iterrows()],
    )


def _categories(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    table = tables.get("discarded_categories")
    if table is None or table.empty:
        return None
    names = {"base": "as trained", "edit": "LASER", "discarded": "discarded part"}
    rows = [
        (r["outcome"], names.get(r["edit"], r["edit"]), r["share"], *(r[name] for name in CATEGORIES), r["n"])
        for _, r in table[table["outcome"].isin(["all", "fixed", "broken"])].iterrows()
    ]
    return table_of(
        "categories",
        "What the discarded part answers",
        "Shares of answers by category, for all prompts and for those that the edit fixed or broke. The column "
        "“share” says how much of the discarded part acts.",
        ("prompts", "answered by", "share", *CATEGORIES.values(), "n"),
        rows[:_MOST_ROWS],
    )


def _paraphrases(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    table = tables.get("robustness")
    if table is None or table.empty:
        return None
    columns = ("all_right", "accuracy", "any_right", "agreement")
    return table_of(
        "paraphrases",
        "Paraphrases",
        "Share of facts that are right on all of their prompts; share of prompts that are right; share of facts that "
        "are right on any prompt; and how often two prompts of a fact get the same answer.",
        ("edit", "right on all", "right, per prompt", "right on any", "prompts agree"),
        [(plain_name(r["edit"]), *(r[name] for name in columns)) for _, r in table.iterrows()],
    )


def _composition(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    table = tables.get("composition_scores")
    if table is None or table.empty:
        return None
    return table_of(
        "composition",
        "Several edits together",
        "Mean score and loss of the model as trained, and of the model with all edits that validation kept.",
        ("edits", "split", "score", "loss", "prompts"),
        [(plain_name(r["edit"]), r["split"], r["score"], r["loss"], r["n"]) for _, r in table.iterrows()],
    )


def _relations(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    table = tables.get("relations")
    if table is None or table.empty:
        return None
    rows = table.assign(gain=table["chosen"] - table["as_trained"]).sort_values("gain", ascending=False, kind="stable")
    return table_of(
        "relations",
        "Each relation",
        "Accuracy on test prompts, as trained and under the edit, the largest gain first.",
        ("relation", "as trained", "LASER", "change", "prompts"),
        [(r["relation"], r["as_trained"], r["chosen"], r["gain"], r["n_test"]) for _, r in rows.iterrows()],
    )


def _perplexity(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    if not summary.get("perplexity"):
        return None
    return table_of(
        "perplexity",
        "Side effects",
        "Perplexity of running text: what the edit costs where no fact is asked for. Lower is better.",
        ("edit", "perplexity", "tokens"),
        [(plain_name(row["edit"]), row["perplexity"], row["n_tokens"]) for row in summary["perplexity"]],
    )


_TABLES: tuple[Callable[[Mapping[str, pd.DataFrame]], dict[str, Any] | None], ...] = (
    _controls,
    _categories,
    _paraphrases,
    _composition,
    _relations,
)
