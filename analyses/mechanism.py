"""Why does the edit change accuracy? Generic words suppressed, the answer's rivals weakened, or chance."""

from laser_interp.cli.analyse import Question, finish
from laser_interp.statistics.mechanism import explain
from laser_interp.studies import steps


def main(*, question: Question = Question()) -> None:
    """Compare three explanations of the edit's effect, with the help of its controls.

    For example: laser-interp analyse mechanism
    """
    context = question.context()
    tables = steps.controls(context)
    finish(context, tables, str(explain(context.scores, seed=context.settings.study_seed)))
