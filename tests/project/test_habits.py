"""How strangers join: workflows that run what the Makefile has, one version, decisions with their reasons."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import laser_interp as li

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(path):
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_the_makefile_has(path):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {word for run in steps(path) for word in re.findall(r"\bmake ([a-z0-9-]+)", run)}
    assert made
    assert made <= targets


def test_every_supported_python_is_tested():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    tested = jobs["test"]["strategy"]["matrix"]["python"]
    declared = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert tested == declared
    assert PROJECT["requires-python"].startswith(f">={tested[0]}")


def test_there_is_one_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert PROJECT["version"].startswith(newest[1])


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("0*.md")), ids=lambda path: path.stem)
def test_a_decision_has_its_reasons(path):
    text = path.read_text()
    assert re.match(rf"# {int(path.stem[:4])}\. ", text)
    for part in ("Decided", "Instead of", "Why", "What it costs"):
        assert f"**{part}.**" in text


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_can_be_read(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    assert all(part["attributes"]["label"] for part in form["body"])


def test_the_overview_for_assistants_names_what_there_is():
    """Every name and command in docs/llms.txt exists, and every command is there."""
    from laser_interp.cli.app import COMMANDS

    text = (ROOT / "docs" / "llms.txt").read_text()
    names = set(re.findall(r"\bli\.(\w+)", text))
    assert len(names) > 25
    assert not [name for name in names if not hasattr(li, name)]
    listed = text.partition("Commands: ")[2].partition(".")[0].replace("\n", " ")
    assert set(listed.split(", ")) == set(COMMANDS)
    assert not [page for page in re.findall(r"\b(\w+\.md)\b", text) if not (ROOT / "docs" / page).is_file()]
