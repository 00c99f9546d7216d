"""What `help()` and a notebook's completion show: functions that take settings by name show each of them."""

import inspect
from dataclasses import fields

import pytest

import laser_interp as li

TAKES = {
    "search": li.types.SearchSettings,
    "estimate": li.types.SearchSettings,
    "trajectory": li.types.SearchSettings,
    "compose": li.types.CompositionSettings,
    "study": li.types.StudySettings,
}


@pytest.mark.parametrize("name", TAKES)
def test_a_function_shows_its_settings(name):
    shown = inspect.signature(getattr(li, name)).parameters
    for field in fields(TAKES[name]):
        assert field.name in shown
        if field.default is not inspect.Parameter.empty and shown[field.name].annotation == field.type:
            assert shown[field.name].default == field.default
    assert not any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in shown.values())


@pytest.mark.parametrize("name", [*li.plots.FIGURES, "accuracy"])
def test_a_figure_shows_its_options(name):
    shown = inspect.signature(getattr(li.plots, name)).parameters
    assert {"ax", "palette", "figsize", "title", "style", "columns"} <= set(shown)
    assert "options" not in shown


def test_a_figures_own_options_are_shown():
    assert {"by", "hue"} <= set(inspect.signature(li.plots.accuracy).parameters)
