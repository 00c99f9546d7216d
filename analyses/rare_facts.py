"""Do the gains fall on rare facts? The paper's two plots, and what the data can support (section 5.1)."""

from laser_interp.cli.analyse import Question, answered, finish
from laser_interp.studies.questions.rare_facts import RareFacts


def main(*, question: Question = Question()) -> None:
    """Relate the change of each fact's score to its training frequency, beside deleting the matrix and placebos.

    For example: laser-interp analyse rare_facts
    """
    context = question.context()
    if context.counts is None:
        raise ValueError("there are no frequencies: give --counts or --corpus, or facts with a frequency each")
    found = answered(context, RareFacts)
    finish(context, found.tables, f"{found.numbers['frequency_in_words']}\n{found.numbers['placebos_in_words']}")
