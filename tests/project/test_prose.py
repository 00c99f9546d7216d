"""Plain words: sentences that can be read in one breath, without the phrases that stop readers.

A linter for clichés and repetitions runs in `make check`; this looks at length, and at a short list of our own.
"""

import re
from pathlib import Path

import pytest

from laser_interp.cli.app import COMMANDS
from laser_interp.plots.names import EDITS

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
PAGES = [page for page in PAGES if page not in ("docs/changelog.md", "docs/contributing.md")]
LONGEST = 40  # words
STOPS = (
    "is is",
    "found out by",
    "as many kept",
    "in order to",
    "utilise",
    "leverage",
    "it is to be noted",
    "e.g.",
    "i.e.",
)


def sentences(text):
    """Sentences of Markdown without its code, tables, headings and addresses of links."""
    text = re.sub(r"\A---\n.*?^---\n", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(`{3,}|:{3,})[^\n]*\n.*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", text):
        items = []
        for line in paragraph.splitlines():
            if re.match(r"\s*(\||#|!\[)", line):
                continue
            if re.match(r"\s*([-*]|\d+\.) ", line) or not items:
                items.append(re.sub(r"^\s*([-*]|\d+\.) ", "", line))
            else:
                items[-1] += " " + line.strip()
        for item in items:
            yield from re.split(r"(?<=[.!?:;])\s+(?=[A-Z`\[(\"*])", re.sub(r"\]\([^)]*\)", "]", item))


def test_sentences_are_found():
    text = (
        "# A title\n\nOne. Two `x`: Three [link](a b c).\n\n| a |\n\n- Four\n  goes on.\n- Five\n\n```sh\ncode\n```\n"
    )
    assert list(sentences(text)) == ["One.", "Two `x`:", "Three [link].", "Four goes on.", "Five"]


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_is_too_long(page):
    found = list(sentences((ROOT / page).read_text()))
    assert found
    assert [s for s in found if len(s.split()) > LONGEST] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_phrase_stops_the_reader(page):
    text = " ".join((ROOT / page).read_text().lower().split())
    assert [phrase for phrase in STOPS if f" {phrase}" in text] == []


def test_commands_and_edits_are_told_in_plain_words():
    for told in COMMANDS.values():
        line = told["help"].partition("\n")[0]
        assert line[0].isupper()
        assert line.endswith(".")
        assert len(line.split()) < 20
    assert not [name for name in EDITS.values() if any(stop in name for stop in STOPS)]
