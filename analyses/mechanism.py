"""Why does the edit change accuracy? Generic words suppressed, the answer's rivals weakened, or chance."""

from laser_interp.cli.analyse import Question, answered, finish
from laser_interp.studies.questions.controls import BesideControls
from laser_interp.studies.questions.reasons import Reasons


def main(*, question: Question = Question()) -> None:
    """Compare three explanations of the edit's effect, with the help of its controls.

    For example: laser-interp analyse mechanism
    """
    context = question.context()
    reasons = answered(context, Reasons).numbers["mechanism"]["in_words"]
    finish(context, answered(context, BesideControls).tables, "\n".join(reasons))
