"""What do the discarded components say? Categories of their answers, for growing shares (section 5.2)."""

from laser_interp.cli.analyse import Question, finish
from laser_interp.studies import steps


def main(*, question: Question = Question()) -> None:
    """Show what growing shares of the discarded part answer, and what comparable parts of the model answer.

    For example: laser-interp analyse discarded_answers
    """
    context = question.context()
    controls = steps.discarded_controls(context)
    tables = steps.discarded(context) | {"discarded_controls": controls}
    finish(context, tables, controls.round(3).to_string(index=False))
