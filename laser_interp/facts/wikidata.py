"""Facts of Wikidata with public counts, shipped with the package: `li.load_facts("wikidata")`.

The triples are those of ParaRel (Elazar et al. 2021, MIT licence), which took them from LAMA's T-REx set (Petroni et
al. 2019) and so from Wikidata (CC0). How often English Wikipedia (dump of May 2020) names a subject, an answer and
both in one sentence was counted by P. L. Harnisch (2022, github.com/pharnisch/Rare-Fact-Knowledge-of-Language-Models).
A fact without a count has an empty cell: no sentence was found, or nobody searched for one.
"""

import hashlib
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.facts.giveaways import gives_away
from laser_interp.facts.shipped import WIKIDATA
from laser_interp.facts.wikidata_prompts import RELATIONS, Relation

UNIT = "sentences of English Wikipedia"
A_RELATION = 84  # at most so many facts of one relation
AN_ANSWER = 20  # at most so many of them with the same answer
VALIDATION = 5  # one subject of so many is for validation
_COUNTS = ["n_both", "n_subject", "n_object"]


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


def build(pararel: Path, counts: Path) -> pd.DataFrame:
    """The table that is shipped, from its sources.

    A subject with several answers in one relation has the first as its `object`, and the others are right as well.
    Facts are drawn by the hash of relation and subject, at most `A_RELATION` of a relation and `AN_ANSWER` with one
    answer; the hash of the subject alone decides its split, so that no subject is on both sides.

    Args:
        pararel: folder with ParaRel's `facts/P17.jsonl` and so on.
        counts: Harnisch's counts as one parquet file: `subject, relation, object, n_both, n_subject, n_object`.
    """
    known = pd.read_parquet(counts)
    rows = [row for relation in RELATIONS for row in _drawn(relation, pararel, known)]
    return pd.DataFrame(rows).astype(dict.fromkeys(_COUNTS, "Int64"))


def _drawn(relation: Relation, pararel: Path, known: pd.DataFrame) -> list[dict[str, Any]]:
    answers: dict[str, list[str]] = {}
    for line in (pararel / "facts" / f"{relation.wikidata}.jsonl").read_text(encoding="utf-8").splitlines():
        triple = json.loads(line)
        of_subject = answers.setdefault(triple["sub_label"], [])
        if triple["obj_label"] not in of_subject:
            of_subject.append(triple["obj_label"])
    here = known[known["relation"] == relation.wikidata]
    counted: dict[tuple[str, str], dict[str, Any]] = {}
    row: dict[Any, Any]
    for row in here.to_dict("records"):
        counted[row["subject"], row["object"]] = {name: row[name] for name in _COUNTS}
        if row["subject"] in answers and row["object"] not in answers[row["subject"]]:
            answers[row["subject"]].append(row["object"])
    rows: list[dict[str, Any]] = []
    of_answer: dict[str, int] = {}
    for subject in sorted(answers, key=lambda name: _hash(f"{relation.wikidata} {name}")):
        answer, *others = answers[subject]
        if len(rows) == A_RELATION or of_answer.get(answer, 0) == AN_ANSWER:
            continue
        of_answer[answer] = of_answer.get(answer, 0) + 1
        rows.append(
            {
                "property": relation.wikidata,
                "subject": subject,
                "object": answer,
                "also_right": json.dumps(others, ensure_ascii=False) if others else "",
                "split": "validation" if _hash(subject) % VALIDATION == 0 else "test",
                "giveaway": gives_away(subject, [answer, *others]),
                **counted.get((subject, answer), dict.fromkeys(_COUNTS)),
            }
        )
    return rows


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)
