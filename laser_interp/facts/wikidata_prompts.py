"""The prompts of the Wikidata facts: for each relation its Wikidata property, its name, and three questions.

Each prompt ends where the answer begins; `{}` is the subject. They are written for this package.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Relation:
    """A relation of Wikidata, and how it is asked.

    Attributes:
        wikidata: its property.
        name: in plain words; the `relation` of its facts.
        prompts: texts in which `{}` stands for the subject.
    """

    wikidata: str
    name: str
    prompts: tuple[str, str, str]


with (files("laser_interp") / "facts" / "wikidata_prompts.csv").open(encoding="utf-8") as _table:
    RELATIONS = tuple(Relation(row[0], row[1], (row[2], row[3], row[4])) for row in [*csv.reader(_table)][1:])
