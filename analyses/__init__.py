"""One file per question of the paper; each returns tables, and runs as `python -m analyses NAME`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

import laser_interp as li
from laser_interp.edits.edit import parse_laser
from laser_interp.plots import figures as plots
from laser_interp.storage import tables as results

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Question:
    """What every analysis starts from: a model, facts, a folder, and the edit that validation chose.

    Attributes:
        model_name, facts_source: as `li.load_model` and `li.load_facts` take them.
        out: folder of the results; the sweep in it is shared by all analyses and resumed.
        corpus: as `li.count` takes it; None uses the frequencies in the fact file.
        edit_given: "3.in:0.05" (site and ρ), or None to let the sweep's validation choose.
    """

    model_name: str
    facts_source: str
    out: Path
    corpus: str | None = None
    edit_given: str | None = None

    @cached_property
    def model(self) -> li.Model:
        return li.load_model(self.model_name)

    @cached_property
    def facts(self) -> li.FactSet:
        facts = li.load_facts(self.facts_source)
        return facts if facts.splits else facts.with_split(0.2, seed=0)

    @cached_property
    def test(self) -> li.FactSet:
        return self.facts.split("test")

    @cached_property
    def sweep(self) -> li.Sweep:
        return li.sweep(self.model, self.facts, out=self.out / "sweep")

    @cached_property
    def edit(self) -> li.Edit:
        if self.edit_given is None:
            return self.sweep.select().edit(self.model)
        return parse_laser(self.model, self.edit_given)

    @cached_property
    def counts(self) -> pd.DataFrame | None:
        return li.count(self.facts, self.corpus) if self.corpus else None

    def write(self, tables: Tables) -> list[Path]:
        """Tables as parquet, and the figures that they are enough for."""
        provenance = {
            "model": self.model.name,
            "revision": self.model.revision,
            "weights_sha256": self.model.weights_sha256,
            "facts_sha256": self.facts.sha256,
        }
        written = [
            results.write_table(table, self.out / "tables" / f"{name}.parquet", None, provenance)
            for name, table in tables.items()
        ]
        return written + plots.draw_all(
            tables, self.out / "figures", about={"model": self.model.name, "command": f"python -m figures {self.out}"}
        )


def run(name: str, analyse: Callable[[Question], Tables], argv: list[str]) -> Tables:
    """The command line every analysis shares."""
    parser = argparse.ArgumentParser(prog=f"python -m analyses {name}", description=analyse.__doc__)
    parser.add_argument("--model", default="organism", help="shipped name, folder or hub id (default: %(default)s)")
    parser.add_argument("--facts", default=None, help="fact file (default: the organism's)")
    parser.add_argument(
        "--corpus", default=None, help="where to count; default: the organism's corpus for its own facts"
    )
    parser.add_argument("--edit", default=None, help="SITE:RHO, as in 3.in:0.05 (default: what validation chooses)")
    parser.add_argument("--out", default=None, type=Path, help="folder (default: runs/MODEL)")
    args = parser.parse_args(argv)
    ours = args.model in ("organism", "organism-control")
    if args.facts is None and not ours:
        parser.error(f"--facts is needed for the model {args.model!r}")
    question = Question(
        args.model,
        args.facts or args.model,
        args.out or Path("runs") / Path(args.model).name,
        args.corpus or (args.model if ours and args.facts is None else None),
        args.edit,
    )
    tables = analyse(question)
    for path in question.write(tables):
        print(path)
    return tables
