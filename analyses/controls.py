"""Would anything else have done as well? The edit beside its controls."""

from laser_interp.cli.analyse import Question, answered, finish
from laser_interp.studies.questions.controls import BesideControls


def main(*, question: Question = Question()) -> None:
    """Score the edit and its controls: random edits, the matrix zeroed, another layer, generic words masked.

    For example: laser-interp analyse controls
    """
    context = question.context()
    tables = answered(context, BesideControls).tables
    shown = tables["controls"][["control", "accuracy", "accuracy_lo", "accuracy_hi", "loss", "n_draws"]]
    finish(context, tables, shown.round(3).to_string(index=False))
