"""The documentation's site: `make docs`, which fails on any warning."""

import importlib.metadata
import shutil
from pathlib import Path

# Sphinx reads what is below this folder only; what belongs to the project's top comes as a copy.
HERE = Path(__file__).parent
(HERE / "notebooks").mkdir(exist_ok=True)
for path in (HERE.parent / "notebooks").glob("*.ipynb"):
    shutil.copy2(path, HERE / "notebooks")
for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
    shutil.copy2(HERE.parent / name, HERE / name.lower())

project = "laser-interp"
author = "The laser-interp developers"
release = importlib.metadata.version("laser-interp")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build", "figures"]

html_theme = "furo"
html_title = "laser-interp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"source_edit_link": ""}
pygments_dark_style = "monokai"

nb_execution_mode = "off"  # committed with their outputs; the tests execute them
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

default_role = "code"  # docstrings write `names` as Markdown does
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
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
