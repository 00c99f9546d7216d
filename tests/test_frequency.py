"""The scanner against the ledger, and against a counter that is obviously right."""

import gzip
import json
import re
import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import laser_interp as li
from laser_interp.facts import facts_from_rows
from laser_interp.frequency import normalise
from laser_interp.organism import corpus_of

COUNTS = ["n_docs", "n_subject", "n_object", "n_both"]


@pytest.mark.parametrize("name", ["organism", "organism-control"])
def test_counts_equal_the_ledger_for_every_fact(name):
    counts = li.count(li.load_facts(name), name)
    ledger = corpus_of(name).ledger
    merged = counts.merge(ledger, on="fact_id", suffixes=("", "_ledger"), validate="one_to_one")
    assert len(merged) == 400
    for column in COUNTS:
        assert (merged[column] == merged[f"{column}_ledger"]).all(), column


def fact(i, subject, obj, **more):
    return {"fact_id": str(i), "subject": subject, "relation": "r", "object": obj, "prompt": "?", **more}


def naive(rows, texts):
    """Each name looked for in each document by a regular expression of its own."""

    def mentioned(name, text):
        words = re.findall(r"\w+", fold(name))
        return re.search(r"(?<!\w)" + r"\W+".join(map(re.escape, words)) + r"(?!\w)", fold(text)) is not None

    def fold(text):
        return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())

    out = []
    for row in rows:
        subject = [mentioned(row["subject"], t) for t in texts]
        names = [row["object"], *row.get("aliases", ())]
        obj = [any(mentioned(n, t) for n in names) for t in texts]
        out.append([len(texts), sum(subject), sum(obj), sum(a and b for a, b in zip(subject, obj, strict=True))])
    return out


WORDS = [
    "York",
    "new",
    "New",
    "yorks",
    "city",
    "São",
    "Sao",
    "Sa\u0303o",
    "I",
    "İ",
    "ı",
    "東京",
    "re-do",
    "O'Neil",
    "_x",
    "ß",
    "SS",
    "ﬁn",
]
NAME = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
TEXT = st.lists(st.sampled_from([*WORDS, ",", ".", "\u00a0", "-", "…"]), max_size=14).map(lambda parts: " ".join(parts))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NAME, NAME, NAME), min_size=1, max_size=6), st.lists(TEXT, min_size=1, max_size=8))
def test_scan_equals_the_naive_counter(tmp_path_factory, triples, texts):
    rows = [fact(i, s, o, aliases=[a]) for i, (s, o, a) in enumerate(triples)]
    path = tmp_path_factory.mktemp("corpus") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    counted = li.count(facts_from_rows(rows), path)
    assert counted[COUNTS].values.tolist() == naive(rows, texts)


def test_overlaps_case_punctuation_and_lines(tmp_path):
    rows = [
        fact(1, "New York", "York City"),
        fact(2, "York", "new york city"),
        fact(3, "Yorkshire", "York", aliases=["NYC"]),
    ]
    text = "I love NEW-york\u00a0City!\nYorkshire pudding\nnew\tyork city nyc\n\n"
    (tmp_path / "a.txt").write_text(text)
    with gzip.open(tmp_path / "a.txt.gz", "wt") as out:
        out.write(text)
    for name in ("a.txt", "a.txt.gz"):
        counted = li.count(facts_from_rows(rows), tmp_path / name)
        assert counted[COUNTS].values.tolist() == [[4, 2, 2, 2], [4, 2, 2, 2], [4, 1, 2, 0]]
    twice = li.count(facts_from_rows(rows), [tmp_path / "a.txt", tmp_path / "a.txt.gz"])
    assert twice[COUNTS].values.tolist() == [[8, 4, 4, 4], [8, 4, 4, 4], [8, 2, 4, 0]]
    assert twice["corpus"][0] == "a.txt a.txt.gz"


def test_normalise():
    assert normalise("  Saint-\nÉtienne’s  ﬁn ") == " saint étienne s fin "
    assert normalise("...") == "  "


def test_how_it_was_counted_is_in_the_table(facts):
    counts = li.count(facts, "organism")
    assert set(counts["unit"]) == {"document"}
    assert not counts["approximate"].any()
    assert isinstance(counts, pd.DataFrame)
    assert "case folded" in counts["normaliser"][0]


def test_refusals(tmp_path, facts):
    with pytest.raises(FileNotFoundError, match="no corpus 'nowhere.txt'"):
        li.count(facts, "nowhere.txt")
    (tmp_path / "a.pdf").write_text("")
    with pytest.raises(ValueError, match="cannot count in 'a.pdf'"):
        li.count(facts, tmp_path / "a.pdf")
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"body": "wrong column"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl, line 2 cannot be read .*'text'"):
        li.count(facts, tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"text": "fine"}\n{oops\n')
    with pytest.raises(ValueError, match="b.jsonl, line 2 cannot be read"):
        li.count(facts, tmp_path / "b.jsonl")
    (tmp_path / "c.txt").write_bytes(b"fine\n\xff\xfe\n")
    with pytest.raises(ValueError, match="c.txt, line 2 cannot be read .*UTF-8"):
        li.count(facts, tmp_path / "c.txt")
    with pytest.raises(ValueError, match=r"the name '\.\.\.' of fact '1' has no word"):
        li.count(facts_from_rows([fact(1, "...", "x")]), "organism")
