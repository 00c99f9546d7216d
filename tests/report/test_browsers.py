"""The page of two runs in Chromium and in Firefox: it opens, switches, is used by keyboard, and keeps axe's rules."""

import contextlib

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from browser_programs import CHROMIUM, FIREFOX

import laser_interp as li
from laser_interp.cli.app import main

# What breaks a rule, with its place.
BROKEN = """axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations.map(
    (one) => one.id + ": " + one.nodes.map((node) => node.target.join(" ")).join("; ")))"""


class InChromium:
    def __init__(self, size):
        from playwright.sync_api import sync_playwright

        self._stack = contextlib.ExitStack()
        p = self._stack.enter_context(sync_playwright())
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        self._stack.callback(browser.close)
        self._page = browser.new_page(viewport={"width": size[0], "height": size[1]})

    def open(self, address):
        self._page.goto("about:blank")
        self._page.goto(address)
        self._page.wait_for_selector("html[data-ready]", state="attached")

    def run(self, script):
        return self._page.evaluate(f"() => {{ {script} }}")

    def broken_rules(self):
        self._page.evaluate(AXE_SCRIPT)
        return self._page.evaluate(f"() => {BROKEN}")

    def press(self, selector, key):
        self._page.press(selector, key)

    def close(self):
        self._stack.close()


class InFirefox:
    def __init__(self, size):
        from marionette_driver.marionette import Marionette

        self._client = Marionette(bin=FIREFOX, headless=True, gecko_log="/dev/null")
        self._client.start_session()
        self._client.set_window_rect(width=size[0], height=size[1])

    def open(self, address):
        from marionette_driver.wait import Wait

        self._client.navigate("about:blank")
        self._client.navigate(address)
        Wait(self._client, timeout=30).until(
            lambda c: c.execute_script("return document.documentElement.dataset.ready")
        )

    def run(self, script):
        return self._client.execute_script(script, sandbox=None)

    def broken_rules(self):
        script = f"const answer = arguments[arguments.length - 1]; {AXE_SCRIPT}; {BROKEN}.then(answer)"
        return self._client.execute_async_script(script, sandbox=None)

    def press(self, selector, key):
        from marionette_driver import By
        from marionette_driver.keys import Keys

        self._client.find_element(By.CSS_SELECTOR, selector).send_keys(getattr(Keys, key.upper()))

    def close(self):
        self._client.quit()


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request):
    kind, program = {"chromium": (InChromium, CHROMIUM), "firefox": (InFirefox, FIREFOX)}[request.param]
    if request.param == "firefox":
        pytest.importorskip("marionette_driver")  # not on Python 3.13, where a module that it needs is gone
    if program is None:
        pytest.skip(f"no {request.param} is installed: the page is tried in a browser (apt-get install it)")
    one = kind((1300, 900))
    yield one
    one.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    model, facts = li.load_model("organism"), li.load_facts("organism")
    some = facts.keep([fact for split in ("validation", "test") for fact in facts.split(split).facts[:40]])
    for name, options in {
        "first": {"layers": [3], "rhos": [0.4, 0.05]},
        "second": {"layers": [0], "rhos": [0.4]},
    }.items():
        li.search(
            model, some, matrices=["in"], alphas=[0.5], controls=["discarded"], test="all", out=folder / name,
            progress=False, **options,
        )  # fmt: skip
    assert main(["report", str(folder / "first"), str(folder / "second"), "-o", str(folder / "r.html"), "--quiet"]) == 0
    return folder / "r.html"


@pytest.mark.slow
def test_two_runs_beside_each_other(browser, page):
    browser.open(page.as_uri())
    compared = browser.run("return document.getElementById('two-tables').innerText")
    for told in ("3.in laser", "0.in laser", "organism (first)", "organism (second)", "test, as trained"):
        assert told in compared
    chosen = "return document.getElementById('cell').value"
    assert browser.run(chosen).startswith("3.in")
    browser.open(page.as_uri() + "#run=1")
    assert browser.run(chosen).startswith("0.in")
    assert browser.run("return document.getElementById('run').value") == "1"


@pytest.mark.slow
def test_a_fact_opens_by_keyboard(browser, page):
    browser.open(page.as_uri())
    browser.press("#facts tbody button", "Enter")
    assert browser.run("return document.activeElement.getAttribute('aria-expanded')") == "true"
    assert "discarded part alone" in browser.run("return document.querySelector('#facts tr.detail').innerText")


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_keeps_the_rules_of_accessibility(browser, page, theme):
    browser.open(page.as_uri())
    browser.press("#facts tbody button", "Enter")
    if browser.run("return document.documentElement.dataset.theme") != theme:
        browser.run("document.getElementById('theme').click()")
    assert browser.broken_rules() == []
