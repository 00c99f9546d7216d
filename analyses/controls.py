"""Would anything else have done as well? The edit beside its controls."""

from __future__ import annotations

from analyses import Question, Tables, run
from laser_interp.studies import steps as study


def tables(question: Question) -> Tables:
    """The edit beside random, zeroed, displaced and permuted controls, and the control organism."""
    found = study.controls(question.model, question.test, question.edit)
    out = {"controls": found.table, "scores": found.scores}
    if question.counts is not None:
        _, permuted = study.rare_facts(found.scores, question.counts)
        out["rare_facts_permuted"] = permuted.spearman.reset_index(names="of")
    if question.model_name == "organism":
        out["control_organism"] = study.control_organism(question.edit, question.out / "sweep-control")
    return out


def main(argv: list[str]) -> Tables:
    return run("controls", tables, argv)
