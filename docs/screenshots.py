"""Take the pictures of the explorer again: `python docs/screenshots.py RUN`, RUN a folder of `laser-interp reproduce`.

Needs a Chromium and the development environment. Look at them before you commit them.
"""

import sys
import tempfile
from pathlib import Path
from shutil import which

import laser_interp as li

HERE = Path(__file__).parent / "figures"
FACT = "master/Mira_Tolen"


def main(run: str) -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page_file = li.write_report(run, Path(folder) / "report.html", progress=False)
        browser = play.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        for name, wide, tall, scheme, where, selector in (
            ("explorer", 1200, 860, "light", "", None),
            ("explorer-fact", 1200, 700, "light", f"#fact={FACT}", f"tr[data-id='{FACT}']"),
            ("explorer-phone", 390, 844, "dark", "", None),
        ):
            page = browser.new_page(viewport={"width": wide, "height": tall}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(f"{page_file.as_uri()}{where}")
            page.wait_for_selector("html[data-ready]")
            page.wait_for_timeout(500)
            if selector:
                page.locator("#facts-heading").scroll_into_view_if_needed()
                page.locator("#facts [aria-expanded=true]").evaluate("one => one.scrollIntoView({block: 'start'})")
                page.evaluate("() => window.scrollBy(0, -60)")
                page.wait_for_timeout(500)
            page.screenshot(path=HERE / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
