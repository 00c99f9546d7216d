"""The scanner against the ledger, and against a counter that is obviously right."""

import gzip
import json
import re
import threading
import unicodedata
import warnings

import pandas as pd
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from names_and_texts import NAME, ROWS, TEXT, TEXTS, fact, fold, naive

import laser_interp as li
from laser_interp.facts.files import facts_from_rows
from laser_interp.frequency.normaliser import joined, normalise, normalise_joined
from laser_interp.frequency.reader import Reader, Reading, UnreadableError
from laser_interp.frequency.shards import corpus_files
from laser_interp.organism.checkpoint_corpus import organism_corpus

COUNTS = ["n_docs", "n_subject", "n_object", "n_both"]


@pytest.mark.parametrize("name", ["organism", "organism-control"])
def test_counts_equal_the_ledger_for_every_fact(name):
    counts = li.count(li.load_facts(name), name)
    ledger = organism_corpus(name).ledger
    merged = counts.merge(ledger, on="fact_id", suffixes=("", "_ledger"), validate="one_to_one")
    assert len(merged) == 400
    for column in COUNTS:
        assert (merged[column] == merged[f"{column}_ledger"]).all(), column


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(NAME, NAME, NAME), min_size=1, max_size=6),
    st.lists(TEXT, min_size=1, max_size=8),
    st.sampled_from([0, 1, 3]),
    st.booleans(),
)
def test_scan_equals_the_naive_counter(tmp_path_factory, triples, texts, window, accents):
    rows = [fact(i, s, o, aliases=[a], subject_aliases=[a[::-1]]) for i, (s, o, a) in enumerate(triples)]
    path = tmp_path_factory.mktemp("corpus") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    matching = li.counts.Matching(fold_accents=not accents)
    counted = li.count(facts_from_rows(rows), path, window=window, matching=matching, progress=False)
    assert counted[[*COUNTS, "n_window"]].values.tolist() == naive(rows, texts, window, accents)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=40), TEXT), min_size=1, max_size=6), st.booleans())
def test_normalising_many_documents_is_normalising_each(texts, accents):
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    expected = [normalise(text.replace("\0", " "), fold_accents=not accents) for text in texts]
    found = normalise_joined(joined(texts), fold_accents=not accents).decode().split("\0")
    assert [f" {part.strip(' ')} " for part in found] == expected
    # and where most of the text is ASCII, words are folded one by one
    padded = [text + " " + "plain words " * 60 for text in texts]
    found = normalise_joined(joined(padded), fold_accents=not accents).decode().split("\0")
    expected = [normalise(text.replace("\0", " "), fold_accents=not accents) for text in padded]
    assert [f" {part.strip(' ')} " for part in found] == expected


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
    (tmp_path / "b.txt").write_text(text)
    twice = li.count(facts_from_rows(rows), [tmp_path / "a.txt", tmp_path / "b.txt"])
    assert twice[COUNTS].values.tolist() == [[8, 4, 4, 4], [8, 4, 4, 4], [8, 2, 4, 0]]
    assert twice["corpus"][0] == "a.txt b.txt"


def test_normalise():
    assert normalise("  Saint-\nÉtienne’s  ﬁn ") == " saint étienne s fin "
    assert normalise("...") == "  "
    folded = {
        "Łódź": "lodz",
        "Søren Ærø": "soren aero",
        "Ǻngström": "angstrom",
        "Μαΐου": "μαιου",
        "й ё": "й ё",
        "ज़": "ज़",
    }
    for name, expected in folded.items():
        assert normalise(name, fold_accents=True) == normalise(f" {expected} ")


@pytest.mark.parametrize("indexed", [False, True])
def test_what_does_not_count_as_a_difference(tmp_path, indexed):
    texts = ["Zurich and Paris", "Zürich", "Paris (Texas)", "the Limmat city and Paris", "nothing"]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    facts = facts_from_rows([fact(1, "Zürich", "Paris (Texas)", subject_aliases=["the Limmat city"])])

    def counts(**options):
        matching = li.counts.Matching(**options)
        if indexed:
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            index = li.counts.build_index(
                tmp_path / "a.txt", folder, fold_accents=matching.fold_accents, progress=False
            )
            return index.count(facts, window=1, matching=matching, progress=False)
        return li.count(facts, tmp_path / "a.txt", window=1, matching=matching, progress=False)

    rows = {
        (): [3, 3, 2, 2],
        ("fold_accents",): [2, 3, 1, 1],
        ("drop_parentheses",): [3, 1, 0, 0],
        ("subject_aliases",): [2, 3, 1, 1],
        ("fold_accents", "drop_parentheses", "subject_aliases"): [1, 1, 0, 0],
    }
    for left_out, expected in rows.items():
        counted = counts(**dict.fromkeys(left_out, False))
        assert counted[["n_subject", "n_object", "n_both", "n_window"]].values.tolist() == [expected], left_out
    assert "accents folded, parentheses after names dropped, other names of subjects" in counts()["normaliser"][0]
    if indexed:
        index = li.counts.build_index(tmp_path / "a.txt", tmp_path / "plain", fold_accents=False, progress=False)
        with pytest.raises(ValueError, match="was made with accents kept"):
            index.count(facts, matching=li.counts.Matching(), progress=False)
        assert index.documents("Zürich") == ["zürich"]


def write_everywhere(folder):
    """The same documents in every format that holds documents of several lines."""
    import datasets

    lines = "".join(json.dumps({"id": i, "body": t}) + "\n" for i, t in enumerate(TEXTS))
    (folder / "a.jsonl").write_text(lines)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    halves = lines.encode()[:50], lines.encode()[50:]
    (folder / "a.jsonl.zst").write_bytes(b"".join(zstd.compress(half) for half in halves))
    (folder / "a.json").write_text(json.dumps([{"body": t} for t in TEXTS]))
    (folder / "b.json").write_text(json.dumps(TEXTS))
    frame = pd.DataFrame({"id": range(len(TEXTS)), "body": TEXTS})
    frame.to_parquet(folder / "a.parquet", row_group_size=2)
    made = datasets.Dataset.from_pandas(frame)
    made.save_to_disk(folder / "saved", num_shards=2)
    datasets.DatasetDict({"train": made.select([0, 1, 2]), "rest": made.select([3, 4])}).save_to_disk(folder / "split")
    (folder / "files").mkdir()
    for i, text in enumerate(TEXTS):
        (folder / "files" / f"{i}.txt").write_text(text)
    return ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "b.json", "a.parquet", "saved", "split", "files"]


def test_every_format_gives_the_same_counts(tmp_path):
    expected = naive(ROWS, TEXTS, 2)
    for name in write_everywhere(tmp_path):
        counted = li.count(
            facts_from_rows(ROWS), tmp_path / name, text_column="body", document="file", window=2, progress=False
        )
        assert counted[[*COUNTS, "n_window"]].values.tolist() == expected, name


def test_a_corpus_may_be_counted_again(tmp_path):
    (tmp_path / "a.txt").write_text("Mira Tolen was born in Varholt.\n")
    corpus = li.counts.Corpus(path for path in [tmp_path / "a.txt"])
    facts = li.load_facts("organism")
    first, again = (corpus.count(facts, progress=False) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    provenance = {name: value for name, value in first.attrs["provenance"].items() if name != "notes"}
    assert provenance == corpus.identity(facts)  # the counts of equal corpora are equal


def test_documents_of_a_text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfAda was born\r\nin London.\r\n \t\r\n\r\nParis\r\nnothing\r\nhere: London\r\n")
    documents = {
        "line": ["Ada was born", "in London.", "", "", "Paris", "nothing", "here: London"],
        "paragraph": ["Ada was born in London.", "Paris nothing here: London"],
        "file": ["Ada was born in London. Paris nothing here: London"],
    }
    for document, texts in documents.items():
        counted = li.count(facts_from_rows(ROWS), path, document=document)
        assert counted[COUNTS].values.tolist() == naive(ROWS, texts), document
    with pytest.raises(ValueError, match="document is 'sentence': expected one of line, paragraph, file"):
        li.count(facts_from_rows(ROWS), path, document="sentence")


def test_patterns_and_folders(tmp_path):
    write_everywhere(tmp_path)
    facts = facts_from_rows(ROWS)
    one = li.count(facts, tmp_path / "a.jsonl", text_column="body")
    with pytest.warns(UserWarning, match="2 files hold a text that is counted already"):
        all_of_them = li.count(facts, f"{tmp_path}/*.jsonl*", text_column="body")
    assert (all_of_them[COUNTS] == one[COUNTS]).all(axis=None)
    with pytest.raises(FileNotFoundError, match=r"no corpus .*a pattern that matches some"):
        li.count(facts, f"{tmp_path}/*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no file of a known kind"):
        li.count(facts, tmp_path / "empty")


def test_only_the_first_documents(tmp_path, monkeypatch):
    """Over several files and parts, whatever was done before a stop; and the table says how many."""
    lines = [f"{i} Ada {'London' if i % 3 else ''}" for i in range(60)]
    for i, name in enumerate(("a-2", "a-10", "b")):  # in the order of their numbers
        (tmp_path / f"{name}.txt").write_text("\n".join(lines[20 * i : 20 * i + 20]) + "\n")
    monkeypatch.setattr("laser_interp.frequency.shards.PART", 70)
    monkeypatch.setattr("laser_interp.frequency.reader.BLOCK", 50)
    facts = facts_from_rows(ROWS)
    for until in (1, 7, 20, 33, 60):
        counted = li.count(facts, f"{tmp_path}/*.txt", until=until, workers=4, progress=False)
        assert counted[COUNTS].values.tolist() == naive(ROWS, lines[:until]), until
    (tmp_path / "unreadable.txt").write_bytes(b"Ada \xff\n")
    files = [f"{tmp_path}/*.txt", tmp_path / "unreadable.txt"]
    assert li.count(facts, files, until=60, progress=False)["n_docs"].tolist() == [60] * len(ROWS)
    (tmp_path / "unreadable.txt").unlink()
    with pytest.warns(UserWarning, match="there are only 60 documents"):
        li.count(facts, f"{tmp_path}/*.txt", until=61, progress=False)
    out = tmp_path / "counts.parquet"
    li.count(facts, f"{tmp_path}/*.txt", until=33, out=out, progress=False)
    with pytest.raises(ValueError, match="until: 33 there, 34 now"):
        li.count(facts, f"{tmp_path}/*.txt", until=34, out=out, progress=False)
    for bad, expected in (({"until": 0}, "1 document or more"), ({"until": 5, "executor": "ray"}, "executor='ray'")):
        with pytest.raises(ValueError, match=expected):
            li.count(facts, f"{tmp_path}/*.txt", **bad)


@pytest.mark.slow
def test_parts_of_a_large_file_are_its_documents_once(tmp_path, monkeypatch):
    """Wherever the cuts fall: within a line, at its end, in the middle of a character."""
    lines = [f"{'é' * (i % 7)} Ada {'London' if i % 3 else ''} {'x ' * (i % 11)}" for i in range(200)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = facts_from_rows(ROWS)
    expected = naive(ROWS, lines)
    for part in (1000, 97, 31, 8):
        monkeypatch.setattr("laser_interp.frequency.shards.PART", part)
        monkeypatch.setattr("laser_interp.frequency.reader.BLOCK", max(part // 3, 5))
        for name in ("a.txt", "a.jsonl"):
            assert len(corpus_files(tmp_path / name)[0]) > 3
            counted = li.count(facts, tmp_path / name, workers=1, progress=False)
            assert counted[COUNTS].values.tolist() == expected, (part, name)


@pytest.mark.slow
def test_a_line_of_fifty_megabytes(tmp_path):
    filler = "lorem ipsum dolor, sit—amet. " * 1_700_000
    (tmp_path / "a.txt").write_text(f"Ada {filler} London\nshort Ada\n")
    assert (tmp_path / "a.txt").stat().st_size > 50e6
    counted = li.count(facts_from_rows(ROWS[:1]), tmp_path / "a.txt", window=10, progress=False)
    assert counted[[*COUNTS, "n_window"]].values.tolist() == [[2, 2, 1, 1, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".jsonl.zst", ".json.gz"])
def test_a_line_that_is_too_long_takes_no_memory(tmp_path, suffix):
    """Packed, 8 MB of one letter are a few kB; with a limit of 1 MB they are an error, or skipped and told."""
    path = tmp_path / f"text{suffix}"
    opened = {".gz": gzip.open, ".zst": zstd.open}.get(path.suffix, open)
    long, short = "a" * (8 << 20), "Mira met Tolen"
    if suffix.startswith(".json"):
        long, short = (json.dumps({"text": text}) for text in (long, short))
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(f"[{long}, {short}]" if suffix == ".json.gz" else f"{short}\n{long}\n{short}\n")
    facts = facts_from_rows([fact(0, "Mira", "Tolen")])
    with pytest.raises(ValueError, match="longer than 1048576 bytes"):
        li.count(facts, path, longest=1 << 20, progress=False)
    if suffix == ".json.gz":
        return
    with pytest.warns(UserWarning, match=f"text{suffix}, line 2 .the line is longer than"):
        counted = li.count(facts, path, longest=1 << 20, errors="skip", progress=False)
    assert counted[[*COUNTS, "n_skipped"]].values.tolist() == [[2, 2, 2, 2, 1]]
    assert li.count(facts, path, progress=False)["n_docs"].tolist() == [3]


def test_counts_made_with_skip_are_not_taken_for_whole_ones(tmp_path):
    path, out = tmp_path / "text.jsonl", tmp_path / "counts.parquet"
    path.write_text('{"text": "Mira met Tolen"}\n{"text": \n')
    facts = facts_from_rows([fact(0, "Mira", "Tolen")])
    with pytest.warns(UserWarning, match="could not be read"):
        li.count(facts, path, errors="skip", out=out, progress=False)
    assert li.count(facts, path, errors="skip", out=out, progress=False)["n_skipped"].tolist() == [1]
    with pytest.raises(ValueError, match="holds counts without 1 documents that could not be read"):
        li.count(facts, path, out=out, progress=False)


def test_what_a_shorter_limit_skipped_is_not_skipped_under_a_longer_one(tmp_path):
    path, out = tmp_path / "text.txt", tmp_path / "counts.parquet"
    path.write_text(f"Mira met Tolen\n{'a' * (3 << 19)}\n")
    facts = facts_from_rows([fact(0, "Mira", "Tolen")])
    with pytest.warns(UserWarning, match="could not be read"):
        counted = li.count(facts, path, errors="skip", longest=1 << 20, out=out, progress=False)
    assert counted["n_skipped"].tolist() == [1]
    with pytest.raises(ValueError, match="when longest was 1048576, and it is 2097152 now"):
        li.count(facts, path, errors="skip", longest=2 << 20, out=out, progress=False)


BAD_LINES = [
    b'{"text": "Ada"}',
    b"{oops",
    b'{"body": "wrong column"}',
    b'{"text": 7}',
    b'{"text": "\xff"}',
    b'{"text": "\\ud800"}',
    b"",
    b'{"text": "London"}',
]


def test_bad_lines_are_named_and_skipped_only_by_choice(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(BAD_LINES))
    facts = facts_from_rows(ROWS[:1])
    with pytest.raises(UnreadableError, match=r"a\.jsonl, line 2 cannot be read .*expected JSON.*errors='skip'"):
        li.count(facts, path)
    for part in (1 << 20, 20):  # whole, and in parts: the lines are numbered in the file
        monkeypatch.setattr("laser_interp.frequency.shards.PART", part)
        with pytest.warns(UserWarning, match=r"5 could not be read and were skipped: a\.jsonl, line 2"):
            counted = li.count(facts, path, errors="skip", workers=1, progress=False)
        assert counted[[*COUNTS, "n_skipped"]].values.tolist() == [[2, 1, 1, 0, 5]]
        skipped = counted.attrs["skipped"]
        assert [where for where, _ in skipped] == [f"a.jsonl, line {n}" for n in (2, 3, 4, 5, 6)]
        whys = [why for _, why in skipped]
        for why, says in zip(
            whys, ["expected JSON", "no column 'text': it has body", "int", "UTF-8|utf-8", "surrogate"], strict=True
        ):
            assert re.search(says, why), why


def test_damaged_files_are_named_and_what_came_before_is_kept(tmp_path):
    facts = facts_from_rows(ROWS[:1])
    lines = ("Ada in London " + "x y z " * 2000 + "\n") * 200
    import random

    noise = "".join(random.Random(0).choices("abcdefgh \n", k=400_000))
    whole = {"a.txt.gz": gzip.compress((lines + noise).encode()), "a.txt.zst": zstd.compress((lines + noise).encode())}
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(UnreadableError, match=rf"{re.escape(name)} cannot be read \(from some point on"):
            li.count(facts, tmp_path / name, progress=False)
        with pytest.warns(UserWarning, match="1 could not be read"):
            counted = li.count(facts, tmp_path / name, errors="skip", progress=False)
        assert counted["n_both"][0] == 200
        assert counted["n_skipped"][0] == 1
    for name in ("b.txt.gz", "b.txt.zst", "b.parquet", "b.arrow", "b.json"):
        (tmp_path / name).write_bytes(b"not that at all")
        with pytest.raises(UnreadableError, match=re.escape(name)):
            li.count(facts, tmp_path / name, progress=False)
        with pytest.raises(ValueError, match="no document could be read in"):
            li.count(facts, tmp_path / name, errors="skip", progress=False)


def test_columns_that_are_not_there_or_no_text(tmp_path):
    facts = facts_from_rows(ROWS[:1])
    pd.DataFrame({"text": ["Ada", None], "n": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UnreadableError, match=r"a.parquet cannot be read \(no column 'body': it has text, n"):
        li.count(facts, tmp_path / "a.parquet", text_column="body")
    with pytest.raises(UnreadableError, match=r"column 'n' is int64, expected text"):
        li.count(facts, tmp_path / "a.parquet", text_column="n")
    with pytest.raises(UnreadableError, match=r"a.parquet, row 2 cannot be read \(no text: null"):
        li.count(facts, tmp_path / "a.parquet")


def test_an_encoding_error_in_text_is_named(tmp_path):
    facts = facts_from_rows(ROWS[:1])
    (tmp_path / "a.txt").write_bytes(b"Ada\n\nAda\nLondon \xe9t\xe9 Ada\n\nLondon\n")
    for document, line, n_docs in (("line", 4, 5), ("paragraph", 4, 2)):
        with pytest.raises(UnreadableError, match=rf"a\.txt, line {line} cannot be read .*UTF-8"):
            li.count(facts, tmp_path / "a.txt", document=document)
        with pytest.warns(UserWarning, match="skipped"):
            counted = li.count(facts, tmp_path / "a.txt", document=document, errors="skip")
        assert counted["n_docs"][0] == n_docs
    with pytest.raises(UnreadableError, match="line 4"):
        li.count(facts, tmp_path / "a.txt", document="file")


def test_a_stopped_count_goes_on(tmp_path, monkeypatch):
    from laser_interp.frequency import scan

    module = __import__("sys").modules["laser_interp.frequency.scan"]
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"Ada {i} London\n" * (i + 1))
    facts, out = facts_from_rows(ROWS), tmp_path / "out" / "counts.parquet"
    asked = dict(source=f"{tmp_path}/*.txt", out=out, workers=1, progress=False)
    plain = li.count(facts, asked["source"])
    read, stop = [], threading.Event()
    real = module.count_shard

    def counted(mentions, shard, tick=lambda _: None, *, how):
        if shard.label == "3.txt" and not stop.is_set():
            raise KeyboardInterrupt
        read.append(shard.label)
        return real(mentions, shard, tick, how=how)

    monkeypatch.setattr(module, "count_shard", counted)
    with pytest.raises(KeyboardInterrupt):
        li.count(facts, **asked)
    assert not out.exists()
    with pytest.raises(ValueError, match=r"holds a run with other settings .*window"):
        li.count(facts, **asked, window=3)
    damaged = out.with_name("counts.parquet.parts") / "parts" / "000001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    stop.set()
    with pytest.warns(UserWarning, match="is not used and is computed again"):
        table = li.count(facts, **asked)
    assert sorted(read) == ["0.txt", "1.txt", "1.txt", "2.txt", "3.txt", "4.txt", "5.txt"]
    pd.testing.assert_frame_equal(table, plain)
    assert [p.name for p in out.parent.iterdir()] == ["counts.parquet"]
    again = li.count(facts, **asked)  # it is there: nothing is read
    pd.testing.assert_frame_equal(again, plain)
    assert len(read) == 7
    (tmp_path / "0.txt").write_text("changed\n")
    with pytest.raises(ValueError, match="holds other counts .*corpus_fingerprint"):
        li.count(facts, **asked)
    assert scan.__doc__


def test_what_was_skipped_is_kept_with_the_table(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(BAD_LINES))
    out = tmp_path / "counts.parquet"
    facts = facts_from_rows(ROWS)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counted = li.count(facts, tmp_path / "a.jsonl", errors="skip", out=out)
        assert counted["n_skipped"].tolist() == [5, 5]
        assert len(counted.attrs["skipped"]) == 5
    with pytest.raises(ValueError, match=r"expected a name that ends in \.parquet"):
        li.count(facts, tmp_path / "a.jsonl", out=tmp_path / "counts.csv")


def test_progress_is_told_in_bytes(tmp_path):
    lines = "Ada in London, again and again\n" * 50_000
    (tmp_path / "a.txt").write_text(lines)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.jsonl.zst").write_bytes(zstd.compress(b'{"text": "Ada"}\n' * 50_000))
    pd.DataFrame({"text": ["Ada"] * 5}).to_parquet(tmp_path / "a.parquet")
    for name in ("a.txt", "a.txt.gz", "a.jsonl.zst", "a.parquet"):
        told = []
        (shard,) = corpus_files(tmp_path / name)[0]
        for _ in Reader(shard, Reading(), told.append).blocks():
            pass
        assert sum(told) == (tmp_path / name).stat().st_size
    assert len(told) > 0


def test_how_it_was_counted_is_in_the_table(facts):
    counts = li.count(facts, "organism")
    assert set(counts["unit"]) == {"document"}
    assert not counts["approximate"].any()
    assert isinstance(counts, pd.DataFrame)
    assert "case folded" in counts["normaliser"][0]
    assert counts.attrs["provenance"]["facts_sha256"] == facts.sha256


def test_refusals(tmp_path, facts):
    with pytest.raises(FileNotFoundError, match=r"a text itself is given in a list, as in \['Mira Tolen was born '\]"):
        li.count(facts, "Mira Tolen was born in Varwick.", progress=False)
    with pytest.raises(FileNotFoundError, match="no corpus 'nowhere.txt'"):
        li.count(facts, "nowhere.txt")
    (tmp_path / "a.pdf").write_text("")
    with pytest.raises(ValueError, match="cannot count in 'a.pdf'"):
        li.count(facts, tmp_path / "a.pdf")
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"body": "wrong column"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl, line 2 cannot be read .*'text'"):
        li.count(facts, tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match=r"the name '\.\.\.' of fact '1' has no word"):
        li.count(facts_from_rows([fact(1, "...", "x")]), "organism")
    with pytest.raises(ValueError, match="the window is -1 words"):
        li.count(facts, "organism", window=-1)
    with pytest.raises(ValueError, match="executor is 'cloud'"):
        li.count(facts, "organism", executor="cloud")
    with pytest.raises(ValueError, match="workers is 0"):
        li.count(facts, "organism", workers=0)
    with pytest.raises(FileNotFoundError, match="no corpus was given"):
        li.count(facts, [])
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match=r"no document could be read in empty\.txt"):
        li.count(facts, tmp_path / "empty.txt")


def test_the_command_line(tmp_path, capsys):
    from laser_interp.cli.app import main

    out = tmp_path / "counts.parquet"
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(BAD_LINES))
    facts_from_rows(ROWS).save(tmp_path / "facts.jsonl")
    asked = ["count", "--facts", str(tmp_path / "facts.jsonl"), "--corpus", f"{tmp_path}/a.jsonl", "--out", str(out)]
    assert main([*asked, "--quiet"]) == 2
    assert "a.jsonl, line 2 cannot be read" in capsys.readouterr().err
    assert main([*asked, "--quiet", "--skip"]) == 0
    told = capsys.readouterr()
    assert "5 could not be read and were skipped" in told.err
    assert "2 of 2 facts were counted in 2 documents. Subject and object are found together for 0 facts" in told.out
    table = pd.read_parquet(out)
    assert table["n_skipped"].tolist() == [5, 5]
    assert main([*asked, "--quiet", "--index", "x"]) == 2
    assert "either --corpus" in capsys.readouterr().err
    index = tmp_path / "index"
    assert main(["index", "--corpus", f"{tmp_path}/a.jsonl", "--out", str(index), "--skip", "--quiet"]) == 0
    assert "The index of 2 documents is in" in capsys.readouterr().out
    second = tmp_path / "second.parquet"
    assert main(["count", "--facts", asked[2], "--index", str(index), "--out", str(second), "--quiet"]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(second), table)


@pytest.mark.slow
def test_processes_need_no_guarded_main_module(tmp_path):
    """A script as users write them, without `if __name__ == "__main__"`."""
    import subprocess
    import sys

    for i in range(2):
        (tmp_path / f"{i}.txt").write_text("Mira Tolen\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import laser_interp as li\n"
        f"print(li.count(li.load_facts('organism'), r'{tmp_path}/*.txt', workers=2)['n_subject'].max())\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "2"


@pytest.mark.slow
def test_real_text_is_counted_as_grep_counts_it():
    """ParaRel's facts in WikiText-2: whole words in lines, one name at a time."""
    from pathlib import Path

    data = Path(__file__).parents[3] / "shared" / "data"
    if not data.is_dir():
        pytest.skip("needs ../shared/data")
    rows = [json.loads(line) for line in (data / "pararel" / "facts" / "P36.jsonl").read_text().splitlines()]
    facts = facts_from_rows([fact(i, row["sub_label"], row["obj_label"]) for i, row in enumerate(rows)])
    files = [data / "wikitext2" / name for name in ("test.txt", "valid.txt")]
    counted = li.count(facts, files, workers=1, progress=False)
    lines = [line for file in files for line in fold(file.read_text(encoding="utf-8")).split("\n")[:-1]]
    assert counted["n_docs"][0] == len(lines)
    for i in counted.sort_values("n_both", ascending=False).index[:40]:
        one = facts.facts[i]
        looked = [
            re.compile(r"(?<!\w)" + r"\W+".join(map(re.escape, re.findall(r"\w+", fold(name)))) + r"(?!\w)")
            for name in (one.subject, one.object)
        ]
        found = [[bool(pattern.search(line)) for line in lines] for pattern in looked]
        expected = [sum(found[0]), sum(found[1]), sum(a and b for a, b in zip(*found, strict=True))]
        assert counted.loc[i, ["n_subject", "n_object", "n_both"]].tolist() == expected, one
    assert counted["n_both"].max() > 40


@pytest.mark.parametrize(("text", "name"), [("\u1e9e", "ss"), ("\u2126\u0345", "\u03c9\u03b9"), ("\u0390", "\u0390")])
def test_text_is_composed_again_after_folding(text, name):
    """Case folding takes letters apart. Without NFKC after it, one name would have two forms."""
    assert normalise(text) == normalise(name)
    folded = normalise(text).strip()
    assert folded == unicodedata.normalize("NFKC", folded)


def test_folding_twice_is_folding_once():
    for letter in map(chr, range(0x370, 0x2000)):
        once = normalise(letter)
        assert normalise(once) == once


def test_texts_in_memory_are_counted(tmp_path):
    facts = li.load_facts([("Ada", "r", "Rome"), ("Bo", "r", "Paris")], template="{subject} lives in")
    texts = ["Ada went to Rome.", "Bo and Ada", "Paris"]
    found = li.count(facts, texts, progress=False).set_index("fact_id")
    assert found["n_docs"].tolist() == [3, 3]
    assert found[["n_subject", "n_object", "n_both"]].to_numpy().tolist() == [[2, 1, 1], [1, 1, 0]]
    for files in (["a file.jsonl", "another one"], ["missing"], [str(tmp_path / "my texts.txt")]):
        with pytest.raises(FileNotFoundError, match="no corpus"):
            li.count(facts, files, progress=False)
