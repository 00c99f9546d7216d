"""Do the gains fall on rare facts? The paper's two plots, and what can be told honestly (section 5.1)."""

from __future__ import annotations

import laser_interp as li
from analyses import Question, Tables, run
from laser_interp.studies import steps as study


def tables(question: Question) -> Tables:
    """Gains in score by training frequency."""
    runs: dict[str, li.Edit | None] = {"base": None, "laser": question.edit}
    for name in study.PLACEBOS:
        for seed in range(2):
            runs[f"{name}/{seed}"] = study.RANDOM_CONTROLS[name](question.model, question.edit, seed=seed)
    scores = li.score(question.model, question.test, runs)
    counts = question.counts
    if counts is None:
        counts = question.facts.to_frame()[["fact_id", "frequency"]].rename(columns={"frequency": "n_both"})
    association, permuted = study.rare_facts(scores, counts)
    placebo = study.placebo(scores, counts)
    print(association.paragraph)
    print(placebo.paragraph)
    return study.association_tables(association, permuted, placebo) | {"counts": counts}


def main(argv: list[str]) -> Tables:
    return run("rare_facts", tables, argv)
