"""What a study found, on its page: in words, and in a table for each further question."""

import pytest

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.report.page_data import study_part

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(organism, facts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    study = li.study(
        organism, facts.keep(facts.facts[::4]), li.count(facts, "organism", progress=False), matrices="in", layers=[3],
        rhos=[0.2, 0.05], n_draws=1, n_permutations=99, shares=(0.5, 1.0), out=folder, text="The master of Mira Tolen.",
        progress=False,
    )  # fmt: skip
    return folder, study


def test_every_table_is_the_studys(run):
    folder, study = run
    part = study_part(folder)
    names = ["controls", "prompts", "relations", "categories", "paraphrases", "composition", "perplexity"]
    assert [table["name"] for table in part["tables"]] == names
    for table in part["tables"]:
        assert table["rows"], table["name"]
        assert {len(row) for row in table["rows"]} == {len(table["columns"])}
    controls = {row[0]: row[1] for row in part["tables"][0]["rows"]}
    told = study.tables["controls"].set_index("control")["accuracy"]
    assert list(controls)[:3] == ["as trained", "LASER", "discarded part alone"]
    assert controls["LASER"] == pytest.approx(told["laser"], abs=1e-4)
    assert part["mechanism"] == study.summary["mechanism"]["in_words"]
    (side_effects,) = [table for table in part["tables"] if table["name"] == "perplexity"]
    assert side_effects["rows"][1][1] == pytest.approx(study.summary["perplexity"][1]["perplexity"], abs=1e-3)


def test_the_words_hold_the_numbers(run):
    folder, study = run
    words = " ".join(study_part(folder)["words"])
    test = study.summary["test"]
    for share in (test["base"]["accuracy"], test["laser"]["accuracy"]):
        assert f"{100 * share:.1f} %" in words
    assert study.summary["change"]["in_words"] in words
    assert "Validation facts chose the matrix 3.in" in words


def test_a_search_has_none(tmp_path, organism, facts):
    li.search(
        organism, facts.keep(facts.facts[::8]), matrices="in", layers=[3], rhos=[0.05], out=tmp_path, progress=False
    )
    assert study_part(tmp_path) is None


def test_an_exports_card_quotes_the_study(run, tmp_path, capsys):
    folder, study = run
    edit = str(folder / "edit.json")
    for form in ([], ["--adapter"]):
        out = tmp_path / f"form-{len(form)}"
        assert main(["export", "--model", "organism", "--edit", edit, "--out", str(out), *form]) == 0
        card = (out / "README.md").read_text()
        assert study.summary["change"]["in_words"] in card
        assert "| matrix zeroed |" in card
        assert "Figures, in" not in card
        assert "Nothing was measured" not in card
    assert main(["export", "--model", "organism", "--edit", "3.in:0.2", "--out", str(tmp_path / "alone")]) == 0
    assert "Nothing was measured" in (tmp_path / "alone" / "README.md").read_text()
    capsys.readouterr()
