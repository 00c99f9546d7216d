"""What do the discarded components say? Categories of their answers, for growing shares (section 5.2)."""

from __future__ import annotations

from analyses import Question, Tables, run
from laser_interp.studies import steps as study


def tables(question: Question) -> Tables:
    """Answers of growing shares of the discarded part, by category, and of parts that should not answer so."""
    answers, categories = study.discarded_answers(question.model, question.test, question.edit)
    controls = study.discarded_controls(question.model, question.test, question.edit)
    print(controls.round(3).to_string(index=False))
    return {"discarded_answers": answers, "discarded_categories": categories, "discarded_controls": controls}


def main(argv: list[str]) -> Tables:
    return run("discarded_answers", tables, argv)
