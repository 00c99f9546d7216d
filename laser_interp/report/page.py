"""A run as one HTML page that a colleague without Python can explore: `laser-interp report RUN -o report.html`.

The page holds everything it needs, the charting library included, and asks for nothing from a network. What it
shows is taken from the run's tables; intervals and frequency views are computed here, by `laser_interp.association`,
and not in the page.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.edits.sites import Site
from laser_interp.facts.fact_set import FactSet, load_facts
from laser_interp.scoring.scorer import CATEGORIES
from laser_interp.selection.cells import Cell
from laser_interp.selection.grid_run import Sweep
from laser_interp.statistics.association import SubjectBootstrap, associate, views
from laser_interp.storage import tables as results
from laser_interp.storage.tables import code_version, read_table

MAX_FACTS = 20_000
MAX_BYTES = 9_500_000
_HERE = Path(__file__).parent
_KEYS = ["fact_id", "prompt_id"]
_WORST = 32.0  # nats: a log-probability below −32 is shown as −32
_MISSING = 65535
_CUMULATIVE = 80  # points of the paper's curve that the page holds of each cell


@dataclass
class _Answers:
    """What one cell answers to every prompt, where the run says it; NaN and "" where it does not."""

    logprob: np.ndarray
    answer: np.ndarray
    probability: np.ndarray
    category: np.ndarray

    @classmethod
    def unknown(cls, n: int) -> _Answers:
        """Of n items, to be filled in."""
        return cls(*(np.full(n, fill, dtype=kind) for fill, kind in ((np.nan, float), ("", object)) * 2))


@dataclass
class _Run:
    """A run as the page needs it.

    Attributes:
        facts: all of them; items are their prompts, in order.
        cells: one row per (cell, split): `cell, split, n, top1, loss`; the cell "" is the model as trained.
        names: every cell whose answers may be told, LASER or not.
        selected: the cell that validation chose.
        right: cell -> whether each item is answered right; NaN where it was not scored.
        parts: tables of answers by (cell, fact, prompt), to be read again for some cells.
        about: provenance.
    """

    facts: FactSet
    cells: pd.DataFrame
    selected: str
    right: dict[str, np.ndarray]
    about: dict[str, Any]
    names: list[str] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)
    given: dict[str, _Answers] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.items = self.facts.prompts_frame()
        self.index = pd.MultiIndex.from_frame(self.items[_KEYS])

    @cached_property
    def edits(self) -> dict[Site, dict[str, Cell]]:
        """The cells by site, read once as names are many."""
        out: dict[Site, dict[str, Cell]] = {}
        for name in filter(None, self.names):
            cell = Cell.parse(name)
            out.setdefault(cell.site, {})[name] = cell
        return out

    def answers(self, name: str) -> _Answers | None:
        """Of one cell; kept for the few that the page has room for."""
        if name in self.given:
            return self.given[name]
        out = _Answers.unknown(len(self.items))
        layer = f"layer-{Cell.parse(name).site.layer:03d}" if name else "base"
        found = False
        for path in self.parts:
            if path.parent.name != layer:
                continue
            frame = pd.read_parquet(
                path, columns=[*_KEYS, "logprob", "top_answer", "top_prob", "category"], filters=[("cell", "==", name)]
            )
            if len(frame):
                found = True
                at = self.index.get_indexer(pd.MultiIndex.from_frame(frame[_KEYS]))
                out.logprob[at], out.answer[at] = frame["logprob"], frame["top_answer"]
                out.probability[at], out.category[at] = frame["top_prob"], frame["category"]
        return out if found else None


def write_report(
    run: str | Path,
    out: str | Path,
    *,
    counts: pd.DataFrame | None = None,
    max_facts: int = MAX_FACTS,
    max_bytes: int = MAX_BYTES,
    n_boot: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write a run as one self-contained HTML page.

    Args:
        run: folder of `li.sweep`, `li.evaluate`, `laser-interp reproduce` or `python -m analyses`. Every sweep in it of
            the same model and facts is used: one with `controls=["discarded"]` and `alphas` tells the page what
            the discarded part answers, and the curve against α.
        out: the .html file.
        counts: from `li.count` or elsewhere; None takes those in the run, or the facts' own frequencies.
        max_facts: more are sampled, from `seed`, in the table of facts; figures are of all facts. The page says so.
        max_bytes: of the page. Answers of as many edits as it leaves room for are in it, the chosen one's first;
            whether an answer is right is told for every edit.
        n_boot: draws of subjects for the intervals.

    Raises:
        FileNotFoundError: no finished run in the folder.
        ValueError: counts that lack a fact, or a page that cannot be so small.
    """
    from tqdm.auto import tqdm

    loaded = _load(Path(run))
    page = _page_parts()
    known = _frequencies(Path(run), loaded, counts)
    lasers = [name for name in dict.fromkeys(loaded.cells["cell"]) if name and Cell.parse(name).kind == "laser"]
    data = _fixed_part(loaded, lasers, known)
    if known is not None:
        data["frequency"] = _by_frequency(loaded, known, lasers, n_boot, seed, progress)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(loaded.facts))[:max_facts])
    room = max_bytes - sum(map(len, page.values())) - 2048
    while True:
        shown = _facts_part(loaded, lasers, chosen, known)
        left = room - _packed({**data, **shown})
        needed = [loaded.selected, ""]
        packed: dict[str, Any] = {}
        words: dict[str, int] = {"": 0}
        items = _items_of(loaded, chosen)
        order = list(dict.fromkeys([*needed, *_by_interest(loaded, lasers)]))
        fits = True
        for name in tqdm(order, desc="answers", disable=not progress, leave=False):
            before = len(words)
            answers = loaded.answers(name)
            if answers is None:
                continue
            one = _encoded(answers, items, words)
            new = "".join(list(words)[before:])
            left -= sum(math.ceil(len(zlib.compress(v)) * 1.4) for v in one.values()) + 2 * len(new) + 200
            if left < 0:
                fits = name not in needed
                break
            packed[name] = {key: base64.b64encode(value).decode() for key, value in one.items()}
        if fits:
            break
        if len(chosen) < 20:
            raise ValueError(f"{max_bytes} bytes are too few for this run: allow more")
        chosen = np.sort(np.random.default_rng(seed).permutation(len(loaded.facts))[: len(chosen) // 2])
    data |= shown | {"answers": list(words), "details": packed}
    data["about"] |= {
        "facts_shown": len(chosen),
        "answers_of": len(packed),
        "answers_of_all": len(packed) == len(order),
        "sample_seed": seed,
    }
    out = Path(out)
    with results.replacing(out) as path:
        path.write_text(_assembled(page, data), encoding="utf-8")
    return out


# --- reading a run -------------------------------------------------------------------------------


def _load(run: Path) -> _Run:
    told = _settings(run)
    if told is not None and "task" in told and (run / "tables" / "rows.parquet").is_file():
        return _evaluation(run, told)
    folders = [f for f in (run, *sorted(run.glob("*/"))) if (f / "cells.parquet").is_file() and _settings(f)]
    if not folders:
        raise FileNotFoundError(
            f"no finished run in {run}: expected the folder of `laser-interp sweep`, `evaluate` or `reproduce`; the "
            "same command finishes one that was stopped"
        )
    first = run / "sweep" if run / "sweep" in folders else folders[0]
    told = _settings(first)
    assert told is not None
    same = ("weights_sha256", "facts_sha256", "path", "at")
    others = [f for f in folders if f != first and all((_settings(f) or {}).get(k) == told.get(k) for k in same)]
    facts = _facts(first)
    tables = [read_table(folder / "cells.parquet", "cells") for folder in (first, *others)]
    cells = pd.concat(tables, ignore_index=True).drop_duplicates(["cell", "split"])
    found = _Run(facts, cells[["cell", "split", "n", "top1", "loss"]], Sweep(tables[0]).select().cell, {}, told)
    found.names = list(dict.fromkeys(cells["cell"]))
    found.parts = [p for folder in (first, *others) for p in sorted((folder / "parts").glob("*/*.parquet"))]
    for path in found.parts:
        frame = pd.read_parquet(path, columns=["cell", *_KEYS, "rank"], filters=[("kind", "in", ["base", "laser"])])
        for name, rows in frame.groupby("cell", sort=False):
            right = found.right.setdefault(str(name), np.full(len(found.items), np.nan, dtype=np.float32))
            right[found.index.get_indexer(pd.MultiIndex.from_frame(rows[_KEYS]))] = rows["rank"] == 1
    return found


def _settings(folder: Path) -> dict[str, Any] | None:
    path = folder / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _facts(folder: Path) -> FactSet:
    path = folder / results.FACTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} does not hold its facts ({results.FACTS}): run the same command on it again")
    return load_facts(path)


def _evaluation(run: Path, told: dict[str, Any]) -> _Run:
    """A task's run: the grid on validation, and answers of the chosen edit on test."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    rows = read_table(run / "tables" / "rows.parquet", "judged")
    cells = read_table(run / "tables" / "cells.parquet").rename(columns={"accuracy": "top1"})
    cells = cells.assign(split="validation")[["cell", "split", "n", "top1", "loss"]]
    selected = summary["selected"]
    found = _Run(_facts(run), cells, selected, {}, told, notes=list(summary["notes"]))
    chosen = Cell.parse(selected)
    names = {"base": "", "laser": selected}
    if chosen.kind == "laser":
        names["discarded"] = str(Cell(chosen.site, "discarded", rho=chosen.rho, rank=chosen.rank))
    for label, name in names.items():
        of = rows[rows["edit"] == label]
        if of.empty:
            continue
        at = found.index.get_indexer(pd.MultiIndex.from_frame(of[_KEYS]))
        right = np.full(len(found.items), np.nan, dtype=np.float32)
        right[at] = of["correct"].astype(float)
        answers = _Answers.unknown(len(found.items))
        answers.answer[at] = of["prediction"]
        if "logprob" in of:
            answers.logprob[at], answers.probability[at] = of["logprob"], of["confidence"]
        found.given[name] = answers
        found.names.append(name)
        if label != "discarded":
            found.right[name] = right
            test = {"cell": name, "split": "test", "n": len(of), "top1": of["correct"].mean()}
            test["loss"] = -of["logprob"].mean() if "logprob" in of else np.nan
            found.cells = pd.concat([found.cells, pd.DataFrame([test])], ignore_index=True)
    return found


def _frequencies(run: Path, loaded: _Run, counts: pd.DataFrame | None) -> pd.DataFrame | None:
    """`fact_id, n_both` and more where known; None where nothing is."""
    source = "the given table"
    if counts is None:
        for path in (run / "tables" / "counts.parquet", run / "counts.parquet"):
            if path.is_file():
                counts, source = read_table(path), path.name
                break
    if counts is None:
        frequency = {fact.fact_id: fact.frequency for fact in loaded.facts}
        if any(value is None for value in frequency.values()):
            return None
        counts = pd.DataFrame({"fact_id": list(frequency), "n_both": list(frequency.values())})
        source = "the fact file"
    known = ["fact_id", *(c for c in ("n_both", "n_subject", "n_object") if c in counts.columns)]
    out = loaded.items[["fact_id"]].drop_duplicates().merge(counts[known], on="fact_id", how="left")
    if out["n_both"].isna().any():
        missing = out.loc[out["n_both"].isna(), "fact_id"]
        raise ValueError(f"no count for {len(missing)} facts of the run, {missing.iloc[0]!r} among them")
    units = counts["unit"].iloc[0] if "unit" in counts.columns and len(counts) else "as given"
    out.attrs |= {"source": source, "unit": units}
    return out


# --- what the page holds -------------------------------------------------------------------------


def _fixed_part(run: _Run, lasers: Sequence[str], known: pd.DataFrame | None) -> dict[str, Any]:
    means = {
        (row["cell"], row["split"]): [row["n"], _round(row["top1"]), _round(row["loss"])]
        for row in run.cells.to_dict("records")
    }
    splits = list(dict.fromkeys(run.cells["split"]))
    described = []
    for name in lasers:
        cell = Cell.parse(name)
        kinds = {n: c for n, c in run.edits.get(cell.site, {}).items() if c.rank == cell.rank}
        described.append(
            {
                "name": name,
                "site": str(cell.site),
                "layer": cell.site.layer,
                "matrix": cell.site.matrix,
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


def _by_frequency(
    run: _Run, known: pd.DataFrame, lasers: Sequence[str], n_boot: int, seed: int, progress: bool
) -> dict[str, Any]:
    """The paper's view and the conditional one, of every cell, on test where there is one."""
    from tqdm.auto import tqdm

    rows = run.items.merge(known, on="fact_id", how="left")
    rows["top1_before"] = run.right[""]
    reported = (rows["split"] == "test").to_numpy() if "test" in set(rows["split"]) else np.ones(len(rows), bool)
    reported = reported & np.isfinite(run.right[""])
    boot = SubjectBootstrap(rows.loc[reported, "subject"], n_boot, seed)
    out: dict[str, Any] = {"n_boot": n_boot, "cells": {}, "paragraph": None, "of": "test"}
    columns = ["base_top1", "edit_top1", "p_fixed_given_wrong", "p_broken_given_right"]
    for name in tqdm(lasers, desc="frequency", disable=not progress, leave=False):
        after = run.right.get(name)
        if after is None or not np.isfinite(after[reported]).all():
            continue
        one = rows[reported].assign(top1_after=after[reported].astype(bool))
        one["top1_before"] = one["top1_before"].astype(bool)
        bins, cumulative = views(one, boot)
        thin = cumulative.iloc[np.unique(np.linspace(0, len(cumulative) - 1, _CUMULATIVE).astype(int))]
        out["bins"] = bins[["lo", "hi", "n"]].astype(float).to_numpy().tolist()
        out["cells"][name] = {
            **{
                c: [[_round(row[c + end]) for end in ("", "_lo", "_hi")] for _, row in bins.iterrows()] for c in columns
            },
            "cumulative": [[_round(v) for v in r] for r in thin[["n_both", "top1_before", "top1_after"]].to_numpy()],
        }
        if name == run.selected:
            out["paragraph"] = _paragraph(one, run, known, n_boot, seed)
    return out


def _paragraph(rows: pd.DataFrame, run: _Run, known: pd.DataFrame, n_boot: int, seed: int) -> str:
    before, after = run.answers(""), run.answers(run.selected)
    at = rows.index.to_numpy()
    frames = []
    for label, answers, column in (("base", before, "top1_before"), ("laser", after, "top1_after")):
        logprob = answers.logprob[at] if answers is not None else np.nan
        frame = rows[[*_KEYS, "subject", "relation", "split"]].assign(frequency=0.0, top1=rows[column], top10=False)
        frames.append(frame.assign(edit=label, logprob=logprob))
    return associate(pd.concat(frames, ignore_index=True), known, n_boot=n_boot, seed=seed).paragraph


def _items_of(run: _Run, chosen: np.ndarray) -> np.ndarray:
    """Items of the chosen facts."""
    wanted = np.zeros(len(run.facts), dtype=bool)
    wanted[chosen] = True
    return np.flatnonzero(np.repeat(wanted, [len(fact.prompts) for fact in run.facts]))


def _facts_part(run: _Run, lasers: Sequence[str], chosen: np.ndarray, known: pd.DataFrame | None) -> dict[str, Any]:
    facts = [run.facts.facts[i] for i in chosen]
    items = _items_of(run, chosen)
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
            part["facts"][column] = [_round(v) for v in by_id.loc[part["facts"]["id"], column]]
    # Right or not, against the model as trained, so that what an edit leaves alone takes no room.
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


def _by_interest(run: _Run, lasers: Sequence[str]) -> Iterator[str]:
    """Cells by how soon a reader wants their answers: the chosen one's, its site's, others as validation ranks them."""
    validation = run.cells[run.cells["split"] == "validation"].set_index("cell")
    value = {name: (validation["top1"].get(name, -1.0), -validation["loss"].get(name, np.inf)) for name in lasers}
    chosen = Cell.parse(run.selected)
    sites = list(dict.fromkeys(Cell.parse(n).site for n in sorted(lasers, key=lambda n: value[n], reverse=True)))
    sites.sort(key=lambda site: site != chosen.site)
    here = run.edits.get(chosen.site, {})
    yield from (n for n, c in here.items() if c.rank == chosen.rank and c.kind in ("discarded", "inject"))
    for site in sites:
        for kind in ("laser", "discarded", "inject"):
            yield from (n for n, c in run.edits.get(site, {}).items() if c.kind == kind)


def _encoded(answers: _Answers, items: np.ndarray, words: dict[str, int]) -> dict[str, bytes]:
    logprob = answers.logprob[items]
    scaled = np.where(np.isfinite(logprob), np.minimum(-logprob / _WORST, 1) * (_MISSING - 1), _MISSING)
    probability = answers.probability[items]
    share = np.where(np.isfinite(probability), probability * (_MISSING - 1), _MISSING)
    index = np.array([words.setdefault(str(word), len(words)) for word in answers.answer[items]], dtype="<u4")
    number = {name: i for i, name in enumerate(CATEGORIES)}
    category = np.array([number.get(name, 255) for name in answers.category[items]], dtype=np.uint8)
    return {
        "logprob": np.rint(scaled).astype("<u2").tobytes(),
        "probability": np.rint(share).astype("<u2").tobytes(),
        "answer": index.tobytes(),
        "category": category.tobytes(),
    }


def _bits(values: np.ndarray) -> str:
    return base64.b64encode(np.packbits(values, bitorder="little").tobytes()).decode()


def _round(value: Any) -> float | None:
    number = float(value)
    return round(number, 4) if math.isfinite(number) else None


# --- the file ------------------------------------------------------------------------------------


def _zipped(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _packed(data: dict[str, Any]) -> int:
    return len(_zipped(json.dumps(data)))


def _page_parts() -> dict[str, str]:
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the report needs plotly: `pip install plotly`") from error

    return {
        "STYLE": (_HERE / "page.css").read_text(encoding="utf-8"),
        "SCRIPT": (_HERE / "page.js").read_text(encoding="utf-8"),
        "PLOTLY": _zipped(get_plotlyjs()),
    }


def _assembled(page: dict[str, str], data: dict[str, Any]) -> str:
    """Data are base64, so that no text of a fact is ever read as HTML or as a script."""
    text = (_HERE / "page.html").read_text(encoding="utf-8")
    for name, value in (page | {"DATA": _zipped(json.dumps(data, allow_nan=False))}).items():
        text = text.replace(f"/*{name}*/", value)
    return text
