"""A finished run, read again for the page: its facts, its cells, and what each cell answers to every prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.edits.edit_spec import CHOSEN_KINDS, EditSpec
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.files import load_facts
from laser_interp.frequency.shipped_counts import own_counts
from laser_interp.selection.search_result import Search
from laser_interp.statistics.paired_scores import KEYS, as_table
from laser_interp.storage.checksums import read_checked_json
from laser_interp.storage.provenance import settings_sha256
from laser_interp.storage.run_folder import FACTS, PARTS, SCREENED, SINGLE, SUMMARY, TABLES, find_table, run_settings
from laser_interp.storage.tables import read_table


@dataclass
class FinishedRun:
    """A run as the page needs it.

    Attributes:
        facts: all facts. The run's items are their prompts, in order.
        cells: one row per (cell, split): `cell, split, n, top1, loss`; the cell "" is the model as trained.
        selected: the cell that validation chose.
        right: cell -> whether each item is answered right; NaN where it was not scored.
        parts: tables of answers by (cell, fact, prompt), to be read again for some cells.
        studied: the test scores of the edit that a study analysed, where the search did not look at it.
        about: provenance.
    """

    facts: FactSet
    cells: pd.DataFrame
    selected: str
    right: dict[str, np.ndarray]
    about: dict[str, Any]
    parts: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    studied: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        self.items = self.facts.prompts_frame()
        self.index = pd.MultiIndex.from_frame(self.items[KEYS])

    @cached_property
    def specs(self) -> dict[str, EditSpec]:
        """Every cell: LASER, its discarded part and others. They are parsed only once, because there may be many."""
        return {name: EditSpec.parse(name) for name in dict.fromkeys(self.cells["cell"]) if name}

    @cached_property
    def edits(self) -> dict[str, dict[str, EditSpec]]:
        """The cells by their sites."""
        out: dict[str, dict[str, EditSpec]] = {}
        for name, spec in self.specs.items():
            out.setdefault(sites_of(spec), {})[name] = spec
        return out

    @property
    def chosen_among(self) -> list[str]:
        """The cells that validation chose among: LASER, or learned gains."""
        return [name for name, spec in self.specs.items() if spec.kind in CHOSEN_KINDS]

    def answers(self, name: str) -> pd.DataFrame | None:
        """The answers of one cell to every item, read from the parts; None where the run does not hold them."""
        columns = [*KEYS, "logprob", "prediction", "top_prob", "category"]
        if self.studied is not None and name == self.selected:
            found = self.studied[columns]
        else:
            groups = (f"layer-{self.specs[name].sites[0].layer:03d}" if name else "base", "chosen", "raced", "learned")
            paths = [path for path in self.parts if path.parent.name in groups]
            frames = [pd.read_parquet(path, columns=columns, filters=[("cell", "==", name)]) for path in paths]
            found = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
        if found.empty:
            return None
        of_item = found.drop_duplicates(KEYS, keep="last").set_index(KEYS).reindex(self.index)
        return of_item.fillna({"prediction": "", "category": ""})

    def places(self, frame: pd.DataFrame) -> np.ndarray:
        """The items that the rows of a table are of."""
        return self.index.get_indexer(pd.MultiIndex.from_frame(frame[KEYS]))


def read_run(run: Path) -> FinishedRun:
    """Read the folder of a search or a study. Every search in it of the same model and facts is used.

    Raises:
        FileNotFoundError: no finished run in the folder.
        ValueError: a file of it is damaged, or belongs to another run.
    """
    inside = [run, *sorted(run.glob("*/"))]
    if run.name == SINGLE and (run / SUMMARY).is_file():  # its search is that of the study in whose folder it lies
        inside.append(run.resolve().parent / "search")
    folders = [f for f in inside if (f / PARTS).is_dir() and find_table(f, "cells")]
    if not folders and (run / TABLES).is_dir():
        raise FileNotFoundError(
            f"{run} holds tables, but not the answers to each prompt that a page shows: expected the folder in which "
            "`laser-interp search`, `study` or `reproduce` ran"
        )
    if not folders:
        raise FileNotFoundError(
            f"no finished run in {run}: expected the folder of `laser-interp search`, `study` or `reproduce`; the "
            "same command finishes one that was stopped"
        )
    first = next((folder for folder in folders if folder.name == "search"), folders[0])
    every = {folder: run_settings(folder) or {} for folder in folders}
    settings, same = every[first], ("weights_sha256", "facts_sha256", "path", "at")
    others = [f for f, of in every.items() if f != first and all(of.get(k) == settings.get(k) for k in same)]
    tables = [read_table(folder / TABLES / "cells.parquet", "cells") for folder in (first, *others)]
    cells = pd.concat(tables, ignore_index=True).drop_duplicates(["cell", "split"])
    chosen = Search(tables[0]).select().cell
    finished = FinishedRun(
        _facts(first, settings),
        cells[["cell", "split", "n", "accuracy", "loss"]].rename(columns={"accuracy": "top1"}),
        # By its name in the table, which holds the hash of learned gains, as the edit read from it does not
        next(name for name in cells["cell"] if name and EditSpec.parse(name) == chosen),
        {},
        settings,
        parts=[
            path
            for folder in (first, *others)
            for path in sorted((folder / PARTS).glob("*/*.parquet"))
            # Scores alone, and none in bfloat16, which are not to be reported
            if path.stem.isdigit() and not path.parent.name.endswith(SCREENED)
        ],
    )
    summary = read_checked_json(run / SUMMARY) if (run / SUMMARY).is_file() else {}
    finished.notes += map(str, summary.get("notes", []))
    of_run = {folder: settings_sha256(of) for folder, of in every.items()}
    for path in finished.parts:
        frame = read_table(path, settings_sha256=of_run[path.parents[2]])
        frame = frame.loc[frame["kind"].isin(["base", *CHOSEN_KINDS]), ["cell", *KEYS, "correct"]]
        for name, rows in frame.groupby("cell", sort=False):
            right = finished.right.setdefault(str(name), np.full(len(finished.items), np.nan, dtype=np.float32))
            right[finished.places(rows)] = rows["correct"]
    studied = summary.get("selected", {}).get("cell", finished.selected)
    if studied != finished.selected:
        _take_studied(run, finished, studied, summary["selected"]["validation"]["laser"])
    return finished


def _take_studied(run: Path, finished: FinishedRun, studied: str, validation: Mapping[str, float]) -> None:
    """Select the edit that a study analysed instead of the one that its search chose."""
    finished.selected = studied
    if studied in finished.right:
        return
    scores = read_table(run / TABLES / "scores.parquet", "scores")
    finished.studied = scores = scores[scores["edit"] == "laser"]
    n = finished.cells.loc[finished.cells["split"] == "validation", "n"].max()
    rows = [
        (studied, "validation", n, validation["score"], validation["loss"]),
        (studied, "test", len(scores), scores["correct"].mean(), -scores["logprob"].mean()),
    ]
    finished.cells = pd.concat([finished.cells, pd.DataFrame(rows, columns=finished.cells.columns)], ignore_index=True)
    finished.right[studied] = np.full(len(finished.items), np.nan, dtype=np.float32)
    finished.right[studied][finished.places(scores)] = scores["correct"]


def sites_of(spec: EditSpec) -> str:
    """The sites of an edit, as in "3.in+3.out"."""
    return "+".join(map(str, spec.sites))


def _facts(folder: Path, settings: dict[str, Any]) -> FactSet:
    path = folder / FACTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} does not hold its facts ({FACTS}): run the same command on it again")
    facts = load_facts(path)
    if facts.sha256 != settings.get("facts_sha256"):
        raise ValueError(f"{path} does not hold the facts of this run: remove it and run the same command again")
    return facts


def read_frequencies(run: Path, loaded: FinishedRun, counts: pd.DataFrame | None) -> pd.DataFrame | None:
    """A table of `fact_id`, `n_both` and, if known, `n_subject` and `n_object`; None where no frequency is known."""
    given, source = counts is not None, "the given table"
    if counts is None and (path := find_table(run, "counts")) is not None:
        counts, source = read_table(path), path.name
    if counts is None:
        counts, source = own_counts(loaded.facts), "the fact file"
    if counts is None:
        return None
    counts = as_table(counts)
    known = ["fact_id", *(c for c in ("n_both", "n_subject", "n_object") if c in counts.columns)]
    out = loaded.items[["fact_id"]].drop_duplicates().merge(counts[known], on="fact_id", how="left")
    missing = out.loc[out["n_both"].isna(), "fact_id"]
    if given and len(missing):
        raise ValueError(f"no count for {len(missing)} facts of the run, {missing.iloc[0]!r} among them")
    units = counts["unit"].iloc[0] if "unit" in counts.columns and len(counts) else "as given"
    out.attrs |= {"source": source, "unit": units}
    return out
