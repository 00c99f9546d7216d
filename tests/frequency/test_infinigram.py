"""Indexes, infini-gram and counts from elsewhere: against the scan, a naive count, and a service that fails."""

import json
import random
import threading
from collections import defaultdict
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
import stamina
from hypothesis import given, settings
from hypothesis import strategies as st
from names_and_texts import NAME, ROWS, TEXT, TEXTS, fact

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.facts.files import facts_from_rows
from laser_interp.frequency import infinigram
from laser_interp.frequency.index import Index, build_index
from laser_interp.frequency.infinigram import InfiniGramError, UnreachableError, _after, _spellings
from laser_interp.frequency.infinigram_sources import HostedInfiniGram, LocalInfiniGram
from laser_interp.organism.checkpoint_corpus import organism_corpus

# --- index


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(NAME, NAME, NAME), min_size=1, max_size=5), st.lists(TEXT, min_size=1, max_size=8))
def test_an_index_answers_as_the_scan_does(tmp_path_factory, triples, texts):
    folder = tmp_path_factory.mktemp("index")
    facts = facts_from_rows([fact(i, s, o, aliases=[a]) for i, (s, o, a) in enumerate(triples)])
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    scan = li.count(facts, folder / "a.jsonl", window=2, progress=False)
    index = build_index(folder / "a.jsonl", folder / "index", progress=False)
    pd.testing.assert_frame_equal(index.count(facts, window=2, progress=False), scan, check_like=True)


@pytest.mark.slow
def test_the_organisms_index(tmp_path, facts):
    scan = li.count(facts, "organism", window=4, progress=False)
    build_index("organism", tmp_path / "index", progress=False)
    index = Index(tmp_path / "index")  # opened again
    pd.testing.assert_frame_equal(index.count(facts, window=4, progress=False), scan)
    one = facts.facts[0]
    found = index.documents(one.subject, one.object, limit=None)
    assert len(found) == scan["n_both"][0]
    assert all(one.object.lower() in text and one.subject.lower() in text for text in found)
    assert len(index.documents(one.subject, limit=2)) == 2
    assert "38361 documents" in repr(index)


def test_an_index_of_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("Ada in London\n")
    with pytest.raises(FileNotFoundError, match="no index in .*build_index"):
        Index(tmp_path)
    build_index(tmp_path / "a.txt", tmp_path / "x", progress=False)
    with pytest.raises(FileExistsError, match="x exists"):
        build_index(tmp_path / "a.txt", tmp_path / "x", progress=False)
    (tmp_path / "bad.jsonl").write_text("{oops\n")
    with pytest.raises(ValueError, match="line 1"):
        build_index(tmp_path / "bad.jsonl", tmp_path / "y", progress=False)
    assert not (tmp_path / "y").exists()  # whole or not at all
    with pytest.raises(ValueError, match="without a word"):
        Index(tmp_path / "x").documents("...")


# --- infini-gram


class Corpus:
    """What the service knows: documents as tokens, and its documented answers."""

    def __init__(self, tokenizer, texts):
        self.documents = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        self.holding = defaultdict(list)  # token -> numbers of the documents that hold it
        for number, tokens in enumerate(self.documents):
            for token in set(tokens):
                self.holding[token].append(number)

    def places(self, clause):
        """Document -> where any term of the clause begins in it."""
        found = defaultdict(set)
        for term in clause:
            for number in self.holding[term[0]]:
                tokens = self.documents[number]
                found[number] |= {i for i in range(len(tokens)) if tokens[i : i + len(term)] == list(term)}
        return found

    def count(self, cnf, window):
        """Occurrences of the rarer clause with one of the other at most `window` tokens away."""
        clauses = sorted(map(self.places, cnf), key=lambda one: sum(map(len, one.values())))
        if len(clauses) == 1:
            return sum(map(len, clauses[0].values()))
        rare, other = clauses
        return sum(any(abs(i - j) <= window for j in other.get(n, ())) for n, places in rare.items() for i in places)


class Service(BaseHTTPRequestHandler):
    """infini-gram's interface, as measured; `server.failing` says what goes wrong next."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append(body)
            failing = server.failing.pop(0) if server.failing else None
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        try:
            if failing == "drop":
                self.close_connection = True
                self.connection.close()
            elif failing is not None:
                status, told, headers = failing
                self.tell(status, told, headers)
            else:
                self.tell(*self.answer(body))
        finally:
            with server.lock:
                server.open -= 1

    def answer(self, body):
        if "query" in body:  # infini-gram mini: letters, and nothing but count and latency
            if body["index"] != "v2_piletrain" or set(body) != {"index", "query_type", "query"}:
                return 200, {"error": f"Invalid request: {body}"}
            return 200, {"count": "\n".join(self.server.rows).count(body["query"]), "latency": 522.6}
        for key in ("index", "query_type", "query_ids"):
            if key not in body:
                return 400, {"error": f"[Flask] Missing required field: {key}"}
        if body["index"] != "v4_piletrain_llama":
            return 400, {"error": f"[Flask] Invalid index: {body['index']}"}
        if body["query_type"] != "count":
            return 400, {"error": f"[Flask] Invalid query_type: {body['query_type']}"}
        ids = body["query_ids"]
        plain = isinstance(ids[0], int)
        window, most = body.get("max_diff_tokens"), body.get("max_clause_freq")
        if plain and (window is not None or most is not None):
            return 500, {"error": "[Flask] Internal server error"}
        if not plain:
            if not 1 <= window <= 1000:
                return 200, {"error": "max_diff_tokens must be an integer in [1, 1000]!"}
            if len(ids) > 4 or any(len(clause) > 4 for clause in ids):
                return 200, {"error": "A CNF query may have at most 4 disjunctive clauses!"}
        cnf = [[ids]] if plain else ids
        approx = not plain and any(self.server.corpus.count([clause], 0) > most for clause in cnf)
        count = self.server.corpus.count(cnf, window)
        return 200, {"approx": approx, "count": count, "latency": 17.9, "token_ids": ids, "tokens": []}

    def tell(self, status, told, headers=None):
        data = json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def corpus(organism):
    rows = organism_corpus("organism").rows[:3000]
    return rows, Corpus(organism.tokenizer, rows)


@pytest.fixture
def service(corpus):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.lock, server.asked, server.failing, server.open, server.most_open = threading.Lock(), [], [], 0, 0
    server.rows, server.corpus = corpus
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def count_infinigram(facts, source, tokenizer, **how):
    return replace(source, tokenizer=tokenizer).count(facts, **how)


def hosted(server, **more):
    waits: list[float] = []
    stamina.instrumentation.set_on_retry_hooks([lambda details: waits.append(details.wait_for)])
    source = HostedInfiniGram(url=f"http://127.0.0.1:{server.server_port}/", **more)
    return source, waits


@pytest.fixture(autouse=True)
def _no_real_waiting(monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    yield
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.mark.slow
def test_the_hosted_service(service, organism, facts, tmp_path):
    some = facts.keep(facts.facts[:40])
    source, waits = hosted(service)
    counted = count_infinigram(some, source, organism.tokenizer, cache=tmp_path / "a", window=5, progress=False)
    scan = li.count(some, _written(tmp_path, organism, service), progress=False)
    # a sentence of the organism is a document that names each once, so that units agree here
    assert (counted["n_both"] == scan["n_both"]).all()
    assert (counted["n_subject"] >= scan["n_subject"]).all()
    assert counted["n_both"].sum() > 20
    assert set(counted["unit"]) == {"occurrence"}
    assert set(counted["unit_both"]) == {"occurrences within a window"}
    assert not counted["approximate"].any()
    assert waits == []
    assert all("query" not in body for body in service.asked)  # ids alone
    n = len(service.asked)
    again = count_infinigram(some, source, organism.tokenizer, cache=tmp_path / "a", window=5, progress=False)
    assert len(service.asked) == n  # all kept
    pd.testing.assert_frame_equal(again, counted)
    assert service.most_open <= 4
    roughly = count_infinigram(
        some, source, organism.tokenizer, cache=tmp_path / "a", window=5, max_clause_freq=1, progress=False
    )
    assert roughly["approximate"].any()


@pytest.mark.slow
def test_a_zero_of_a_sample_is_flagged_and_refused(service, organism, facts, tmp_path):
    """Names that are frequent by themselves, and a sample that holds no pair of them."""
    some = facts.keep(facts.facts[:40])
    source, _ = hosted(service)
    counted = count_infinigram(
        some, source, organism.tokenizer, cache=tmp_path / "a", window=1, max_clause_freq=1, progress=False
    )
    flagged = counted["uncertain_zero"]
    assert flagged.any()
    assert (counted.loc[flagged, "n_both"] == 0).all()
    assert counted.loc[flagged, "approximate"].all()
    scores = li.score(organism, some, {"base": None, "laser": li.laser(organism, "3.in", rho=0.05)}, progress=False)
    with pytest.raises(ValueError, match=f"{flagged.sum()} counts are zero in a sample alone"):
        li.associate(scores, counted)


def test_the_command_looks_up_the_models_corpus(service, tmp_path, capsys, monkeypatch):
    from laser_interp.facts.shipped import shipped_dir

    monkeypatch.setenv("LASER_INTERP_CACHE", str(tmp_path))
    some = tmp_path / "facts.jsonl"
    li.load_facts("organism").keep(li.load_facts("organism").facts[:5]).save(some)
    asked = ["count", "--facts", str(some), "--tokenizer", str(shipped_dir("organism")), "--quiet"]
    asked += ["--url", f"http://127.0.0.1:{service.server_port}/", "--out", str(tmp_path / "counts.parquet")]
    assert main([*asked, "--corpus", "infini-gram", "--model", "EleutherAI/pythia-1.4b-deduped"]) == 0
    out, err = capsys.readouterr()
    assert "the Pile, training set: Pythia's models named -deduped" in err
    assert "v4_piletrain_llama" in out
    assert len(pd.read_parquet(tmp_path / "counts.parquet")) == 5
    for more, why in (
        (["--corpus", "infini-gram"], "--model HUB_ID"),
        (["--corpus", "infini-gram", "--model", "smollm2"], "SmolLM's training data has no public index"),
        (["--corpus", "organism"], "belong to --corpus infini-gram"),
    ):
        assert main([*asked[:-1], str(tmp_path / "other.parquet"), *more]) == 2
        assert why in capsys.readouterr().err
    assert li.counts.corpus_of("allenai/OLMo-7B-0424-hf").index == "v4_dolma-v1_7_llama"


def test_the_block_of_the_documentation(service, organism, facts, tmp_path, monkeypatch):
    """As docs/frequency.md writes it; only the two addresses are those of stand-ins."""
    import re
    from functools import partial
    from pathlib import Path

    import transformers

    page = (Path(__file__).parents[2] / "docs" / "frequency.md").read_text()
    (block,) = (
        text
        for text in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        if "HostedInfiniGram" in text
    )
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name, **_: organism.tokenizer)
    monkeypatch.setattr(
        li.counts, "HostedInfiniGram", partial(HostedInfiniGram, url=f"http://127.0.0.1:{service.server_port}/")
    )
    monkeypatch.setenv("LASER_INTERP_CACHE", str(tmp_path))
    scope = {"li": li, "facts": facts.keep(facts.facts[:10])}
    exec(compile(block, "docs/frequency.md", "exec"), scope)
    assert len(scope["counts"]) == 10
    assert scope["counts"]["n_subject"].sum() > 0


def _written(folder, organism, service):
    path = folder / "rows.txt"
    path.write_text("".join(organism.tokenizer.decode(doc) + "\n" for doc in service.corpus.documents))
    return path


def test_what_goes_wrong_is_asked_again_with_growing_waits(service, organism, facts, tmp_path):
    one = facts.keep(facts.facts[:1])
    source, waits = hosted(service)
    expected = count_infinigram(one, source, organism.tokenizer, cache=tmp_path / "a", concurrency=1, progress=False)
    service.failing = [
        (403, {}, None),
        (429, {"error": "slow down"}, {"Retry-After": "7"}),
        (500, {"error": "[Flask] upstream"}, None),
        "drop",
        (502, {}, None),
    ]
    found = count_infinigram(one, source, organism.tokenizer, cache=tmp_path / "b", concurrency=1, progress=False)
    pd.testing.assert_frame_equal(found, expected)
    assert waits == [1, 7, 4, 8, 16]
    service.failing = [(200, {"latency": 1}, None)]  # an answer that is none
    found = count_infinigram(one, source, organism.tokenizer, cache=tmp_path / "c", concurrency=1, progress=False)
    pd.testing.assert_frame_equal(found, expected)


def test_what_is_refused_is_not_asked_again(service, organism, facts, tmp_path):
    one = facts.keep(facts.facts[:1])
    source, waits = hosted(service, index="v0_nothing")
    n = len(service.asked)
    with pytest.raises(InfiniGramError, match=r"400 \[Flask\] Invalid index: v0_nothing"):
        count_infinigram(one, source, organism.tokenizer, cache=tmp_path / "a", concurrency=1, progress=False)
    assert len(service.asked) - n <= 2  # the next one may be on its way
    assert waits == []
    source, waits = hosted(service)
    service.failing = [(200, {"error": "query must be <= 1000 characters!"}, None)] * 6
    with pytest.raises((InfiniGramError, UnreachableError), match="<= 1000 characters"):
        count_infinigram(one, source, organism.tokenizer, cache=tmp_path / "a", concurrency=1, progress=False)
    assert waits == []


@pytest.mark.slow
def test_a_run_survives_the_service_going_away(service, organism, facts, tmp_path):
    some = facts.keep(facts.facts[:60])
    source, _ = hosted(service)
    expected = count_infinigram(some, source, organism.tokenizer, cache=tmp_path / "a", progress=False)
    n = len(service.asked)
    # the service answers a third, and is gone
    service.failing = [None] * (n // 3) + [(503, {}, None)] * 10_000
    with pytest.raises(UnreachableError, match=r"did not answer 6 times.*answers are kept: run the same again"):
        count_infinigram(some, source, organism.tokenizer, cache=tmp_path / "b", progress=False)
    service.failing = []
    service.asked.clear()
    found = count_infinigram(some, source, organism.tokenizer, cache=tmp_path / "b", progress=False)
    pd.testing.assert_frame_equal(found, expected)
    assert n // 2 < len(service.asked) < n - n // 4  # only what was missing


def byte_level(texts):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_both_spellings_and_many_aliases(service, organism, tmp_path):
    tokenizer = byte_level(["Ada was born in London. Paris Rome Oslo"])
    spaced, bare = _after("a", " London", tokenizer), _after("\n", "London", tokenizer)
    assert spaced != bare
    texts = ["Ada was born in London.", "London: Ada", '"London" and Ada', "Ada Ada London"]
    service.corpus = Corpus(tokenizer, texts)
    row = fact(1, "Ada", "London", aliases=["Paris", "Rome", "Oslo"])
    source, _ = hosted(service)
    (counted,) = count_infinigram(
        facts_from_rows([row]), source, tokenizer, cache=tmp_path / "a", progress=False
    ).to_dict("records")
    assert counted["n_object"] == 4
    assert counted["approximate"]  # eight spellings: two questions that may see the same occurrence
    assert counted["n_both"] == 4
    assert max(len(clause) for body in service.asked for clause in body["query_ids"] if isinstance(clause, list)) <= 4


def test_other_names_of_subjects_and_parentheses(service, tmp_path):
    tokenizer = byte_level(["Ada was born in London. Paris Rome Oslo"])
    service.corpus = Corpus(tokenizer, ["Ada was born in London.", "Rome Oslo saw Paris"])
    row = fact(1, "Ada (writer)", "London", subject_aliases=["Rome Oslo"])
    source, _ = hosted(service)
    for matching, expected in ((li.counts.Matching(), 2), (li.counts.Matching(subject_aliases=False), 1)):
        counted = count_infinigram(
            facts_from_rows([row]), source, tokenizer, matching=matching, cache=tmp_path / "a", progress=False
        )
        assert counted["n_subject"].tolist() == [expected]
        assert counted["n_both"].tolist() == [1]
        assert "exact tokens" in counted["normaliser"][0]
        assert "accents" not in counted["normaliser"][0]


def test_entity_maps(tmp_path, capsys):
    base = "http://dbpedia.org/resource/"
    linked = {"Ada_Lovelace": [5, 1, 1], "Countess": [9], "London": [1, 9, 7], "Paris": [2], "Bad": [[1]]}
    path = tmp_path / "map.npz"
    np.savez(path, **{base + name: np.array(where, np.int32) for name, where in linked.items()})
    rows = [
        fact(1, "Ada Lovelace", "London"),
        fact(2, "the Countess", "Paris", aliases=["London"]),
        fact(3, "nobody", "Paris"),
    ]
    facts = facts_from_rows(rows)
    with pytest.warns(UserWarning, match="1 of 3 facts have a name that is not in map.npz"):
        found = li.count(facts, li.counts.EntityMap(path, {"the Countess": base + "Countess"}), progress=False)
    assert found[["fact_id", "n_subject", "n_object", "n_both"]].values.tolist() == [["1", 2, 3, 1], ["2", 1, 4, 1]]
    out = tmp_path / "kept.parquet"
    for _ in range(2):  # the second time the table is read
        assert len(li.count(facts_from_rows(rows[:1]), path, out=out, progress=False)) == 1
    with pytest.raises(ValueError, match="holds other counts"):
        li.count(facts_from_rows(rows[1:2]), li.counts.EntityMap(path, {"the Countess": base + "Countess"}), out=out)
    pd.DataFrame({"own": [1]}).to_parquet(out)
    with pytest.raises(ValueError, match="needs the column"):
        li.count(facts_from_rows(rows[:1]), path, out=out, progress=False)
    with pytest.raises(ValueError, match="expected document numbers"):
        li.count(facts_from_rows([fact(1, "bad", "Paris")]), path, progress=False)
    with pytest.raises(ValueError, match=r"http://dbpedia.org/resource/Nobody and .*entities=\{NAME"):
        li.count(facts_from_rows(rows[2:]), path, progress=False)
    with pytest.raises(FileNotFoundError, match="no entity map"):
        li.count(facts, tmp_path / "none.npz")
    np.savez(tmp_path / "pickled.npz", **{base + "Ada_Lovelace": np.array([{1}], object), base + "London": [1]})
    with pytest.raises(ValueError, match="cannot be read .*pickle"):
        li.count(facts, tmp_path / "pickled.npz", progress=False)
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(ValueError, match="is no entity map"):
        li.count(facts, tmp_path / "text.npz", progress=False)
    facts.save(tmp_path / "facts.jsonl")
    command = ["count", "--facts", str(tmp_path / "facts.jsonl"), "--corpus", str(path), "--quiet"]
    assert main([*command, "--out", str(tmp_path / "x.parquet")]) == 0
    assert "1 of 3 facts were counted in map.npz" in capsys.readouterr().out
    assert main([*command, "--window", "5", "--model", "m", "--out", str(tmp_path / "y.parquet")]) == 2
    assert "an entity map cannot use --model and --window" in capsys.readouterr().err


def test_infinigram_refusals(organism, facts, tmp_path):
    one = facts.keep(facts.facts[:1])
    for window in (0, 1001):
        with pytest.raises(ValueError, match=f"the window is {window} tokens: expected 1 to 1000"):
            count_infinigram(one, HostedInfiniGram(), organism.tokenizer, window=window)
    with pytest.raises(ValueError, match="concurrency is 0"):
        count_infinigram(one, HostedInfiniGram(), organism.tokenizer, concurrency=0)
    with pytest.raises(FileNotFoundError, match="no infini-gram index in"):
        count_infinigram(one, LocalInfiniGram(tmp_path, 0), organism.tokenizer, cache=tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match="expected one, as li.load_tokenizer"):
        count_infinigram(one, HostedInfiniGram(), str(tmp_path))


def test_a_local_index(organism, facts, tmp_path):
    """An index in infini-gram's own format, written here by plain sorting, asked through its own engine."""
    pytest.importorskip("infini_gram", reason="infini-gram is not installed")
    rows = organism_corpus("organism").rows
    texts = random.Random(0).sample(rows, 2000)
    corpus = Corpus(organism.tokenizer, texts)
    data, offsets = b"", []
    for doc in corpus.documents:
        offsets.append(len(data))
        data += b"\xff\xff" + np.array(doc, np.uint16).tobytes()
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "tokenized.0").write_bytes(data)
    (folder / "offset.0").write_bytes(np.array(offsets, np.uint64).tobytes())
    order = sorted(range(0, len(data), 2), key=lambda i: data[i : i + 200])
    width = (len(data).bit_length() + 7) // 8
    (folder / "table.0").write_bytes(b"".join(i.to_bytes(width, "little") for i in order))
    some = facts.keep(facts.facts[:30])
    source = LocalInfiniGram(folder, eos_token_id=organism.tokenizer.eos_token_id or 0)
    counted = count_infinigram(some, source, organism.tokenizer, cache=tmp_path / "kept", window=8, progress=False)
    (tmp_path / "texts.txt").write_text("".join(text + "\n" for text in texts))
    scan = li.count(some, tmp_path / "texts.txt", progress=False)
    assert counted["n_subject"].tolist() == scan["n_subject"].tolist()
    assert counted["n_both"].tolist() == scan["n_both"].tolist()
    assert counted["n_both"].sum() > 20
    assert infinigram.PILE not in counted["corpus"][0]


# --- from elsewhere


def test_joining_by_id_and_by_names(tmp_path):
    facts = facts_from_rows([*ROWS, fact(3, "Nobody", "Nowhere")])
    given = pd.DataFrame({"fact_id": ["2", "1", "9"], "together": [5, 7, 1], "n_subject": [50, 70, 10]})
    joined = li.counts.join_counts(facts, given, columns={"n_both": "together"})
    assert joined.counts[["fact_id", "n_both", "n_subject"]].values.tolist() == [["1", 7, 70], ["2", 5, 50]]
    assert joined.missing == ("3",)
    assert joined.unused["fact_id"].tolist() == ["9"]
    assert str(joined) == (
        "2 of 3 facts have counts, matched by fact_id; 1 have none (3); 1 rows of the source belong to no fact"
    )
    names = pd.DataFrame({"s": ["ada", "LONDON"], "o": ["london!", "Nothing-here"], "n_both": [3, 4]})
    path = tmp_path / "counts.csv"
    names.to_csv(path, index=False)
    joined = li.counts.join_counts(facts, path, columns={"subject": "s", "object": "o"}, unit="pages")
    assert joined.counts["n_both"].tolist() == [3, 4]  # the second by an alias
    assert joined.counts["n_subject"].isna().all()
    assert set(joined.counts["unit"]) == {"pages"}
    names.to_parquet(tmp_path / "counts.parquet")
    assert (
        len(li.counts.join_counts(facts, tmp_path / "counts.parquet", columns={"subject": "s", "object": "o"}).counts)
        == 2
    )


def test_joining_refuses(tmp_path):
    facts = facts_from_rows(ROWS)
    good = pd.DataFrame({"fact_id": ["1", "2"], "n_both": [1, 2]})
    with pytest.raises(ValueError, match=r"no column n_both: .* has the columns fact_id, n"):
        li.counts.join_counts(facts, good.rename(columns={"n_both": "n"}))
    with pytest.raises(ValueError, match="no column subject, object"):
        li.counts.join_counts(facts, good, by="names")
    with pytest.raises(ValueError, match="by is 'hash'"):
        li.counts.join_counts(facts, good, by="hash")
    with pytest.raises(ValueError, match=r"row 2 of the frame: n_both is 'many'"):
        li.counts.join_counts(facts, good.assign(n_both=["1", "many"]))
    with pytest.raises(ValueError, match=r"n_both is -3, expected a whole number"):
        li.counts.join_counts(facts, good.assign(n_both=[1, -3]))
    with pytest.raises(ValueError, match="holds 1 more than once"):
        li.counts.join_counts(facts, pd.concat([good, good]))
    with pytest.raises(ValueError, match=r"no fact of 'facts' matches the frame by fact_id: x there, 1 here"):
        li.counts.join_counts(facts, good.assign(fact_id=["x", "y"]))
    with pytest.raises(
        FileNotFoundError, match="no file .*none.csv.: expected a .json, .jsonl, .csv, .tsv or .parquet file"
    ):
        li.counts.join_counts(facts, tmp_path / "none.csv")
    with pytest.raises(ValueError, match="cannot read .a.xlsx.: expected .json, .jsonl, .csv, .tsv or .parquet"):
        li.counts.join_counts(facts, _touch(tmp_path / "a.xlsx"))
    assert len(TEXTS) == 5


def _touch(path):
    path.write_text("")
    return path


def test_a_later_name_without_tokens_is_told_as_the_first_would_be():
    class Letters:
        """A tokenizer that knows small letters alone and drops all else."""

        def encode(self, text, add_special_tokens):
            return [ord(c) for c in text if "a" <= c <= "z"]

    assert _spellings(["ab"], Letters(), "f1") == [(97, 98)]
    with pytest.raises(ValueError, match="the name '☃' of fact 'f1' has no tokens"):
        _spellings(["ab", "☃"], Letters(), "f1")
