"""Makes the table of the shipped facts (`laser_interp/facts/wikidata.csv`) from its sources."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.facts.giveaways import gives_away
from laser_interp.facts.wikidata import RELATIONS, Relation

A_RELATION = 84  # at most so many facts of one relation
AN_ANSWER = 20  # at most so many of them with the same answer
VALIDATION = 5  # one subject of so many is for validation
_COUNTS = ["n_both", "n_subject", "n_object"]


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


def main(*, pararel: Path, counts: Path, out: Path = Path("wikidata.csv")) -> None:
    """Draw the shipped facts from ParaRel's triples and Harnisch's counts, as they were drawn for this package.

    For example: laser-interp analyse build_wikidata --pararel ParaRel/data --counts counts.parquet

    Args:
        pararel: Folder with ParaRel's facts/P17.jsonl and so on.
        counts: Harnisch's counts as one parquet file, with the columns subject, relation, object, n_both, n_subject and
            n_object.
        out: The table.
    """
    table = build(pararel, counts)
    table.to_csv(out, index=False)
    print(f"{len(table)} facts: {out}")
