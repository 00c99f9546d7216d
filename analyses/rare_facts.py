"""Do the gains fall on rare facts? The paper's two plots, and what can be told honestly (section 5.1)."""

from __future__ import annotations

import laser_interp as li
from analyses import Question, Tables, run
from laser_interp import study


def tables(question: Question) -> Tables:
    """Gains in score by training frequency."""
    scores = li.score(question.model, question.test, {"base": None, "laser": question.edit})
    counts = question.counts
    if counts is None:
        counts = question.facts.to_frame()[["fact_id", "frequency"]].rename(columns={"frequency": "n_both"})
    association, permuted = study.rare_facts(scores, counts)
    print(association.paragraph)
    return study.association_tables(association, permuted) | {"counts": counts}


def main(argv: list[str]) -> Tables:
    return run("rare_facts", tables, argv)
