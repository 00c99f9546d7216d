"""Do the gains fall on rare facts? The paper's two plots, and what the data can support (section 5.1)."""

from laser_interp.cli.analyse import Question, finish
from laser_interp.studies import steps


def main(*, question: Question = Question()) -> None:
    """Relate the change of each fact's score to its training frequency, beside placebos.

    For example: laser-interp analyse rare_facts
    """
    context = question.context()
    if context.counts is None:
        raise ValueError("there are no frequencies: give --counts or --corpus, or facts with a frequency each")
    tables = steps.frequency(context)
    finish(context, tables, f"{context.association.paragraph}\n{context.placebo.paragraph}")
