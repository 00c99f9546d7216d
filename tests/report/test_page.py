"""The page to explore a run, in a real browser where there is one, and what is in it."""

import base64
import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from browser_programs import CHROMIUM

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.facts.fact_set import Fact, FactSet
from laser_interp.report.page import write_report
from laser_interp.storage.atomic import write_json
from laser_interp.storage.provenance import settings_sha256
from laser_interp.storage.tables import read_table, write_table

NASTY = '<script>window.harmed = 1</script><img src=x onerror="window.harmed = 1">'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sweep with everything that the page can show, some of whose texts are scripts."""
    folder = tmp_path_factory.mktemp("run")
    facts = li.load_facts("organism")
    some = [fact for split in ("validation", "test") for fact in facts.split(split).facts[:40]]
    some[-1] = replace(some[-1], fact_id=f"nasty {NASTY}", subject=NASTY, relation=NASTY)
    li.search(
        li.load_model("organism"), facts.keep(some), matrices=["in", "out"], layers=[0, 3], rhos=[0.4, 0.05],
        alphas=[0.5], controls=["discarded"], test="all", out=folder, progress=False,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def page(run):
    assert main(["report", str(run), "-o", str(run / "report.html"), "--quiet"]) == 0
    return run / "report.html"


def unpacked(page):
    text = page.read_text(encoding="utf-8")
    packed = re.search(r'<script id="data-source" type="text/plain">([^<]*)</script>', text)
    assert packed is not None
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))["runs"][0]


def bits(text, n):
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), bitorder="little")[:n].astype(bool)


@pytest.mark.slow
def test_it_holds_what_the_run_found(run, page):
    data = unpacked(page)
    scores = pd.concat([read_table(path, "search_part") for path in sorted((run / "parts").glob("*/*.parquet"))])
    items = [(i, p) for i, prompts in zip(data["facts"]["id"], data["facts"]["prompts"], strict=True)
             for p in range(len(prompts))]  # fmt: skip
    base = bits(data["right"][""], len(items))
    assert data["about"]["answers_of_all"]
    assert len(data["cells"]) == 8
    for cell in data["cells"]:
        assert cell["discarded"] is not None
        assert list(cell["injected"].values()) == [0.5]
        for name in (cell["name"], cell["discarded"], ""):
            rows = scores[scores["cell"] == name].set_index(["fact_id", "prompt_id"]).loc[items]
            if name in data["right"]:
                right = bits(data["right"][name], len(items)) ^ (base if name else False)
                assert (right == (rows["rank"] == 1).to_numpy()).all()
            told = {k: base64.b64decode(v) for k, v in data["details"][name].items()}
            logprob = -32 * np.frombuffer(told["logprob"], "<u2").astype(float) / 65534
            assert np.abs(logprob - rows["logprob"].clip(lower=-32)).max() < 3e-4
            answers = [data["answers"][i] for i in np.frombuffer(told["answer"], "<u4")]
            assert answers == rows["top_answer"].tolist()
            categories = [data["categories"][i] for i in np.frombuffer(told["category"], np.uint8)]
            assert categories == rows["category"].tolist()
    found = li.types.Search(read_table(run / "tables" / "cells.parquet", "cells"))
    assert data["selected"] == str(found.select().cell)


@pytest.mark.slow
def test_its_frequency_views_are_the_reports(run, page):
    data = unpacked(page)
    scores = pd.concat([read_table(path) for path in sorted((run / "parts").glob("*/*.parquet"))])
    cell = next(c["name"] for c in data["cells"] if c["name"] != data["selected"])
    test = scores[scores["split"] == "test"].assign(
        edit=lambda f: f["cell"], top1=lambda f: f["rank"] == 1, top10=False
    )
    facts = li.load_facts(run / "facts.jsonl").to_frame().set_index("fact_id")
    test["frequency"] = test["fact_id"].map(facts["frequency"]).astype(float)
    test["relation"] = test["fact_id"].map(facts["relation"])
    expected = li.associate(test, baseline="", edit=cell).bins
    shown = data["frequency"]["cells"][cell]
    for column in ("edit_top1", "p_fixed_given_wrong", "p_broken_given_right"):
        value = [np.nan if v[0] is None else v[0] for v in shown[column]]
        assert value == pytest.approx(expected[column].tolist(), abs=1e-4, nan_ok=True)


@pytest.mark.slow
def test_learned_gains_are_what_the_page_shows(tmp_path):
    facts = li.load_facts("organism")
    found = li.search(
        li.load_model("organism"), facts.keep(facts.facts[:160]), method="learned", matrices="mlp", rhos=[0.05, 0.2],
        out=tmp_path / "run", progress=False,
    )  # fmt: skip
    data = unpacked(write_report(tmp_path / "run", tmp_path / "page.html", progress=False))
    assert data["selected"] == str(found.select().cell)
    assert data["selected"] in {cell["name"] for cell in data["cells"]}
    assert data["details"].keys() >= {"", data["selected"]}


def test_a_search_that_looked_at_no_test_fact_has_a_page(tmp_path):
    facts = li.load_facts("organism")
    li.search(
        li.load_model("organism"), facts.keep(facts.facts[:40]), matrices="in", layers=[3], rhos=[0.05], test="none",
        out=tmp_path / "run", progress=False,
    )  # fmt: skip
    assert "frequency" not in unpacked(write_report(tmp_path / "run", tmp_path / "page.html", progress=False))


@pytest.mark.slow
def test_no_text_of_a_fact_is_markup(page):
    text = page.read_text(encoding="utf-8")
    assert "window.harmed" not in text
    assert not re.findall(r'(?:src|href)\s*=\s*"(?!data:|#)', text.split('<script id="plotly-source"')[0])


def a_large_run(folder, n_facts):
    """The folder of a finished search of many facts, without having run it."""
    rng = np.random.default_rng(0)
    facts = FactSet(
        tuple(
            Fact(
                f"f{i}",
                f"Subject number {i}",
                f"relation {i % 30}",
                f"object {rng.integers(5000)}",
                f"The subject number {i} of the relation {i % 30} was",
                split="test" if i % 5 else "validation",
                frequency=float(rng.integers(2000)),
            )
            for i in range(n_facts)
        )
    )
    facts.save(folder / "facts.jsonl")
    items = facts.prompts_frame()
    of_run = {"weights_sha256": "w", "facts_sha256": facts.sha256, "model": "large", "path": "network", "at": None}
    write_json(of_run, folder / "run.json")
    about = of_run | {"settings_sha256": settings_sha256(of_run)}
    rhos = (0.4, 0.2, 0.1, 0.05)
    cells = [EditSpec(li.Site(n, "in"), "laser", rho=r, ranks=int(100 * r)) for n in range(4) for r in rhos]
    means = []
    for i, cell in enumerate((None, *cells)):
        same = {
            "cell": str(cell or ""),
            "site": str(cell.site) if cell else "",
            "kind": "laser" if cell else "base",
            "rho": cell.rho if cell else np.nan,
            "rank_kept": 1.0,
            "alpha": np.nan,
        }
        n = len(items)
        frame = items[["fact_id", "prompt_id", "subject", "split"]].assign(
            **same,
            top_answer=[f"answer{i}" for i in rng.integers(3000, size=n)],
            top_prob=rng.random(n),
            category="other",
            logprob=-8 * rng.random(n),
            rank=rng.integers(1, 4, n),
            p_generic=0.1,
            generic_masked_top1=False,
            candidate_rank=1.0,
        )
        frame = frame.assign(
            prediction=frame["top_answer"], correct=frame["rank"] == 1, score=1.0 * (frame["rank"] == 1)
        )
        part = "base" if cell is None else f"layer-{cell.site.layer:03d}"
        write_table(frame, folder / "parts" / part / f"{i:04d}.parquet", "search_part", about)
        zeros = ("top5", "top10", "p_generic", "generic_masked_top1", "candidate_top1")
        for split, rows in frame.groupby("split"):
            means.append(
                same
                | {"split": split, "n": len(rows), "n_not_finite": 0, "loss_change_se": 0.01}
                | {"layer": float(cell.site.layer) if cell else np.nan, "matrix": "in" if cell else ""}
                | {"loss": -rows["logprob"].mean(), "accuracy": rows["correct"].mean(), "score": rows["score"].mean()}
                | {"top1": rows["correct"].mean(), **dict.fromkeys(zeros, 0.0)}
            )
    write_table(pd.DataFrame(means), folder / "tables" / "cells.parquet", "cells", of_run)
    return facts


@pytest.mark.slow
def test_twenty_thousand_facts_fit_and_more_are_sampled(tmp_path):
    a_large_run(tmp_path, 20_500)
    page = write_report(tmp_path, tmp_path / "r.html", progress=False)
    assert page.stat().st_size < 10_000_000
    data = unpacked(page)
    assert len(data["facts"]["id"]) == 20_000
    assert data["about"]["facts_shown"] == 20_000
    assert data["about"]["n_facts"] == 20_500
    small = write_report(tmp_path, tmp_path / "s.html", max_bytes=3_000_000, progress=False)
    assert small.stat().st_size < 3_000_000
    assert set(unpacked(small)["details"]) >= {"", data["selected"]}
    with pytest.raises(ValueError, match="too few"):
        write_report(tmp_path, tmp_path / "t.html", max_bytes=1000, progress=False)


@pytest.mark.slow
def test_a_task_has_a_page_too(tmp_path):
    facts = li.load_facts("organism")
    some = facts.keep([f for s in ("validation", "test") for f in facts.split(s).facts[:20]])
    task = li.tasks.own_task(some.to_frame())
    li.study(
        li.load_model("organism"),
        task,
        out=tmp_path / "e",
        matrices="mlp",
        layers=[3],
        rhos=[0.05],
        n_draws=1,
        compose=False,
        attribute=False,
        progress=False,
    )
    data = unpacked(write_report(tmp_path / "e", tmp_path / "e.html", progress=False))
    rows = read_table(tmp_path / "e" / "tables" / "scores.parquet", "scores")
    chosen = next(c for c in data["cells"] if c["name"] == data["selected"])
    assert chosen["means"]["test"][1] == pytest.approx(rows.loc[rows["edit"] == "laser", "correct"].mean(), abs=1e-4)
    assert chosen["discarded"] in data["details"]


def test_folders_that_are_no_run_are_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 2
    assert "no finished run" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"model": "m"}')
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "cells.parquet").write_bytes(b"")
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 2
    assert "holds tables, but not the answers to each prompt" in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: the page's behaviour needs a browser (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        started = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser, page):
    """Opens the page at an address; afterwards nothing may have been complained of, asked for or harmed."""
    told, asked, pages = [], [], []

    def opened(hash_="", **options):
        one = browser.new_page(**options)
        pages.append(one)
        one.on("console", lambda message: told.append(message.text))
        one.on("pageerror", lambda error: told.append(str(error)))
        one.on("request", lambda request: asked.append(request.url))
        one.goto(page.as_uri() + hash_)
        one.wait_for_selector("html[data-ready]", state="attached")
        return one

    yield opened
    for one in pages:
        assert one.evaluate("window.harmed") is None
        one.close()
    assert told == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


AT = """(name) => { // where the middle of a cell is on the screen
    const map = document.getElementById("map"), box = map.getBoundingClientRect();
    for (const trace of map.data) for (let j = 0; j < trace.y.length; j++) for (let i = 0; i < trace.x.length; i++)
        if (trace.customdata[j][i] === name) {
            const [x, y] = ["x", "y"].map((k) => map._fullLayout[k + "axis" + trace[k + "axis"].slice(1)]);
            return [box.left + x._offset + x.d2p(trace.x[i]), box.top + y._offset + y.d2p(trace.y[j])];
        }
}"""


@pytest.mark.slow
def test_a_click_on_the_map_changes_everything_below(open_page, page):
    one = open_page()
    data = unpacked(page)
    before = one.inner_text("#numbers")
    other = next(c for c in data["cells"] if c["name"] != data["selected"] and c["means"]["test"][1] < 0.3)
    one.mouse.click(*one.evaluate(AT, other["name"]))
    one.wait_for_function("name => document.getElementById('cell').value === name", arg=other["name"])
    numbers = one.inner_text("#numbers")
    assert numbers != before
    assert f"{other['means']['test'][1]:.3f}" in numbers
    assert "held-out" in one.inner_text("#warning")
    assert "broken" in one.inner_text("#facts tbody")
    # the address holds the view, and opens it again
    again = open_page("#" + one.url.partition("#")[2])
    assert again.inner_text("#numbers") == numbers
    again.click("#back")
    assert again.input_value("#cell") == data["selected"]


@pytest.mark.slow
def test_search_filters_and_sorting(open_page, page):
    one = open_page()
    names = [b.lstrip("▸ ") for b in one.locator("#facts tbody button").all_inner_texts()]
    one.fill("#search", names[7])
    one.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of')")
    assert names[7] in one.inner_text("#facts tbody")
    one.click("#reset")
    one.select_option("#outcome", "fixed")
    assert set(one.locator("#facts tbody td.fixed").all_inner_texts()) == {"▲ fixed"}
    one.click("#reset")
    one.click("#facts th[data-key=n_both] button")
    shown = [int(t.replace(",", "")) for t in one.locator("#facts td[data-label=Frequency]").all_inner_texts()]
    assert shown == sorted(shown)
    assert one.get_attribute("#facts th[data-key=n_both]", "aria-sort") == "ascending"


@pytest.mark.slow
def test_a_fact_opens_by_keyboard_and_scripts_in_it_stay_text(open_page):
    one = open_page()
    one.fill("#search", "<script>")
    one.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of')")
    one.focus("#facts tbody button")
    one.keyboard.press("Enter")
    detail = one.locator("#facts tr.detail")
    assert NASTY in detail.inner_text()
    for told in ("as trained", "LASER", "discarded part alone", "log p(truth)"):
        assert told in detail.inner_text()
    assert one.locator("#curve-rho .main-svg").count() > 0
    assert one.locator("#curve-alpha .main-svg").count() > 0
    assert one.locator("#facts img, #facts script").count() == 0
    assert one.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"


@pytest.mark.slow
def test_it_is_readable_on_a_phone_and_in_the_dark(open_page):
    one = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    assert one.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert one.evaluate("document.documentElement.dataset.theme") == "dark"
    one.click("#theme")
    assert one.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
