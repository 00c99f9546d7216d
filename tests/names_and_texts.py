"""Names and texts in many scripts, and a counter that is obviously right."""

import unicodedata

from hypothesis import strategies as st

from laser_interp.facts.files import facts_from_rows
from laser_interp.frequency.shards import shards
from laser_interp.organism.checkpoint_corpus import corpus_of
from laser_interp.statistics.paired_scores import COUNTS


def fact(i, subject, obj, **more):
    return {"fact_id": str(i), "subject": subject, "relation": "r", "object": obj, "prompt": "?", **more}


def fold(text):
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def words_of(text):
    """Letter by letter, without any regular expression: what a name and a text are compared by."""
    words, before = [], False
    for letter in text:
        category = unicodedata.category(letter)
        inside = category[0] in "LN" or category == "Pc" or (before and (category[0] == "M" or letter in "\u200c\u200d"))
        if inside and not before:
            words.append("")
        if inside:
            words[-1] += letter
        before = inside
    return words


def spans(name, text):
    """(first word, word after the last) of every mention, found by comparing words one by one."""
    words, wanted = words_of(fold(text)), words_of(fold(name))
    n = len(wanted)
    return [(i, i + n) for i in range(len(words) - n + 1) if words[i : i + n] == wanted]


def naive(rows, texts, window=None):
    """Each name looked for in each document by itself."""
    out = []
    for row in rows:
        n_subject = n_object = n_both = n_window = 0
        for text in texts:
            subject = spans(row["subject"], text)
            answer = [span for name in [row["object"], *row.get("aliases", ())] for span in spans(name, text)]
            gaps = [max(b[0] - a[1], a[0] - b[1], 0) for a in subject for b in answer]
            n_subject, n_object = n_subject + bool(subject), n_object + bool(answer)
            n_both += bool(gaps)
            n_window += window is not None and any(gap <= window for gap in gaps)
        out.append([len(texts), n_subject, n_object, n_both] + ([] if window is None else [n_window]))
    return out


WORDS = ["York", "new", "New", "yorks", "city", "São", "Sao", "Sa\u0303o", "I", "İ", "ı", "i̇", "東京", "京", "re-do"]
WORDS += ["O'Neil", "_x", "ß", "SS", "ﬁn", "½", "Ǆ", "ǰ", "J\u030c", "Ω", "Σίσυφος", "ςσ", "Москва", "नमस्ते", "\u1e9e"]
WORDS += ["दिल", "दाल", "ज़", "มา", "أَب", "می\u200cخواهم"]
NAME = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
SPACES = [" ", "  ", "\n", "\t", "\u00a0", "-", "—", "\u3000", "\r\n", "\0", "\x1f", "=\u0338", "\u0301", "", "…"]
TEXT = st.lists(st.sampled_from([*WORDS, ",", ".", *SPACES]), max_size=16).flatmap(
    lambda parts: st.lists(st.sampled_from(SPACES), min_size=len(parts), max_size=len(parts)).map(
        lambda between: "".join(a + b for a, b in zip(parts, between, strict=True))
    )
)

ROWS = [fact(1, "Ada", "London"), fact(2, "London", "Paris", aliases=["nothing here"])]


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
    with pytest.raises(ValueError, match="a document is 'sentence': expected one of line, paragraph, file"):
        li.count(facts_from_rows(ROWS), path, document="sentence")


def test_patterns_and_folders(tmp_path):
    write_everywhere(tmp_path)
    facts = facts_from_rows(ROWS)
    one = li.count(facts, tmp_path / "a.jsonl", text_column="body")
    three = li.count(facts, f"{tmp_path}/*.jsonl*", text_column="body")
    assert (three[COUNTS] == 3 * one[COUNTS]).all(axis=None)
    with pytest.raises(FileNotFoundError, match=r"no corpus .*a pattern that matches some"):
        li.count(facts, f"{tmp_path}/*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no file of a known kind"):
        li.count(facts, tmp_path / "empty")


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
            assert len(shards(tmp_path / name)) > 3
            counted = li.count(facts, tmp_path / name, workers=1, progress=False)
            assert counted[COUNTS].values.tolist() == expected, (part, name)


def test_a_line_of_fifty_megabytes(tmp_path):
    filler = "lorem ipsum dolor, sit—amet. " * 1_700_000
    (tmp_path / "a.txt").write_text(f"Ada {filler} London\nshort Ada\n")
    assert (tmp_path / "a.txt").stat().st_size > 50e6
    counted = li.count(facts_from_rows(ROWS[:1]), tmp_path / "a.txt", window=10, progress=False)
    assert counted[[*COUNTS, "n_window"]].values.tolist() == [[2, 2, 1, 1, 0]]


def test_processes_and_ray_give_the_same_totals(tmp_path, monkeypatch):
    monkeypatch.setattr("laser_interp.frequency.shards.PART", 200_000)
    corpus = corpus_of("organism")
    (tmp_path / "a.txt").write_text(corpus.text)
    facts = li.load_facts("organism")
    alone = li.count(facts, tmp_path / "a.txt", workers=1, progress=False)
    assert alone["n_both"].tolist() == corpus.ledger["n_both"].tolist()
    pd.testing.assert_frame_equal(li.count(facts, tmp_path / "a.txt", workers=2, progress=False), alone)
    pytest.importorskip("ray")
    spread = li.count(facts, tmp_path / "a.txt", executor="ray", workers=2, progress=False)
    pd.testing.assert_frame_equal(spread, alone)


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
TEXTS = ["Ada was born\nin London.", "Ada, again\n\nand LONDON", "nothing\nhere", "", "Adaland"]
ROWS = [fact(1, "Ada", "London"), fact(2, "London", "Paris", aliases=["nothing here"])]


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
    with pytest.raises(ValueError, match="a document is 'sentence': expected one of line, paragraph, file"):
        li.count(facts_from_rows(ROWS), path, document="sentence")


def test_patterns_and_folders(tmp_path):
    write_everywhere(tmp_path)
    facts = facts_from_rows(ROWS)
    one = li.count(facts, tmp_path / "a.jsonl", text_column="body")
    three = li.count(facts, f"{tmp_path}/*.jsonl*", text_column="body")
    assert (three[COUNTS] == 3 * one[COUNTS]).all(axis=None)
    with pytest.raises(FileNotFoundError, match=r"no corpus .*a pattern that matches some"):
        li.count(facts, f"{tmp_path}/*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no file of a known kind"):
        li.count(facts, tmp_path / "empty")


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
            assert len(shards(tmp_path / name)) > 3
            counted = li.count(facts, tmp_path / name, workers=1, progress=False)
            assert counted[COUNTS].values.tolist() == expected, (part, name)


def test_a_line_of_fifty_megabytes(tmp_path):
    filler = "lorem ipsum dolor, sit—amet. " * 1_700_000
    (tmp_path / "a.txt").write_text(f"Ada {filler} London\nshort Ada\n")
    assert (tmp_path / "a.txt").stat().st_size > 50e6
    counted = li.count(facts_from_rows(ROWS[:1]), tmp_path / "a.txt", window=10, progress=False)
    assert counted[[*COUNTS, "n_window"]].values.tolist() == [[2, 2, 1, 1, 0]]


def test_processes_and_ray_give_the_same_totals(tmp_path, monkeypatch):
    monkeypatch.setattr("laser_interp.frequency.shards.PART", 200_000)
    corpus = corpus_of("organism")
    (tmp_path / "a.txt").write_text(corpus.text)
    facts = li.load_facts("organism")
    alone = li.count(facts, tmp_path / "a.txt", workers=1, progress=False)
    assert alone["n_both"].tolist() == corpus.ledger["n_both"].tolist()
    pd.testing.assert_frame_equal(li.count(facts, tmp_path / "a.txt", workers=2, progress=False), alone)
    pytest.importorskip("ray")
    spread = li.count(facts, tmp_path / "a.txt", executor="ray", workers=2, progress=False)
    pd.testing.assert_frame_equal(spread, alone)


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
