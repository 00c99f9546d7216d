"""What of a corpus is counted, and what is said of the rest."""

import bz2
import gzip
import lzma
import os

import pandas as pd
import pytest

import laser_interp as li

FACTS = li.load_facts([("Ada", "r", "London", "Ada was born in")])
TEXT = "Ada was born in London.\nBob was not.\n"


def count(corpus, facts=FACTS, **options):
    frame = li.count(facts, corpus, progress=False, **options)
    return frame["n_docs"][0], frame["n_both"][0], frame.attrs["provenance"]["notes"]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.txt", lambda path: path.write_text(TEXT)),
        ("a.TXT", lambda path: path.write_text(TEXT)),
        ("a.txt.gz", lambda path: path.write_bytes(gzip.compress(TEXT.encode()))),
        ("a.TXT.GZ", lambda path: path.write_bytes(gzip.compress(TEXT.encode()))),
        ("a.txt.bz2", lambda path: path.write_bytes(bz2.compress(TEXT.encode()))),
        ("a.txt.xz", lambda path: path.write_bytes(lzma.compress(TEXT.encode()))),
    ],
)
def test_kinds_of_files(tmp_path, name, write):
    write(tmp_path / name)
    assert count(tmp_path) == count(tmp_path / name) == (2, 1, [])


@pytest.mark.parametrize(("name", "compress"), [("a.txt.bz2", bz2.compress), ("a.txt.xz", lzma.compress)])
def test_a_cut_off_file_is_noticed(tmp_path, name, compress):
    (tmp_path / name).write_bytes(compress(TEXT.encode() * 999)[:-30])
    with pytest.raises(ValueError, match="cannot be read"):
        count(tmp_path)


def test_what_a_folder_holds_besides_is_noted(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("a.txt", "b.csv", "README.md", "c.7z"):
        (corpus / name).write_text(TEXT)
    with pytest.warns(UserWarning, match="3 files of other kinds were not counted: README.md, b.csv, c.7z"):
        assert count(corpus)[:2] == (2, 1)
    with pytest.warns(UserWarning, match="other kinds"):
        li.count(FACTS, corpus, out=tmp_path / "counts.parquet", progress=False)
    (note,) = li.load_counts(tmp_path / "counts.parquet").attrs["provenance"]["notes"]
    assert "README.md" in note
    with pytest.warns(UserWarning, match="other kinds"):
        assert li.counts.build_index(corpus, tmp_path / "index", progress=False).about["notes"]


@pytest.mark.parametrize("how", ["thrice", "links", "compressed beside it", "folder and file", "organism"])
def test_a_text_counts_once(tmp_path, how):
    (tmp_path / "a.txt").write_text(TEXT)
    corpus = [tmp_path]
    if how == "thrice":
        corpus = [tmp_path / "a.txt"] * 3
    elif how == "links":
        os.link(tmp_path / "a.txt", tmp_path / "b.txt")
        (tmp_path / "c.txt").symlink_to(tmp_path / "a.txt")
    elif how == "compressed beside it":
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    elif how == "folder and file":
        corpus = [tmp_path, tmp_path / "a.txt", f"{tmp_path}/*.txt"]
    else:
        few = li.load_facts("organism")[:3]
        with pytest.warns(UserWarning, match="hold a text that is counted already"):
            assert count(["organism", "organism"], few)[:2] == count("organism", few)[:2]
        return
    with pytest.warns(UserWarning, match="hold a text that is counted already, and were left out"):
        n_docs, n_both, (note,) = count(corpus)
    assert (n_docs, n_both) == (2, 1)
    assert "left out" in note


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_encodings_are_not_counted_as_nothing(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    with pytest.raises(ValueError, match=r"a.txt.* cannot be read \(every other byte is NUL"):
        count(tmp_path)
    (tmp_path / "b.txt").write_text(TEXT)
    with pytest.warns(UserWarning, match="1 could not be read"):
        assert count(tmp_path, errors="skip")[:2] == (2, 1)
    with pytest.warns(UserWarning, match="1 could not be read"):
        li.counts.build_index(tmp_path, tmp_path / "index", errors="skip", progress=False)


def test_line_ends_of_carriage_returns_alone_are_not_one_document(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT.replace("\n", "\r").encode())
    with pytest.raises(ValueError, match="end in CR alone"):
        count(tmp_path)
    (tmp_path / "a.txt").write_bytes(TEXT.replace("\n", "\r\n").encode())
    assert count(tmp_path)[:2] == (2, 1)


@pytest.mark.parametrize("hidden", ["\u00ad", "\u200b", "\u2060", "\ufeff", "\u200e", "\u200d"])
@pytest.mark.parametrize("where", ["text", "name"])
def test_invisible_characters_do_not_hide_a_name(tmp_path, hidden, where):
    (tmp_path / "a.txt").write_text(TEXT.replace("London", f"Lon{hidden}don") if where == "text" else TEXT)
    name = f"Lon{hidden}don" if where == "name" else "London"
    assert count(tmp_path, li.load_facts([("Ada", "r", name, "Ada was born in")]))[:2] == (2, 1)


def test_joiners_stay_where_they_are_letters(tmp_path):
    from laser_interp.frequency.normaliser import normalise

    assert normalise("می\u200cخواهم") != normalise("میخواهم")


@pytest.mark.parametrize("name", ["C++", "C#", "A*", "R%"])
def test_a_name_that_loses_signs_is_noted(tmp_path, name):
    (tmp_path / "a.txt").write_text("C, A and R were born in London.\n")
    with pytest.warns(UserWarning, match=r"1 names lose signs that tell them from others \(.*looked for as"):
        assert count(tmp_path, li.load_facts([(name, "r", "London", "p")]))[1] == 1


# --- counts from elsewhere -------------------------------------------------------------------------

TWO = li.load_facts(
    [{"fact_id": str(i), "subject": s, "object": "o", "prompt": "p"} for i, s in ((1, "Ann"), (2, "Bob"))]
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fact_id,n_both\n1,2,5\n2,3,6\n", "line 2 has 3 cells and the header 2"),
        ("fact_id,n_both\n1,2\n2\n", "line 3 has 1 cells and the header 2"),
        ("fact_id,n_both,n_both\n1,2,3\n", "has the column 'n_both' twice"),
        ("fact_id,fact_id,n_both\n1,2,3\n", "has the column 'fact_id' twice"),
        (f"fact_id,n_both\n1,{2**63}\n", "expected a whole number from 0 to 2^63 - 1"),
        ("fact_id,n_both\n1,1e30\n", "expected a whole number from 0 to 2^63 - 1"),
        ("fact_id,n_both\n1,2.5\n", "expected a whole number"),
        ("fact_id,n_both\n1,\n", "n_both is ''"),
        ("fact_id,n_both\n1,True\n", "n_both is 'True'"),
        ("fact_id,n_both\n1,inf\n", "n_both is 'inf'"),
        ("fact_id,n_both,n_subject\n1,5,2\n", "n_both is 5, above n_subject, which is 2"),
        ("fact_id,n_both,n_object\n1,5,2\n", "n_both is 5, above n_object"),
        ("fact_id,n_both,n_subject,n_docs\n1,1,5,2\n", "n_subject is 5, above n_docs"),
        ("", "is empty"),
        ('fact_id,n_both\n1,"2\n', "not readable csv"),
    ],
)
def test_counts_that_cannot_be_right_are_refused(tmp_path, text, says):
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="") as error:
        li.counts.join_counts(TWO, path)
    assert says in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_counts_in_another_encoding(tmp_path, encoding):
    (tmp_path / "c.csv").write_bytes("subject,object,n_both\nÄnn,o,3\n".encode(encoding))
    with pytest.raises(ValueError, match="is not UTF-8"):
        li.counts.join_counts(TWO, tmp_path / "c.csv")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"n_both": "nope"}, "has no column 'nope'"),
        ({"n_all": "n_subject"}, "columns has 'n_all'"),
        ({"n_both": "n_subject", "n_object": "n_subject"}, "expected another column for each"),
    ],
)
def test_columns_that_are_not_there(columns, says):
    frame = pd.DataFrame({"fact_id": ["1"], "n_both": [3], "n_subject": [5]})
    with pytest.raises(ValueError, match=says):
        li.counts.join_counts(TWO, frame, columns=columns)


def test_a_named_column_replaces_ours():
    frame = pd.DataFrame({"fact_id": ["1"], "n_both": [3], "n_subject": [5]})
    found = li.counts.join_counts(TWO, frame, columns={"n_both": "n_subject"}).counts
    assert found["n_both"].tolist() == [5]
    assert found["n_subject"].isna().all()
    swapped = li.counts.join_counts(TWO, frame, columns={"n_both": "n_both", "n_subject": "n_subject"}).counts
    assert swapped["n_subject"].tolist() == [5]
    large = frame.assign(n_both=[2**53 + 1], n_subject=[2**62])
    assert li.counts.join_counts(TWO, large).counts["n_both"].tolist() == [2**53 + 1]


def test_the_source_of_counts_is_a_file_or_a_frame():
    with pytest.raises(ValueError, match="the counts are a list"):
        li.counts.join_counts(TWO, [1, 2])
