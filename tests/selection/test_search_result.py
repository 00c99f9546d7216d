"""What a search found, in numbers and in words."""

import pytest

import laser_interp as li
from laser_interp.selection.search_result import Selection, Spent


@pytest.mark.parametrize(
    ("score", "loss", "improves"),
    [(0.6, 9.0, True), (0.5, 1.9, True), (0.5, 2.0, False), (0.5, 2.1, False), (0.4, 0.1, False)],
)
def test_an_edit_is_better_by_its_score_then_by_its_loss(score, loss, improves):
    found = Selection(li.EditSpec.parse("3.in laser rho=0.1 rank=2"), score, loss, 0.5, 2.0)
    assert found.improves == improves
    assert ("validation better than" if improves else "validation no better than") in repr(found)


def test_what_was_spent_is_said_in_words():
    assert str(Spent("grid", 9, 9, 100, 0, 1.0)) == "the grid of 9 cells"
    assert str(Spent("race", 9, 90, 100, 7, 0.051)) == (
        "race: 9 of 90 cells, 100 cell-prompts and 7 prompts with gradients, 5.1% of the grid's cost"
    )
    assert str(Spent("rmt", 9, 90, 0, 0, 0.0, 4)) == "rmt: 9 of 90 cells, a text read 4 times, 0.0% of the grid's cost"
