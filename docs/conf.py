"""The documentation's site: `make docs`, which fails on any warning."""

import gzip
import importlib.metadata
import inspect
import json
import os
import shutil
from pathlib import Path

import laser_interp
from laser_interp.report.page import assembled

# Sphinx reads what is below this folder only; what belongs to the project's top comes as a copy.
HERE = Path(__file__).parent
(HERE / "notebooks").mkdir(exist_ok=True)
for path in (HERE.parent / "notebooks").glob("*.ipynb"):
    shutil.copy2(path, HERE / "notebooks")
for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
    shutil.copy2(HERE.parent / name, HERE / name.lower())

ROOMS = {
    "models": "models: loading, and all that knows TransformerLens and transformers",
    "facts": "facts: fact files, tasks and published sets",
    "edits": "edits: spectra, LASER, its discarded part, controls, exports",
    "scoring": "scoring: facts times edits to a table",
    "selection": "selection: search and composition",
    "frequency": "frequency: counting names in training text",
    "statistics": "statistics: tables in, findings out",
    "discarded": "discarded: what the removed components say",
    "studies": "studies: all questions, one after the other",
    "verification": "verification: is it right on your model and device?",
    "plots": "plots: tables to figures",
    "report": "report: the page and the notebook panel",
    "organism": "organism: the small trained model",
    "storage": "storage: tables and runs on disk",
    "parallel": "parallel: processes and clusters",
}


def _write_reference() -> None:
    """One page a room, made from its modules, so that none is forgotten."""
    package, out = Path(laser_interp.__file__).parent, HERE / "reference"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    assert set(ROOMS) | {"cli"} == {path.parent.name for path in package.glob("*/__init__.py")}
    for room, title in ROOMS.items():
        lines = [f"# {title}", ""]
        for path in sorted((package / room).glob("*.py")):
            if path.stem != "__init__":
                name = f"laser_interp.{room}.{path.stem}"
                lines += [f"## `{name}`", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
        (out / f"{room}.md").write_text("\n".join(lines), encoding="utf-8")
    contents = ["# Reference", "", "Every public name of `import laser_interp as li`, and what it is.", ""]
    contents += [
        "Each function has an example, which the tests run. In the examples `model`, `facts`, `test`, `laser`, "
        "`scores` and `counts` are those of [the tour](../start.md).",
        "",
    ]
    contents += _public_names()
    contents += ["```{toctree}", ":hidden:", "", *ROOMS, "```", ""]
    (out / "index.md").write_text("\n".join(contents), encoding="utf-8")


def _public_names() -> list[str]:
    """One row a name, where it is explained, and the first sentence of what it says; a table for each group."""
    lines: list[str] = []
    for module in (laser_interp, *(getattr(laser_interp, group) for group in laser_interp._GROUPS)):
        li = module.__name__.replace("laser_interp", "li")
        if module is not laser_interp:
            lines += [f"## `{li}`", "", module.__doc__, ""]
        lines += ["| name | what it is |", "|---|---|"]
        public = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
        rows = []
        for name, value in public.items():
            if not inspect.ismodule(value):
                room = value.__module__.split(".")[1]
                says = inspect.getdoc(value).partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
                page = f"[`{li}.{name}`]({room}.md)" if room in ROOMS else f"`{li}.{name}`"
                rows.append((list(ROOMS).index(room) if room in ROOMS else len(ROOMS), name, f"| {page} | {says} |"))
        lines += [*(row for *_, row in sorted(rows)), ""]
    return lines


def _write_pages() -> None:
    """The pages of the committed runs, each a file that needs no network."""
    pages = HERE / "_extra" / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    for path in sorted((HERE.parent / "figures").glob("*/page.json.gz")):
        page = assembled(json.loads(gzip.decompress(path.read_bytes())))
        (pages / f"{path.parent.name}.html").write_text(page, encoding="utf-8")


_write_reference()
_write_pages()

project = "laser-interp"
author = "The laser-interp developers"
release = importlib.metadata.version("laser-interp")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build", "figures"]
suppress_warnings = ["ref.python"]  # two classes may have attributes of one name; docstrings have no other links

html_theme = "furo"
html_title = "laser-interp"
html_static_path = ["_static"]
html_extra_path = ["llms.txt", "_extra"]
html_css_files = ["site.css"]
html_theme_options = {"source_edit_link": ""}
pygments_dark_style = "monokai"

# Progress bars become widgets, which a page would load from elsewhere
os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
nb_execution_mode = "off"  # committed with their outputs; the tests execute them
nb_execution_timeout = 600  # seconds a cell of the gallery; a fresh environment compiles every import first
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

default_role = "code"  # docstrings write `names` as Markdown does
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
napoleon_use_ivar = True
napoleon_use_rtype = False
copybutton_exclude = ".linenos, .gp, .go"


def _links(app: object, docname: str, source: list[str]) -> None:
    """Links are written as they work in the repository; here the copies are meant."""
    if docname.startswith("notebooks/"):
        source[0] = source[0].replace("](../docs/", "](../")
    else:
        source[0] = source[0].replace("](../notebooks/", "](notebooks/")


def setup(app) -> None:  # type: ignore[no-untyped-def]
    app.connect("source-read", _links)
