"""What do the discarded components say? Categories of their answers, for growing shares (section 5.2)."""

from laser_interp.cli.analyse import Question, answered, finish
from laser_interp.studies.questions.discarded_part import DiscardedPart, discarded_controls


def main(*, question: Question = Question()) -> None:
    """Show what growing shares of the discarded part answer, and what comparable parts of the model answer.

    For example: laser-interp analyse discarded_answers
    """
    context = question.context()
    seed = context.settings.study_seed
    controls = discarded_controls(context.model, context.test, context.edit, seed=seed)
    tables = {**answered(context, DiscardedPart).tables, "discarded_controls": controls}
    finish(context, tables, controls.round(3).to_string(index=False))
