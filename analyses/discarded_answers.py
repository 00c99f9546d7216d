"""What do the discarded components say? Categories of their answers, for growing shares (section 5.2)."""

from __future__ import annotations

from analyses import Question, Tables, run
from laser_interp import study


def tables(question: Question) -> Tables:
    """Answers of growing shares of the discarded part, by category."""
    answers, categories = study.discarded_answers(question.model, question.test, question.edit)
    return {"discarded_answers": answers, "discarded_categories": categories}


def main(argv: list[str]) -> Tables:
    return run("discarded_answers", tables, argv)
