"""Which truncation helps? Every layer, matrix and ρ."""

from laser_interp.cli.analyse import Question, answered, finish
from laser_interp.studies.questions.edit_choice import EditChoice


def main(*, question: Question = Question()) -> None:
    """Score every layer, matrix and rho; validation selects, test reports.

    For example: laser-interp analyse loss_by_layer
    """
    context = question.context(method="grid", test="all")
    finish(context, answered(context, EditChoice).tables, f"Validation selects {context.selection.cell}.")
