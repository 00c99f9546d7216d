"""Every public function shows an example, and the examples run."""

import contextlib
import doctest
import inspect
import io

import pytest
from public_names import PUBLIC

import laser_interp as li

FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]
EXPLAINED = [name for name, value in PUBLIC.items() if ">>>" in (inspect.getdoc(value) or "")]


@pytest.fixture(scope="module")
def names(organism, facts):
    """What the examples take for granted: the names of the tour on the documentation's first page, of few facts."""
    test, laser = facts.split("test")[:40], li.laser(organism, "3.in", rho=0.05)
    some = facts.keep([*facts.split("validation").facts[:40], *test.facts])
    scores = li.score(organism, test, {"base": None, "laser": laser}, progress=False)
    counts = li.count(facts, "organism", progress=False)
    return {"li": li, "model": organism, "facts": some, "test": test, "laser": laser} | {
        "edit": laser, "scores": scores, "counts": counts, "base": organism, "tuned": organism
    }  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_has_an_example(name):
    assert name in EXPLAINED


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPLAINED)
def test_the_example_runs(name, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = dict(names)
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(PUBLIC[name]) or "", given, name, None, 0)
    for example in test.examples:
        if doctest.SKIP in example.options:
            continue  # asks a service, or runs for minutes
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(example.source, "example", "single"), given)
        if example.want:
            assert checker.check_output(example.want, out.getvalue(), flags), (example.source, out.getvalue())
