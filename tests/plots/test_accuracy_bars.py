"""Bars of right answers are those of the scores, and several axes take a figure of several panels."""

import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import laser_interp as li
from laser_interp.cluster_intervals import Clusters
from laser_interp.storage.run_folder import read_tables

ROOT = Path(__file__).parents[2] / "figures"


@pytest.fixture(scope="module")
def scores(organism, facts):
    edits = {"base": None, "laser": li.laser(organism, "3.in", rho=0.05)}
    return li.score(organism, facts.split("test"), edits, candidates=False, progress=False)


def _bars(ax: Axes):
    return sorted(round(float(patch.get_width()), 6) for patch in ax.patches if patch.get_width() > 0)


def test_a_bar_is_the_share_of_right_answers(scores):
    (ax,) = li.plots.accuracy(scores).axes
    assert _bars(ax) == sorted(scores.groupby("edit")["correct"].mean().round(6))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base", "laser"]
    ends = np.array([line.get_xdata() for line in ax.lines])
    for (low, high), share in zip(ends, scores.groupby("edit")["correct"].mean(), strict=True):
        assert low < share < high
    (ax,) = li.plots.accuracy(scores, by="relation").axes
    assert _bars(ax) == sorted(scores.groupby(["relation", "edit"])["correct"].mean().round(6))


def test_the_interval_is_over_subjects(scores):
    """It is the report's; more rows of the same subjects hardly narrow it."""
    for table in (scores, scores.loc[scores.index.repeat(4)]):
        rows = table[table["edit"] == "laser"]
        right = rows["correct"].to_numpy(float)
        expected = Clusters(rows["subject"]).rate(right, np.ones(len(right)))[1:]
        assert li.plots.accuracy(table).axes[0].lines[1].get_xdata() == pytest.approx(expected)


def test_columns_that_say_the_same_and_many_edits(scores):
    for table, by in ((scores, "edit"), (scores.assign(k=scores["edit"]), "k")):
        (ax,) = li.plots.accuracy(table, by=by, hue="edit").axes
        assert _bars(ax) == sorted(scores.groupby("edit")["correct"].mean().round(6))
    many = pd.concat([scores[scores["edit"] == "laser"].assign(edit=f"e{i}") for i in range(12)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (ax,) = li.plots.accuracy(many, by="relation").axes
    assert len({patch.get_facecolor() for patch in ax.patches if patch.get_width() > 0}) == 12


def test_what_cannot_be_drawn_is_said(scores):
    many = pd.concat([scores.assign(fact_id=str(i)) for i in range(101)])
    with pytest.raises(ValueError, match="'fact_id' has 101 values, and each has a bar"):
        li.plots.accuracy(many, by="fact_id")
    with pytest.raises(ValueError, match="there is no column 'relations'"):
        li.plots.accuracy(scores, by="relations")
    with pytest.raises(ValueError, match="there are several edits in these scores"):
        li.plots.accuracy(scores, by="relation", hue="category")
    one = scores[scores["edit"] == "laser"]
    assert li.plots.accuracy(one, by="relation", hue="category").axes
    with pytest.raises(
        ValueError, match=r"controls draws the tables controls, and this is another .*li.plots.accuracy"
    ):
        li.plots.controls(scores)


@pytest.fixture(scope="module")
def tables():
    """Of the committed runs, all that figures are drawn from."""
    return {
        **read_tables(ROOT / "training"), **read_tables(ROOT / "atlas"), **read_tables(ROOT / "gemma3-270m"),
        **read_tables(ROOT / "organism"),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in li.plots.FIGURES if name not in ("answer_by_layer", "first_recall")])
def test_every_figure_takes_as_many_axes_as_it_has_panels(tables, name):
    draw = li.plots.FIGURES[name]
    if not draw.can_draw(tables):
        pytest.skip("no committed run has its tables")
    whole, axes = plt.subplots(2, 2)
    try:
        assert draw(tables, ax=axes[0, 0]) is axes[0, 0]
    except ValueError as error:
        rows, columns = map(int, re.findall(r"subplots\((\d+), (\d+)\)", str(error))[0])
        assert rows * columns > 1
        plt.close(whole)
        whole, axes = plt.subplots(rows, columns)
        assert draw(tables, ax=axes) is axes
    assert np.ravel(axes)[0].has_data()
    plt.close(whole)
