"""Facts of Wikidata with public counts, shipped with the package: `li.load_facts("wikidata")`.

The triples are those of ParaRel (Elazar et al. 2021, MIT licence), which took them from LAMA's T-REx set (Petroni et
al. 2019) and so from Wikidata (CC0). How often English Wikipedia (dump of May 2020) names a subject, an answer and
both in one sentence was counted by P. L. Harnisch (2022, github.com/pharnisch/Rare-Fact-Knowledge-of-Language-Models).
A fact without a count has an empty cell: no sentence was found, or nobody searched for one. The prompts are written for
this package: `wikidata_prompts.csv` has three for each relation.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pandas as pd

from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.facts.shipped import WIKIDATA

UNIT = "sentences of English Wikipedia"
_COUNTS = ["n_both", "n_subject", "n_object"]


@dataclass(frozen=True)
class Relation:
    """A relation of Wikidata, and how it is asked.

    Attributes:
        wikidata: its property.
        name: in plain words; the `relation` of its facts.
        prompts: texts that end where the answer begins, in which `{}` stands for the subject.
    """

    wikidata: str
    name: str
    prompts: tuple[str, str, str]


with (files("laser_interp") / "facts" / "wikidata_prompts.csv").open(encoding="utf-8") as _table:
    RELATIONS = tuple(Relation(row[0], row[1], (row[2], row[3], row[4])) for row in [*csv.reader(_table)][1:])


def load_wikidata() -> FactSet:
    """The shipped facts; `frequency` is the number of sentences with subject and answer."""
    return FactSet(tuple(_facts(read_table())), name=WIKIDATA)


def read_table() -> pd.DataFrame:
    """One row a fact: `property, subject, object, also_right, split, giveaway, n_both, n_subject, n_object`."""
    text = dict.fromkeys(("property", "subject", "object", "also_right", "split"), str)
    with (files("laser_interp") / "facts" / "wikidata.csv").open(encoding="utf-8") as table:
        empty = {column: [""] for column in _COUNTS}
        kinds = text | dict.fromkeys(_COUNTS, "Int64")
        frame = pd.read_csv(table, dtype=kinds, keep_default_na=False, na_values=empty)
    frame["also_right"] = [tuple(json.loads(names)) if names else () for names in frame["also_right"].tolist()]
    return frame


def _facts(table: pd.DataFrame) -> Iterator[Fact]:
    asked = {relation.wikidata: relation for relation in RELATIONS}
    row: dict[Any, Any]
    for row in table.to_dict("records"):
        relation, subject = asked[row["property"]], row["subject"]
        prompt, *paraphrases = (text.replace("{}", subject) for text in relation.prompts)
        yield Fact(
            fact_id=f"{relation.wikidata}/{subject}",
            subject=subject,
            relation=relation.name,
            object=row["object"],
            prompt=prompt,
            paraphrases=tuple(paraphrases),
            aliases=row["also_right"],
            split=row["split"],
            frequency=None if pd.isna(row["n_both"]) else float(row["n_both"]),
        )


def load_wikidata_counts() -> pd.DataFrame:
    """Sentences of English Wikipedia that name the subject, the answer, and both: one row a fact that has counts."""
    table = read_table().dropna(subset=_COUNTS)
    ids = table["property"] + "/" + table["subject"]
    counts = table[_COUNTS].astype("int64").assign(fact_id=ids, unit=UNIT)
    return counts[["fact_id", *_COUNTS, "unit"]].reset_index(drop=True)
