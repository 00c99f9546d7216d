"""Does the edit that is best for one relation help the others? (The paper chooses one edit for each task.)"""

from laser_interp.cli.analyse import Question, finish
from laser_interp.studies.task_transfer import transfer_between_relations


def main(*, question: Question = Question()) -> None:
    """Let each relation's validation facts choose an edit, and test each of these edits on every relation.

    For example: laser-interp analyse transfer
    """
    context = question.context()
    table = transfer_between_relations(context.model, context.facts, progress=context.progress)
    finish(context, {"transfer": table}, "")
