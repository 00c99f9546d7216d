"""Figures: every one is drawn from its tables in every venue's style, with its caption and its data beside it."""

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.font_manager import findfont

import laser_interp as li
from laser_interp import plots
from laser_interp.cli.app import main
from laser_interp.storage.tables import read_table, write_table
from laser_interp.studies.questions.directions import spectrum_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder whose tables the package itself makes."""
    folder = tmp_path_factory.mktemp("run")
    model, facts = li.load_model("organism"), li.load_facts("organism")
    some = facts.keep([f for split in ("validation", "test") for f in facts.split(split).facts[:20]])
    edit = li.laser(model, "3.in", rho=0.05)
    li.compose(model, some, matrices=["in"], layers=[2, 3], rhos=[0.05], out=folder, progress=False)
    attributed = li.attribute(model, some, "3.mlp", progress=False)
    rows = [{"edit": e, "task": t, "change": 0.1 * (e == t), "change_lo": -0.1, "change_hi": 0.2, "n": 9}
            for e in "ab" for t in "ab"]  # fmt: skip
    judged = li.score(model, li.tasks.own_task(some.to_frame()), {"base": None, "laser": edit}, progress=False)
    tables = {
        "spectrum": spectrum_table(edit),
        "directions_gradients": attributed.summary("relation"),
        "transfer": pd.DataFrame(rows),
        "robustness": li.robustness(judged),
        "relations": pd.DataFrame(
            {"relation": ["a", "b"], "n_test": [9, 30], "as_trained": [0.1, 0.4], "chosen": [0.3, 0.2]}
        ),
    }
    for name, table in tables.items():
        write_table(table, folder / "tables" / f"{name}.parquet", None, {"model": "organism"})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("style", list(plots.WIDTHS))
@pytest.mark.parametrize("columns", [1, 2])
def test_a_run_is_drawn_in_the_style_and_width_asked_for(run, tmp_path, style, columns, capsys):
    assert main(["figures", str(run), "--style", style, "--columns", str(columns), "--out", str(tmp_path)]) == 0
    drawn = {path.stem for path in tmp_path.glob("*.pdf")}
    assert drawn == {"spectrum", "composition", "attribution_map", "transfer", "robustness", "relations"}
    for name in drawn:
        data = (tmp_path / f"{name}.pdf").read_bytes()
        width = float(data.split(b"/MediaBox [ 0 0 ")[1].split()[0]) / 72
        assert width == pytest.approx(plots.WIDTHS[style][columns - 1], abs=0.02)
        assert b"/FontFile2" in data or b"/FontFile3" in data
        assert b"/Type3" not in data
        told = (tmp_path / f"{name}.txt").read_text()
        assert "laser-interp figures" in told
        assert "n = " in told or name == "spectrum"
        assert "interval" in told or name in ("spectrum", "composition")
    table = read_table(run / "tables" / "spectrum.parquet")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "spectrum.csv"), table, check_exact=False)


def test_every_figure_has_a_caption():
    assert all(figure.caption.endswith(".") for figure in plots.FIGURES.values())


def test_styles_are_the_venues_and_change_nothing_outside():
    before = dict(mpl.rcParams)
    with plots.paper_style("nature"):
        assert mpl.rcParams["font.family"] == ["sans-serif"]
        assert mpl.rcParams["pdf.fonttype"] == 42
        findfont(mpl.rcParams["font.sans-serif"][0])
    with plots.paper_style("neurips", 2):
        assert mpl.rcParams["font.family"] == ["serif"]
        assert mpl.rcParams["figure.figsize"][0] == 5.5
    assert dict(mpl.rcParams) == before
    with pytest.raises(ValueError, match="expected one of paper, neurips"):
        plots.style_of("science")
    with pytest.raises(ValueError, match="expected 1 or 2"):
        plots.style_of("icml", 3)


def test_a_figure_in_a_style_takes_from_it_what_it_is_not_told():
    table = spectrum_table(li.laser(li.load_model("organism"), "3.in", rank=3))
    with plots.paper_style("neurips", 2):
        assert plots.spectrum(table).get_figwidth() == 5.5
        assert plots.spectrum(table, columns=1).get_figwidth() == plots.WIDTHS["neurips"][0]
        assert plots.spectrum(table, style="acl").get_figwidth() == plots.WIDTHS["acl"][1]
    assert plots.spectrum(table, style="acl").get_figwidth() == plots.WIDTHS["acl"][0]


def test_recall_without_counts_says_what_is_missing():
    with pytest.raises(ValueError, match="give li.trajectory counts"):
        plots.first_recall({"trajectory_recall": pd.DataFrame({"base": [1.0], "laser": [2.0]})})


def test_a_label_of_all_panels_stays_in_the_callers_axes():
    import matplotlib.pyplot as plt

    slopes = pd.DataFrame(
        {"of": ["whole", "top1"], "unit": ["nats", "share"], "slope": 0.1, "lo": 0.0, "hi": 0.2, "n_facts": 9}
    )
    figure, axes = plt.subplots(1, 3)
    plots.frequency_slopes(slopes, ax=axes[:2])
    assert [ax.get_xlabel() for ax in axes] == ["slope per tenfold frequency, within relations"] * 2 + [""]
    assert not figure.get_supxlabel()
    plt.close(figure)


def test_the_spectrum_says_what_the_edit_keeps():
    model = li.load_model("organism")
    table = spectrum_table(li.laser(model, "3.in", rank=3).discarded())
    assert table["rank_kept"].isna().all()  # it keeps others than the first
    (ax,) = li.plots.spectrum(table).axes
    assert len(ax.lines) == 2  # the values and the edge of noise
    table = spectrum_table(li.laser(model, "3.in", rank=3) + li.laser(model, "2.out", rank=5))
    assert table.groupby("site")["rank_kept"].first().to_dict() == {"3.in": 3, "2.out": 5}
    assert (table.groupby("site")["singular_value"].diff().dropna() <= 0).all()


@pytest.mark.parametrize("palette", ["colorblind", ["#aa3300", "#0033aa"], "PuOr"])
def test_heat_maps_take_palettes_in_every_form(palette):
    rows = [{"edit": e, "task": t, "change": 0.1 * (e == t), "change_lo": -0.1, "change_hi": 0.2, "n": 9}
            for e in "ab" for t in "ab"]  # fmt: skip
    assert plots.transfer(pd.DataFrame(rows), palette=palette) is not None
    table = pd.DataFrame({"site": "0.in", "direction": range(8), "gradient": 0.1, "n": 5, "group": "all"})
    assert plots.attribution_map(table, palette=palette) is not None
