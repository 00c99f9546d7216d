"""One study is of one edit: its tables, its discarded part, its composition, its perplexity and its files agree,
whatever the method of the search, and wherever and along whichever path edits act."""

import pytest

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.edits.edit_spec import EditSpec, describe_edits
from laser_interp.studies.context import StudyContext
from laser_interp.studies.settings import StudySettings

pytestmark = pytest.mark.slow

TEXT = "The master of Mira Tolen was a painter of ships. " * 12
STUDIES = {
    "everywhere": {"matrices": "in", "layers": [3], "rhos": [0.05, 0.02]},
    "at the subject": {"at": "subject", "matrices": "in", "layers": [3], "rhos": [0.05]},
    "at the last token, by race": {"at": "last", "method": "race", "matrices": "mlp", "rhos": [0.05, 0.2]},
    "on the direct path": {"path": "direct", "matrices": "out", "layers": [2, 3], "rhos": [0.05]},
    "on the indirect path, at random": {"path": "indirect", "method": "random", "matrices": "out", "rhos": [0.1]},
    "by a text": {"method": "rmt", "matrices": "mlp"},
    "learned": {"method": "learned", "matrices": "mlp", "rhos": [0.05, 0.2]},
    "learned, at the last token": {"method": "learned", "at": "last", "matrices": "mlp", "rhos": [0.05, 0.2]},
}
QUICK = ("at the subject", "everywhere")
DRAWN = ("everywhere", "learned, at the last token")  # each night all are: figures take as long as all else


@pytest.fixture(scope="module")
def some(facts):
    return facts.keep(facts.facts[:160])


def accuracy(model, facts, edit):
    scores = li.score(model, facts, {"base": None, "x": edit}, candidates=False, progress=False)
    return float(scores.loc[scores["edit"] == "x", "correct"].mean())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in STUDIES]
)
@pytest.mark.parametrize("drawn", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["", "drawn"])
def test_everything_is_of_one_edit(organism, some, tmp_path, monkeypatch, name, drawn):
    how = STUDIES[name]
    if not drawn and name not in DRAWN:
        monkeypatch.setattr("laser_interp.studies.pipeline.draw_all", lambda *given, **options: [])
    study = li.study(
        organism, some, **how, text=TEXT, n_draws=1, n_permutations=99, shares=(1.0,), strengths=(), most_edits=1,
        attribute=False, examples=0, prompts="all", subject="single", out=tmp_path, progress=False,
    )  # fmt: skip
    test = some.ensure_split().split("test")
    controls = study.tables["controls"].set_index("control")["accuracy"]
    told = controls["laser"]
    assert study.cell.path == how.get("path", "network")
    assert study.cell.at == how.get("at")
    # its edit, from the study, from what was selected, from the search, and from the file
    loaded = li.load_edit(tmp_path / "edit.json", organism)
    for edit in (study.edit(organism), study.selection.edit(organism), study.search.select().edit(organism), loaded):
        assert accuracy(organism, test, edit) == pytest.approx(told)
    # its controls act where it acts
    for kind in ("zeroed", "discarded"):
        control = study.cell.of_kind(kind).edit(organism, some)
        assert accuracy(organism, test, control) == pytest.approx(controls[kind])
    # its discarded part
    answers = study.tables["discarded_categories"].set_index(["outcome", "edit"])["correct"]
    assert answers["all", "edit"] == pytest.approx(told)
    assert answers["all", "discarded"] == pytest.approx(controls["discarded"])
    assert study.summary["discarded"]["n"] == study.summary["change"]["n_fixed"]
    # its composition, of one edit at most, which acts along the same path and at the same positions
    composed = study.summary["composed"]
    if composed["edit"] is not None:
        spec = EditSpec.parse(composed["edit"])
        assert (spec.path, spec.at) == (study.cell.path, study.cell.at)
        assert accuracy(organism, test, spec.edit(organism, some)) == pytest.approx(composed["accuracy"])
        if spec == study.cell:
            assert composed["accuracy"] == pytest.approx(told)
            assert composed["over_one"]["n_fixed"] == composed["over_one"]["n_broken"] == 0
    # its perplexity, where running text has the positions at which it acts
    if study.cell.at is None:
        expected = li.perplexity(organism, TEXT, study.edit(organism))["perplexity"]
        assert study.summary["perplexity"][1]["perplexity"] == pytest.approx(expected)
    else:
        assert "perplexity" not in study.summary
        assert "its perplexity is not measured" in study.report
    # and its page
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "page.html"), "--quiet"]) == 0


def test_a_description_says_all_of_an_edit(organism, some):
    """Text and back, and an edit and back; gains alone are named by their hash."""
    laser = li.laser(organism, ["2.out", "3.in"], rank=3).via("network")
    for edit in (laser, li.laser(organism, "3.out", 0.05).via("direct"), laser.at(organism, "last", some)):
        spec = EditSpec.of(edit)
        assert EditSpec.parse(str(spec)) == spec
        again = spec.edit(organism, some)
        assert again.describe() == edit.describe()
    learned = EditSpec.of(li.gains(organism, {"3.in": [1.0] * 10 + [0.25] * 54}))
    assert "sha256=" in str(learned)
    assert EditSpec.parse(str(learned)).sites == learned.sites
    with pytest.raises(ValueError, match="take the edit from the search"):
        EditSpec.parse(str(learned)).edit(organism)
    with pytest.raises(ValueError, match="give the facts whose prompts"):
        EditSpec.of(laser.at(organism, "last", some)).edit(organism)
    with pytest.raises(ValueError, match="cannot be described"):
        EditSpec.of(li.controls.pruned(organism, "3.in", 0.5))


def test_the_command_line_takes_a_descriptions_text(tmp_path, capsys):
    asked = ["discarded", "--model", "organism", "--facts", "organism", "--split", "test", "--quiet"]
    for n, edit in enumerate(("3.in:rank=3", "3.in laser rank=3", "3.in laser rank=3 at=last")):
        assert main([*asked, "--edit", edit, "--out", str(tmp_path / f"{n}.parquet")]) == 0
    told = capsys.readouterr().out
    assert "generic" in told
    assert main([*asked, "--edit", "3.in laser depth=3", "--out", str(tmp_path / "x.parquet")]) == 2
    assert "'3.in laser depth=3' describes no edit" in capsys.readouterr().err


def test_a_search_that_accepts_nothing_says_so(tmp_path, capsys):
    """The perplexity of one word, again and again, rises under the edit of this matrix. A search has its result then; a
    study has nothing to study, and ends."""
    (tmp_path / "text.txt").write_text("the " * 300)
    words = ["--model", "organism", "--facts", "organism", "--method", "rmt", "--matrices", "v", "--layers", "1"]
    words += ["--text", str(tmp_path / "text.txt"), "--quiet", "--out"]
    assert main(["search", *words, str(tmp_path / "s")]) == 0
    assert "no edit was accepted" in capsys.readouterr().out
    assert (tmp_path / "s" / "tables" / "cells.parquet").is_file()
    assert main(["study", *words, str(tmp_path / "t")]) == 2
    assert "let the search look at more matrices or layers" in capsys.readouterr().err


def test_how_rounds_are_screened_is_decided_once(organism, some, tmp_path, monkeypatch):
    """On a machine that is faster in bfloat16 the same run is resumed as it was begun."""
    how = {"method": "race", "matrices": "mlp", "rhos": [0.05, 0.2], "out": tmp_path, "progress": False}
    monkeypatch.setattr("laser_interp.selection.plan.bfloat16_is_faster", lambda model: False)
    found = li.search(organism, some, **how)
    monkeypatch.setattr("laser_interp.selection.plan.bfloat16_is_faster", lambda model: True)
    again = li.search(organism, some, **how)
    assert again.cells.equals(found.cells)
    assert not list(tmp_path.glob("parts/*-screened"))


def test_the_control_model_is_judged_by_the_studys_rule(organism, some):
    from laser_interp.facts.tasks import own_task
    from laser_interp.studies.context import StudyContext

    other = li.load_model("organism-control", device="cpu"), li.load_facts("organism-control")
    context = StudyContext(organism, own_task(some, "candidates"), control_model=other, progress=False)
    assert context.on_control_model().task.rule == "candidates"


def test_a_studys_figures_are_those_of_its_folder(organism, some, tmp_path):
    study = li.study(
        organism, some, matrices="in", layers=[3], rhos=[0.05], n_draws=1, n_permutations=99, compose=False,
        attribute=False, examples=0, prompts="all", subject="single", out=tmp_path, progress=False,
    )  # fmt: skip
    drawn = {name for name, figure in li.plots.FIGURES.items() if figure.can_draw(study.tables)}
    assert drawn == {path.stem for path in (tmp_path / "figures").glob("*.pdf")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3.in band", "a band without its ends"),
        ("3.in inject rank=3", "has no strength"),
        ("3.in+3.out laser rank=3", "expected one rank a site"),
        ("3.in laser rho=0.05", "names no rank"),
        ("3.in laser rank=3 rank=4", "rank is given twice"),
    ],
)
def test_a_description_that_makes_no_edit_is_refused(organism, text, expected):
    with pytest.raises(ValueError, match=expected):
        describe_edits(organism, text).edit(organism)


def test_clusters_of_another_layer_have_other_sizes(organism, some):
    """So the control in layer 0 is left out, with a note, and cannot be made by hand."""
    how = {"matrices": "in", "layers": [3], "rhos": [0.05], "blocks": "4-outputs-kmeans", "method": "grid"}
    study = li.study(organism, some, n_draws=1, compose=False, progress=False, **how)
    assert "zeroed" in set(study.tables["scores"]["edit"])
    assert "layer_0" not in set(study.tables["scores"]["edit"])
    found = li.search(organism, some, controls=["layer_0", "zeroed"], progress=False, **how)
    assert "layer_0" not in set(found.cells["kind"])
    assert any("layer_0 is left out" in note for note in found.notes)
    with pytest.raises(ValueError, match="blocks of other sizes"):
        li.controls.same_rank_in_layer(organism, study.edit(organism))


def test_a_given_edit_is_looked_at_where_it_acts(organism, some, tmp_path):
    """The search around it and the compositions act along its path, not along that of the settings."""
    given = EditSpec(li.Site(2, "out"), rho=0.05, ranks=3, path="direct")
    settings = StudySettings(n_draws=1, test="chosen")
    context = StudyContext(organism, li.tasks.own_task(some), settings, chosen=given, progress=False)
    assert {EditSpec.parse(cell).path for cell in context.around.cells["cell"] if cell} == {"direct"}
