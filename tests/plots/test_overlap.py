"""Every figure, of every object that it takes, at 4, 30 and 80 layers: no text on text, none outside the figure."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

import laser_interp as li
from laser_interp import plots
from laser_interp.choices import MATRICES, RHOS
from laser_interp.edits.controls import CONTROLS
from laser_interp.selection.search_result import Search

LAYERS = (4, 30, 80)
pytestmark = pytest.mark.filterwarnings("error:constrained_layout:UserWarning")


def cells(n_layers, matrices=MATRICES):
    rng = np.random.default_rng(0)
    means = {"score": 0.2, "top1": 0.2, "p_generic": 0.3, "loss_change_se": 0.0}
    nowhere = {"cell": "", "site": "", "layer": np.nan, "matrix": "", "rho": np.nan}
    rows = [{"split": "validation", "kind": "base", "loss": 5.0} | nowhere | means]
    for layer in range(n_layers):
        for matrix in matrices:
            for rho in RHOS:
                change = float(rng.normal(0, 0.3) / (layer + 1) - 0.05)
                rows.append({"cell": f"{layer}.{matrix} laser rho={rho:g}", "split": "validation", "kind": "laser",
                             "site": f"{layer}.{matrix}", "layer": layer, "matrix": matrix, "rho": rho,
                             "loss": 5.0 + change, "score": 0.2 - change / 10, "top1": 0.2, "p_generic": 0.3,
                             "loss_change_se": 0.02})  # fmt: skip
    frame = pd.DataFrame(rows)
    return pd.concat([frame, frame.assign(split="test")], ignore_index=True)


def directions(n_layers, matrices=MATRICES):
    rng = np.random.default_rng(0)
    sites = [f"{layer}.{matrix}" for layer in range(n_layers) for matrix in matrices]
    frame = pd.DataFrame({"site": np.repeat(sites, 32), "direction": np.tile(np.arange(32), len(sites)), "n": 100})
    return frame.assign(gradient=rng.normal(0, 0.1, len(frame)))


def controls():
    names = ["base", "laser", *CONTROLS, "generic_masked"]
    table = pd.DataFrame({"control": names, "accuracy": np.linspace(0.1, 0.4, len(names))})
    table = table.assign(accuracy_lo=table["accuracy"] - 0.05, accuracy_hi=table["accuracy"] + 0.05, n_draws=3, n=500)
    table = table.assign(loss=4.0, edits_weight=~table["control"].isin(["base", "generic_masked"]))
    table = table.assign(accuracy_lowest=table["accuracy"] - 0.02, accuracy_highest=table["accuracy"] + 0.02)
    return table.assign(draws=table[["accuracy_lowest", "accuracy_highest"]].to_numpy().tolist())


def relations(n):
    return pd.DataFrame(
        {"relation": [f"relation number {i}" for i in range(n)], "as_trained": np.linspace(0, 0.5, n), "n_test": 70}
    ).assign(chosen=lambda t: t["as_trained"] + 0.1)


def transfers(n):
    names = [f"relation number {i}" for i in range(n)]
    frame = pd.DataFrame([{"edit": a, "task": b, "change": 0.01 * i} for i, a in enumerate(names) for b in names])
    return frame.assign(change_lo=frame["change"] - 0.02, change_hi=frame["change"] + 0.02)


def steps(n):
    sites = [f"{10 + i}.out" for i in range(n)]
    edits = ["", *(f"{'+'.join(sites[: i + 1])} laser rank={'+'.join(['115'] * (i + 1))}" for i in range(n))]
    table = pd.DataFrame({"n_edits": range(n + 1), "edit": edits})
    for split in ("validation", "test"):
        table[f"{split}_score"], table[f"{split}_loss"] = np.linspace(0.2, 0.4, n + 1), np.linspace(5, 4, n + 1)
    return table, pd.DataFrame({"edit": "base", "split": ["validation", "test"], "n": 400})


def spectra(n):
    frames = [
        pd.DataFrame({"site": f"{i}.out", "direction": range(64), "singular_value": np.geomspace(9, 0.1, 64)})
        for i in range(n)
    ]
    return pd.concat(frames).assign(noise_edge=1.0, rank_kept=6)


def boxes(figure):
    """Every text that is drawn, with its box in pixels, as it is printed."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    hidden = {id(text) for text in not_drawn(figure)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            box = text.get_window_extent(renderer)
            if box.width > 0:
                yield text, box


def not_drawn(figure):
    """Texts of panels that are hidden, and the labels of ticks beyond an axis' limits."""
    for ax in figure.findobj(Axes):
        if not ax.get_visible():
            yield from ax.findobj(Text)
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.majorTicks + axis.minorTicks:
                if not tick.get_visible() or not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    yield from (tick.label1, tick.label2)


def check(figure):
    found = list(boxes(figure))
    assert len(found) > 3
    width, height = figure.canvas.get_width_height()
    for drawn, box in found:
        text = drawn.get_text()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text!r} leaves the figure: {box}, of {width} x {height}"
    for i, (text, box) in enumerate(found):
        for other, second in found[i + 1 :]:
            over = min(box.x1, second.x1) - max(box.x0, second.x0), min(box.y1, second.y1) - max(box.y0, second.y0)
            assert min(over) < 1.5 or _slant_apart(text, other), f"{text.get_text()!r} lies on {other.get_text()!r}"


def _slant_apart(one, other):
    """Slanted labels have boxes that overlap, and lie beside each other if their ends are far enough apart."""
    angle = one.get_rotation()
    if angle % 90 == 0 or other.get_rotation() != angle:
        return False
    (x, _), (x2, _) = (text.get_transform().transform(text.get_unitless_position()) for text in (one, other))
    return abs(x - x2) * np.sin(np.radians(angle)) > 0.8 * one.get_fontsize() * one.get_figure().dpi / 72


@pytest.mark.slow
@pytest.mark.parametrize("n_layers", LAYERS)
@pytest.mark.parametrize("matrices", [MATRICES, ("out",)])
def test_maps_of_layers(n_layers, matrices):
    search = Search(cells(n_layers, matrices))
    for columns in (1, 2):
        for metric in ("loss", "top1"):
            check(search.plot(columns=columns, metric=metric))
        check(plots.attribution_map(directions(n_layers, matrices), columns=columns))
        check(plots.loss_by_layer(cells(n_layers, matrices), columns=columns, title="A title"))


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 2])
def test_the_others(columns):
    for n in (1, 4, 12, 30):
        check(plots.relations(relations(n), columns=columns))
    check(plots.controls(controls(), columns=columns))
    for n in (1, 3, 7):
        check(plots.spectrum(spectra(n), columns=columns))
        check(plots.composition(*steps(n), columns=columns))
    for n in (2, 4, 7):
        check(plots.transfer(transfers(n), columns=columns))


@pytest.mark.slow
def test_what_results_draw(organism, facts):
    """Each kind of result by its own `plot`, and in the caller's axes, colours and size."""
    import matplotlib.pyplot as plt

    some = facts.keep(facts.facts[::4])
    edit = li.laser(organism, "3.in", rho=0.05)
    scores = li.score(
        organism,
        some,
        {"base": None, "laser": edit, "placebo": li.controls.random_kept(organism, edit, seed=0)},
        progress=False,
    )
    counts = li.count(some, "organism", progress=False)
    association = li.associate(scores, counts, n_permutations=99)
    study = li.study(
        organism, some, counts, matrices="in", layers=[2, 3], rhos=[0.2, 0.05], n_draws=2, n_permutations=99,
        shares=(0.5, 1.0), compose=False, test="all", method="grid", progress=False,
    )  # fmt: skip
    for result in (
        association,
        li.compare(scores, counts, placebos=["placebo"], n_permutations=99),
        li.attribute(organism, some.split("validation"), where="3.in", progress=False),
        li.spectrum(organism, "3.in"),
        study,
        study.search,
    ):
        check(result.plot())
        assert repr(result).count("\n") < 12, type(result)
    for name in ("controls", "robustness", "discarded_answers", "loss_by_layer", "spectrum", "rare_facts"):
        check(study.plot(name))
    figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
    try:
        returned = plots.controls(study, ax=ax, palette="Set2", title="Mine")
        assert returned is ax
        assert ax.get_title() == "Mine"
        check(figure)
        assert plots.controls(study, figsize=(6, 5)).get_size_inches().tolist() == [6, 5]
        with pytest.raises(ValueError, match="has 4 panels"):
            association.plot(ax=ax)
    finally:
        plt.close(figure)
    with pytest.raises(ValueError, match="draws the table 'transfer', which this Study does not hold"):
        study.plot("transfer")
    with pytest.raises(ValueError, match="no figure 'pie'"):
        study.plot("pie")
    with pytest.raises(TypeError, match="cannot draw a int"):
        plots.controls(3)
    for name in ("controls", "loss_by_layer", "attribution_map"):
        assert study.plot(name, interactive=True).data
    with pytest.raises(ValueError, match="robustness has no interactive form"):
        study.plot("robustness", interactive=True)
    with pytest.raises(ValueError, match="metric is 'speed'"):
        study.search.plot(metric="speed")
