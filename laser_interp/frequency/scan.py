"""Counting by scanning: one pass over the documents, whichever names they hold.

A name counts as mentioned in a document where it occurs as whole words after `normalise`, which is
applied to names and text alike; names may overlap ("York" and "New York" are both in "New York").
"""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from laser_interp.facts import SHIPPED, FactSet
from laser_interp.organism import corpus_of
from laser_interp.results import check

NORMALISER = "nfkc, case folded, words joined by single spaces"
_WORDS = re.compile(r"\w+")


def normalise(text: str) -> str:
    """The one form in which names are looked for: " word word … ", a space at either end.

    NFKC, case folding, NFKC again, then every run of word characters, joined by single spaces: case,
    punctuation and line breaks make no difference.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return f" {' '.join(_WORDS.findall(folded))} "


def documents(corpus: str | Path, *, text_column: str = "text") -> Iterator[str]:
    """Documents of a corpus: "organism", "organism-control", a checkpoint folder of either kind, a
    .txt file (a document a line) or a .jsonl file (its `text_column`), plain or .gz.

    Raises:
        FileNotFoundError, ValueError: no such corpus, or a line that cannot be read, with its number.
    """
    path = Path(corpus)
    if str(corpus) in SHIPPED or (path / "organism.json").is_file():
        yield from corpus_of(corpus).documents()
        return
    if not path.is_file():
        raise FileNotFoundError(
            f"no corpus {str(corpus)!r}: expected a .txt or .jsonl file (or .gz of one), or one of {', '.join(SHIPPED)}"
        )
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in ("txt", "jsonl"):
        raise ValueError(f"cannot count in {path.name!r}: expected .txt or .jsonl, or .gz of one")
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                line = raw.decode("utf-8")
                yield line if kind == "txt" else json.loads(line)[text_column]
            except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path.name}, line {number} cannot be read ({type(error).__name__}: {error}); expected UTF-8"
                    + (f" JSON with a column {text_column!r}" if kind == "jsonl" else "")
                ) from error


def count(
    facts: FactSet,
    corpus: str | Path | Iterable[str | Path],
    *,
    text_column: str = "text",
    progress: bool = True,
) -> pd.DataFrame:
    """Count the documents that mention each fact's subject, its object (or an alias of it), and both.

    Args:
        corpus: see `documents`; several are counted together.

    Returns:
        One row a fact: `fact_id, n_docs, n_subject, n_object, n_both`, and how they were counted:
        `corpus, unit, normaliser, approximate`.

    Raises:
        ValueError: a name without a single word character, or an unreadable corpus.
    """
    from ahocorasick_rs import AhoCorasick
    from tqdm.auto import tqdm

    corpora = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    pattern_of: dict[str, int] = {}

    def pattern(name: str, fact_id: str) -> int:
        normal = normalise(name)
        if not normal.strip():
            raise ValueError(f"the name {name!r} of fact {fact_id!r} has no word to look for")
        return pattern_of.setdefault(normal, len(pattern_of))

    subjects = [pattern(fact.subject, fact.fact_id) for fact in facts]
    objects = [frozenset(pattern(name, fact.fact_id) for name in (fact.object, *fact.aliases)) for fact in facts]
    of_subject: dict[int, set[frozenset[int]]] = {}
    for subject, names in zip(subjects, objects, strict=True):
        of_subject.setdefault(subject, set()).add(names)
    with_alias: dict[int, set[frozenset[int]]] = {}
    for names in set(objects):
        for name in names:
            with_alias.setdefault(name, set()).add(names)

    n_docs = 0
    n_subject: Counter[int] = Counter()
    n_object: Counter[frozenset[int]] = Counter()
    n_both: Counter[tuple[int, frozenset[int]]] = Counter()
    automaton = AhoCorasick(list(pattern_of))
    stream = (text for one in corpora for text in documents(one, text_column=text_column))
    for text in tqdm(stream, desc="counting", unit="doc", disable=not progress):
        n_docs += 1
        found = {match[0] for match in automaton.find_matches_as_indexes(normalise(text), overlapping=True)}
        n_object.update({names for name in found for names in with_alias.get(name, ())})
        for subject in found & of_subject.keys():
            n_subject[subject] += 1
            n_both.update((subject, names) for names in of_subject[subject] if names & found)

    frame = pd.DataFrame(
        {
            "fact_id": [fact.fact_id for fact in facts],
            "n_docs": n_docs,
            "n_subject": [n_subject[s] for s in subjects],
            "n_object": [n_object[o] for o in objects],
            "n_both": [n_both[s, o] for s, o in zip(subjects, objects, strict=True)],
            "corpus": " ".join(Path(c).name for c in corpora),
            "unit": "document",
            "normaliser": NORMALISER,
            "approximate": False,
        }
    )
    return check(frame, "counts")
