"""Does the edit that is best for one relation help the others? (The paper chooses one edit for each task.)"""

from __future__ import annotations

from analyses import Question, Tables, run
from laser_interp.studies import steps as study


def tables(question: Question) -> Tables:
    """The edit that each relation's validation facts choose, tested on every relation."""
    return {"transfer": study.transfer_between_relations(question.model, question.facts)}


def main(argv: list[str]) -> Tables:
    return run("transfer", tables, argv)
