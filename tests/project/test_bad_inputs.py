"""What cannot be done rightly is refused in one sentence, before any long work, and nothing of the user's is lost."""

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.facts.shipped import shipped_dir
from laser_interp.frequency.infinigram_sources import _seconds, checked_answer
from laser_interp.scoring.memory import parse_memory
from laser_interp.scoring.scorer import Scorer

FACT = {"fact_id": "a", "subject": "Ann", "relation": "r", "object": "Bob", "prompt": "Ann met"}
LINE = json.dumps(FACT)
HEAD = "fact_id,subject,relation,object,prompt"


def fact(**changes):
    return [{**FACT, **changes}]


def without(key):
    return [{k: v for k, v in FACT.items() if k != key}]


def one_sentence(text):
    """A message for a person: one line, not short, and no traceback."""
    return 15 <= len(text) <= 900 and "Traceback" not in text and text.count("\n") <= 3


# --- fact files and facts --------------------------------------------------------------------------
# name of the file, its bytes, what the message says

FACT_FILES = [
    ("f.jsonl", b"", "is empty"),
    ("f.jsonl", b"\n\n", "is empty"),
    ("f.jsonl", b"{", "line 1 is not valid JSON"),
    ("f.jsonl", LINE.encode() + b"\n{\n", "line 2 is not valid JSON"),
    ("f.jsonl", b"[1]\n", "line 1 is list, expected a JSON object"),
    ("f.jsonl", b"5\n", "line 1 is int"),
    ("f.jsonl", b"null\n", "line 1 is NoneType"),
    ("f.jsonl", LINE.encode().replace(b"Ann", "Änn".encode("latin-1")), "line 1 is not UTF-8"),
    ("f.jsonl", b"\xff\xfe" + LINE.encode("utf-16-le"), "is not UTF-8"),
    ("f.jsonl", b"\x00\x01\x02", "line 1 is not valid JSON"),
    ("f.jsonl", b"\x89PNG\r\n\x1a\n", "is not UTF-8"),
    ("f.jsonl", b"[" * 100_000, "is not valid JSON"),
    ("f.jsonl", LINE.replace("Ann met", r"\ud800 met").encode(), "half a character"),
    ("f.jsonl", json.dumps({**FACT, "frequency": float("nan")}).encode(), "NaN is not a number that JSON knows"),
    ("f.jsonl", json.dumps({**FACT, "frequency": float("inf")}).encode(), "Infinity is not a number"),
    ("f.jsonl", json.dumps({**FACT, "frequency": True}).encode(), "frequency is True, expected a number"),
    ("f.jsonl", json.dumps({**FACT, "paraphrase": "x"}).encode(), "is 'paraphrases' meant?"),
    ("f.jsonl", json.dumps({**FACT, "split": "tset"}).encode(), "is 'test' meant?"),
    ("f.jsonl", (LINE + "\n" + LINE).encode(), "duplicate fact_id 'a'"),
    ("f.csv", b"", "is empty"),
    ("f.csv", HEAD.encode(), "is empty"),
    ("f.csv", b"a,b\n1,2\n", "has no column subject"),
    ("f.csv", f"{HEAD}\n1,2,3,4,5,6\n".encode(), "line 2 has 6 cells and the header 5"),
    ("f.csv", f"{HEAD}\n1,2,3\n".encode(), "line 2 has 3 cells and the header 5"),
    ("f.csv", f'{HEAD}\n1,2,3,4,"5\n'.encode(), "not readable csv"),
    ("f.csv", f"{HEAD}\n1,Ü,3,4,5\n".encode("latin-1"), "is not UTF-8"),
    ("f.csv", f"{HEAD},subject\n1,2,3,4,5,6\n".encode(), "the column 'subject' twice"),
    ("f.csv", f"{HEAD},Frequency\n1,2,3,4,5,6\n".encode(), "is 'frequency' meant?"),
    ("f.csv", f"{HEAD},paraphrases\n1,2,3,4,5,oops\n".encode(), "expected a JSON list of texts"),
    ("f.csv", f"{HEAD},frequency\n1,2,3,4,5,many\n".encode(), "frequency is 'many', expected a number"),
    ("f.csv", f"{HEAD}\n1,,3,4,5\n".encode(), "missing subject"),
    ("f.parquet", b"PAR1", "is not a readable parquet file"),
    ("f.parquet", b"", "is not a readable parquet file"),
    ("f.txt", b"hello", "the suffix must be .jsonl, .csv or .parquet"),
    ("f", b"hello", "the suffix must be"),
]


@pytest.mark.parametrize(("name", "data", "says"), FACT_FILES)
def test_fact_files(tmp_path, capsys, name, data, says):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match="") as error:
        li.load_facts(path)
    assert says in str(error.value)
    assert one_sentence(str(error.value))
    assert main(["study", "--model", "organism", "--facts", str(path), "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert path.read_bytes() == data
    assert not (tmp_path / "out").exists()


FACTS = [
    (without("subject"), "missing subject"),
    (without("prompt"), "missing prompt"),
    (fact(subject=["a", "b"]), "expected a text"),
    (fact(subject={"a": 1}), "expected a text"),
    (fact(subject=True), "expected a text"),
    (fact(subject=""), "empty 'subject'"),
    (fact(subject="  "), "empty 'subject'"),
    (fact(object=""), "empty 'object'"),
    (fact(prompt=" "), "empty 'prompt'"),
    (fact(frequency=-5), "expected a number of 0 or more"),
    (fact(frequency=float("inf")), "expected a number of 0 or more"),
    (fact(frequency=True), "expected a number"),
    (fact(frequency="many"), "expected a number"),
    (fact(frequency=10**400), "expected a number"),
    (fact(paraphrases=5), "expected a list of texts"),
    (fact(paraphrases=[""]), "an empty text"),
    (fact(paraphrases=[None]), "expected a list of texts"),
    (fact(aliases={"x": 1}.items()), "expected a list of texts"),
    (fact(split="Test "), "is 'test' meant?"),
    (fact(split="dev"), "expected validation or test"),
    ([{**FACT, "split": "test"}, {**FACT, "fact_id": "b"}], "have no split and the others have one"),
    ([], "is empty"),
    (fact(canditates=["x"]), "is 'candidates' meant?"),
]


@pytest.mark.parametrize(("rows", "says"), FACTS)
def test_facts(rows, says):
    with pytest.raises(ValueError, match="") as error:
        li.load_facts(rows)
    assert says in str(error.value)
    assert one_sentence(str(error.value))


# --- Python ----------------------------------------------------------------------------------------
# (what is called with model, facts, tmp_path), what the message says

SCORES = pd.DataFrame(
    {"fact_id": ["a"], "subject": ["s"], "relation": ["r"], "before": [0], "after": [1], "n_both": [3]}
)
CALLS = {
    "rank is a fraction": (lambda m, f, t: li.laser(m, "3.in", rank=1.5), "expected a whole number of directions"),
    "rank 0": (lambda m, f, t: li.laser(m, "3.in", rank=0), "has ranks 1 to 64"),
    "rank too large": (lambda m, f, t: li.laser(m, "3.in", rank=65), "has ranks 1 to 64"),
    "rank True": (lambda m, f, t: li.laser(m, "3.in", rank=True), "expected a whole number"),
    "rho 0": (lambda m, f, t: li.laser(m, "3.in", rho=0), "must lie in (0, 1]"),
    "rho nan": (lambda m, f, t: li.laser(m, "3.in", rho=float("nan")), "must lie in (0, 1]"),
    "rho rounds to 0": (lambda m, f, t: li.laser(m, "3.in", rho=0.001), "rounds to rank 0"),
    "rho and rank": (lambda m, f, t: li.laser(m, "3.in", rho=0.1, rank=3), "exactly one"),
    "neither": (lambda m, f, t: li.laser(m, "3.in"), "exactly one"),
    "no site": (lambda m, f, t: li.laser(m, [], rho=0.1), "no sites given"),
    "site text": (lambda m, f, t: li.laser(m, "3in", rho=0.1), "expected LAYER.MATRIX"),
    "site layer": (lambda m, f, t: li.laser(m, "9.in", rho=0.1), "layers 0 to 3"),
    "site matrix": (lambda m, f, t: li.laser(m, "3.gate", rho=0.1), "has no matrix 'gate'"),
    "several sites": (lambda m, f, t: li.spectrum(m, "*.in"), "names 4 sites"),
    "band": (lambda m, f, t: li.band(m, "3.in", 5, 5), "expected 0 <= start < stop"),
    "band above": (lambda m, f, t: li.band(m, "3.in", 0, 99), "stop <= 64"),
    "gains length": (lambda m, f, t: li.gains(m, {"3.in": [1.0]}), "expected 64"),
    "gains nan": (lambda m, f, t: li.gains(m, {"3.in": [float("nan")] * 64}), "not all finite"),
    "gains none": (lambda m, f, t: li.gains(m, {}), "no gains given"),
    "gains twice": (lambda m, f, t: li.gains(m, {"3.in": [1.0] * 64, li.Site(3, "in"): [1.0] * 64}), "named twice"),
    "discarded share": (lambda m, f, t: li.laser(m, "3.in", rank=3).discarded(0), "must lie in (0, 1]"),
    "discarded start": (lambda m, f, t: li.laser(m, "3.in", rank=3).discarded(start="x"), "expected 'bottom' or 'top'"),
    "discards nothing": (lambda m, f, t: li.laser(m, "3.in", rho=1).discarded(), "discards nothing"),
    "inject nan": (lambda m, f, t: li.laser(m, "3.in", rank=3).inject(float("nan")), "expected a finite number"),
    "via": (lambda m, f, t: li.laser(m, "3.in", rank=3).via("x"), "expected one of network"),
    "at": (lambda m, f, t: li.laser(m, "3.in", rank=3).at(m, "first", f), "expected one of last"),
    "same site": (lambda m, f, t: li.laser(m, "3.in", rank=3) + li.laser(m, "3.in", rank=5), "both edits act on 3.in"),
    "other model": (lambda m, f, t: li.laser(other(), "3.in", rank=3).check(m), "made from other weights"),
    "no prompts": (lambda m, f, t: m.next_token_logprobs([]), "no prompts given"),
    "empty prompt": (lambda m, f, t: m.next_token_logprobs(""), "must not be empty"),
    "nothing continued": (lambda m, f, t: li.continuations(m, [], li.laser(m, "3.in", rank=3)), "at least one"),
    "patched, then placed": (
        lambda m, f, t: li.laser(m, "3.in", rank=3).patched(m, {f[0].prompt: f[1].prompt}).at(m, "last", f[:2]),
        "make other edits of it before it is patched",
    ),
    "ablation of nothing": (
        lambda m, f, t: li.attribute(m, f[:2], "3.in").against_ablation(m, f[:2], block=0),
        "expected 1 or more directions",
    ),
    "window of half a token": (lambda m, f, t: li.perplexity(m, "Mira Tolen was", window=2.5), "a whole number"),
    "stride of half a token": (lambda m, f, t: li.perplexity(m, "Mira Tolen was", stride=0.5), "a whole number"),
    "memory nan": (lambda m, f, t: li.score(m, f[:2], {"x": None}, memory=float("nan")), "at least a megabyte"),
    "template of a fact set": (lambda m, f, t: li.load_facts(f, template="{subject}"), "a fact set or a file has its"),
    "learned from one fact": (
        lambda m, f, t: li.search(m, f.keep([*f.split("test")[:2], f.split("validation")[0]]), method="learned"),
        "needs two validation facts",
    ),
    "control model without the sites": (
        lambda m, f, t: li.study(m, f[:20], matrices="in", control_model=(li.load_model("organism-experts"), f)),
        "the control model 'organism-experts' has no 0.in, which the study may choose",
    ),
    "long prompt": (lambda m, f, t: m.next_token_logprobs("Mira " * 99), "positions: shorten it"),
    "no new tokens": (lambda m, f, t: m.generate("Mira", 0), "expected 1 or more"),
    "generate seed": (lambda m, f, t: m.generate("Mira", 1, seed=-1), "expected a whole number of 0 or more"),
    "score nothing": (lambda m, f, t: li.score(m, f, {}), "no edits given"),
    "score no list": (lambda m, f, t: li.score(m, f, []), None),
    "score text": (lambda m, f, t: li.score(m, f, ["3.in:0.05"]), "is no edit"),
    "score alike": (lambda m, f, t: li.score(m, f, [li.zeroed(m, "3.in")] * 2), "two of the edits are alike"),
    "score engine": (lambda m, f, t: li.score(m, f, {"base": None}, engine="quick"), "expected one of fast"),
    "memory": (lambda m, f, t: parse_memory("lots", m), "expected a number of bytes"),
    "memory points": (lambda m, f, t: parse_memory("1.2.3GB", m), "expected a number before the unit"),
    "memory small": (lambda m, f, t: parse_memory(5, m), "at least a megabyte"),
    "memory infinite": (lambda m, f, t: parse_memory("9" * 400 + "GB", m), "memory is"),
    "top_k": (lambda m, f, t: Scorer(m, f, top_k=10**9), "the size of the vocabulary"),
    "generic": (lambda m, f, t: li.score(m, f, {"base": None}, generic=["🦖"]), "cannot be written"),
    "answer": (lambda m, f, t: li.score(m, li.load_facts(fact(object="🦖")), {"base": None}), "cannot be written"),
    "perplexity text": (lambda m, f, t: li.perplexity(m, "Mira"), "at least two"),
    "perplexity window": (lambda m, f, t: li.perplexity(m, "Mira Tolen was", window=1), "expected 2 or more"),
    "attribution memory": (lambda m, f, t: li.attribute(m, f[:2], memory="1MB"), None),
    "attribution sites": (lambda m, f, t: li.attribute(m, f, "9.in"), "layers 0 to 3"),
    "search rhos": (lambda m, f, t: li.search(m, f, rhos=[]), "rhos is empty"),
    "search rho": (lambda m, f, t: li.search(m, f, rhos=[2]), "must lie in (0, 1]"),
    "search layers": (lambda m, f, t: li.search(m, f, layers=[]), "layers is empty"),
    "search layer": (lambda m, f, t: li.search(m, f, layers=[9]), "layers 0 to 3"),
    "search matrices": (lambda m, f, t: li.search(m, f, matrices=[]), "matrices is empty"),
    "search matrix": (lambda m, f, t: li.search(m, f, matrices="gate"), "has no matrix 'gate'"),
    "search control": (lambda m, f, t: li.search(m, f, controls=["x"]), "unknown controls x"),
    "search band": (lambda m, f, t: li.search(m, f, bands=["5:2"]), "expected 0 <= start < stop"),
    "search alpha": (lambda m, f, t: li.search(m, f, alphas=[float("inf")]), "expected finite numbers"),
    "search seed": (lambda m, f, t: li.search(m, f, seed=-1), "expected a whole number of 0 or more"),
    "search setting": (lambda m, f, t: li.search(m, f, rho=[0.1]), "there is no setting 'rho'"),
    "search executor": (lambda m, f, t: li.search(m, f, executor="slurm"), "expected one of local, ray"),
    "search memory": (lambda m, f, t: li.search(m, f, memory="x"), "expected a number of bytes"),
    "one split": (lambda m, f, t: li.search(m, f.split("test")), "in the split 'validation'"),
    "study rule": (lambda m, f, t: li.study(m, f, task="x"), "expected one of next_token"),
    "revision of a model in memory": (lambda m, f, t: li.load_model(m.bridge, revision="x"), "revision cannot be used"),
    "device_map of a file": (
        lambda m, f, t: li.load_model(gguf_file(t), device_map="auto"),
        "cannot be used with a GGUF",
    ),
    "count nothing": (lambda m, f, t: li.count(f, []), "no corpus was given"),
    "count nowhere": (lambda m, f, t: li.count(f, t / "no.jsonl"), "no.jsonl"),
    "count window": (lambda m, f, t: li.count(f, "organism", window=10**20), "expected 0"),
    "count window below 0": (lambda m, f, t: li.count(f, "organism", window=-1), "expected 0"),
    "count workers": (lambda m, f, t: li.count(f, "organism", workers=0), "at least one"),
    "count longest": (lambda m, f, t: li.count(f, "organism", longest=3), "longest is 3: expected"),
    "count errors": (lambda m, f, t: li.count(f, "organism", errors="x"), "expected one of raise, skip"),
    "count out": (lambda m, f, t: li.count(f, "organism", out=t / "c.csv"), "ends in .parquet"),
    "count long name": (
        lambda m, f, t: li.count(li.load_facts(fact(subject="word " * 200_000)), "organism"),
        "expected at most 100",
    ),
    "count no word": (lambda m, f, t: li.count(li.load_facts(fact(subject="!!!")), "organism"), "has no word"),
    "infini-gram window": (
        lambda m, f, t: li.count(f, li.counts.HostedInfiniGram(tokenizer=m.tokenizer), window=0),
        "expected 1 to 1000",
    ),
    "infini-gram tokenizer": (
        lambda m, f, t: li.count(f, li.counts.HostedInfiniGram(tokenizer="llama")),
        "li.load_tokenizer",
    ),
    "index": (lambda m, f, t: li.counts.Index(t), "no index in"),
    "report columns": (lambda m, f, t: li.frequency_report(SCORES.drop(columns="subject")), "has no column subject"),
    "report empty": (lambda m, f, t: li.frequency_report(SCORES.head(0)), "the frame is empty"),
    "report values": (lambda m, f, t: li.frequency_report(SCORES.assign(before=3)), "expected 0/1"),
    "report negative": (lambda m, f, t: li.frequency_report(SCORES.assign(n_both=-1)), "negative"),
    "report infinite": (lambda m, f, t: li.frequency_report(SCORES.assign(n_both=np.inf)), "infinite"),
    "report missing": (lambda m, f, t: li.frequency_report(SCORES.assign(n_both=np.nan)), "no frequency for 1 facts"),
    "report missing name": (lambda m, f, t: li.frequency_report(SCORES.assign(subject=None)), "subject is missing"),
    "counts twice": (lambda m, f, t: li.associate(scores_of(m, f), pd.Series([1, 2], ["a", "a"])), "more than once"),
    "counts missing": (lambda m, f, t: li.associate(scores_of(m, f), {"a": 1}), "no frequency for"),
    "counts columns": (lambda m, f, t: li.associate(scores_of(m, f), pd.DataFrame({"fact_id": ["a"]})), "'n_both'"),
    "no label": (lambda m, f, t: li.associate(scores_of(m, f), edit="x"), "no scores of edit='x'"),
    "split share": (lambda m, f, t: f.with_split(1.5), "must lie in (0, 1)"),
    "split by": (lambda m, f, t: f.with_split(by="x"), "expected 'subject' or 'order'"),
    "no such split": (lambda m, f, t: f.split("dev"), "in the split 'dev'"),
    "rho text": (lambda m, f, t: li.laser(m, "3.in", rho="half"), "rho is 'half': expected a number"),
    "rho True": (lambda m, f, t: li.laser(m, "3.in", rho=True), "rho is True: expected a number"),
    "band fraction": (lambda m, f, t: li.band(m, "3.in", 1.5, 3), "start is 1.5: expected a whole number"),
    "site fraction": (lambda m, f, t: li.Site(1.5, "in"), "layer is 1.5: expected a whole number"),
    "site True": (lambda m, f, t: li.Site(True, "in"), "layer is True"),
    "site number": (lambda m, f, t: li.laser(m, 3, rank=3), "expected LAYER.MATRIX"),
    "layer True": (lambda m, f, t: li.search(m, f, layers=[True]), "layers is True: expected a whole number"),
    "layers too many": (lambda m, f, t: li.search(m, f, layers="0-999999999"), "at most 10000 numbers"),
    "layer of many digits": (lambda m, f, t: li.search(m, f, layers="9" * 5000), "expected 'all' or numbers"),
    "rhos True": (lambda m, f, t: li.search(m, f, rhos=[True]), "rhos is True: expected a number"),
    "rhos text": (lambda m, f, t: li.search(m, f, rhos=["half"]), "rhos has 'half': expected numbers"),
    "search seed fraction": (lambda m, f, t: li.search(m, f, seed=1.5), "seed is 1.5"),
    "control seed": (lambda m, f, t: li.search(m, f, control_seeds=[1.5]), "control_seeds is 1.5"),
    "control edit's seed": (
        lambda m, f, t: li.controls.random_kept(m, li.laser(m, "0.in", 0.1), seed=1.5),
        "seed is 1.5",
    ),
    "split's seed": (lambda m, f, t: f.with_split(seed=1.5), "seed is 1.5"),
    "drawn facts' seed": (lambda m, f, t: f.draw(2, seed=1.5), "seed is 1.5"),
    "workers": (lambda m, f, t: li.search(m, f, executor="ray", workers=1.5), "workers is 1.5"),
    "bins": (lambda m, f, t: li.associate(scores_of(m, f), n_bins=1.5), "n_bins is 1.5"),
    "permutations": (lambda m, f, t: li.associate(scores_of(m, f), n_permutations=True), "n_permutations is True"),
    "change's seed": (lambda m, f, t: li.change(scores_of(m, f), seed=1.5), "seed is 1.5"),
    "longest line": (lambda m, f, t: li.count(f, "organism", longest=2e6), "longest is 2000000.0"),
    "candidates": (lambda m, f, t: li.search(m, f, candidates="no"), "candidates is 'no': expected True or False"),
    "most edits": (lambda m, f, t: li.compose(m, f, most_edits=1.5), "most_edits is 1.5: expected a whole number"),
    "most edits True": (lambda m, f, t: li.compose(m, f, most_edits=True), "most_edits is True"),
    "new tokens": (lambda m, f, t: m.generate("Mira", 1.5), "max_new_tokens is 1.5: expected a whole number"),
    "count workers True": (lambda m, f, t: li.count(f, "organism", workers=True), "workers is True"),
    "count workers fraction": (lambda m, f, t: li.count(f, "organism", workers=1.5), "workers is 1.5"),
    "count window True": (lambda m, f, t: li.count(f, "organism", window=True), "window is True"),
    "count window text": (lambda m, f, t: li.count(f, "organism", window="5"), "window is '5'"),
    "study share": (lambda m, f, t: li.study(m, f, shares=[2]), "shares has 2: each part"),
    "study share 0": (lambda m, f, t: li.study(m, f, shares=0), "shares has 0"),
    "study shares none": (lambda m, f, t: li.study(m, f, shares=[]), "shares is empty"),
    "study strength": (lambda m, f, t: li.study(m, f, strengths=[float("nan")]), "strengths has nan"),
    "study seed": (lambda m, f, t: li.study(m, f, study_seed=-1), "study_seed is -1: expected a whole number"),
    "study draws": (lambda m, f, t: li.study(m, f, n_draws=1.5), "n_draws is 1.5: expected a whole number"),
    "study permutations": (lambda m, f, t: li.study(m, f, n_permutations=True), "n_permutations is True"),
    "study attributed": (lambda m, f, t: li.study(m, f, attributed=1.5), "attributed is 1.5"),
    "study text empty": (lambda m, f, t: li.study(m, f, text=""), "the text has 0 tokens"),
    "study text of a word": (lambda m, f, t: li.study(m, f, text="Mira"), "at least two are needed"),
    "study one fact": (lambda m, f, t: li.study(m, f.split("validation")), "in the split 'test'"),
    "study counts of others": (
        lambda m, f, t: li.study(m, f, pd.DataFrame({"fact_id": ["x"], "n_both": [1]})),
        "none of the 200 test facts",
    ),
    "study counts nan": (
        lambda m, f, t: li.study(m, f, pd.DataFrame({"fact_id": ["x"], "n_both": [np.nan]})),
        "no number for any fact",
    ),
    "study counts text": (
        lambda m, f, t: li.study(m, f, pd.DataFrame({"fact_id": ["x"], "n_both": ["many"]})),
        "'many' for n_both",
    ),
    "study counts negative": (
        lambda m, f, t: li.study(m, f, pd.DataFrame({"fact_id": ["x"], "n_both": [-1]})),
        "-1 for n_both",
    ),
    "study counts twice": (
        lambda m, f, t: li.study(m, f, pd.DataFrame({"fact_id": ["x", "x"], "n_both": [1, 2]})),
        "more than once",
    ),
    "study counts list": (lambda m, f, t: li.study(m, f, [1, 2]), "the counts are a list"),
    "study counts nowhere": (lambda m, f, t: li.study(m, f, t / "no.parquet"), "no table of counts"),
    "study control": (lambda m, f, t: li.study(m, f, control_model=m), "control_model is no pair"),
    "study control swapped": (lambda m, f, t: li.study(m, f, control_model=(f, m)), "the model is a FactSet"),
    "laser of a name": (lambda m, f, t: li.laser("organism", "3.in", rank=3), "the model is 'organism'"),
    "score of a name": (lambda m, f, t: li.score("organism", f, None), "the model is 'organism'"),
    "score swapped": (lambda m, f, t: li.score(f, m, None), "the model is a FactSet"),
    "score of an edit's text": (lambda m, f, t: li.score(m, f, "3.in:0.05"), "the edit is the text '3.in:0.05'"),
    "search of a name": (lambda m, f, t: li.search("organism", f), "the model is 'organism'"),
    "study of a name": (lambda m, f, t: li.study("organism", f), "the model is 'organism'"),
    "attribute of a name": (lambda m, f, t: li.attribute("organism", f), "the model is 'organism'"),
    "facts of a number": (lambda m, f, t: li.score(m, 5, None), "the facts are a int"),
    "facts of a dictionary": (lambda m, f, t: li.count({"subject": "x"}, "organism"), "the facts are a dict"),
    "facts of another name": (lambda m, f, t: li.search(m, "organsim"), "is 'organism' meant?"),
    "revision of a shipped model": (lambda m, f, t: li.load_model("organism", revision="x"), "revision cannot be used"),
    "revision of a folder": (
        lambda m, f, t: li.load_model(shipped_dir("organism"), revision="x"),
        "expected only with hub ids",
    ),
    "tokenizer of nothing": (lambda m, f, t: li.load_tokenizer(""), "no tokenizer comes with"),
    "search out empty": (lambda m, f, t: li.search(m, f, matrices="in", layers=[3], out=""), "output is empty"),
    "study out empty": (lambda m, f, t: li.study(m, f, out=""), "output is empty"),
    "out below a file": (lambda m, f, t: li.study(m, f, out=gguf_file(t) / "x"), "is a file, not a folder"),
    "out where nothing can be": (lambda m, f, t: li.export_dense(m, li.zeroed(m, "3.in"), "/proc/x"), "takes no files"),
    "corpus without a name": (lambda m, f, t: li.count(f, ""), "a corpus has an empty name"),
    "separator": (lambda m, f, t: li.load_facts(fact(), separator="-"), "separator is '-'"),
    "save suffix": (lambda m, f, t: f.save(t / "facts.xlsx"), "must be .jsonl, .csv or .parquet"),
    "model source": (lambda m, f, t: li.load_model(5), "expected a name, a folder"),
    "model nowhere": (lambda m, f, t: li.load_model(t / "none"), "no model folder"),
    "model empty folder": (lambda m, f, t: li.load_model(t), "holds no model"),
    "model device": (lambda m, f, t: li.load_model("organism", device="bogus"), "expected auto, cpu"),
    "model dtype": (lambda m, f, t: li.load_model("organism", dtype="int8"), "dtype is 'int8'"),
    "model torch dtype": (lambda m, f, t: li.load_model("organism", dtype=torch.int8), "dtype is torch.int8"),
    "model tokenizer": (lambda m, f, t: li.load_model("organism", tokenizer="gpt2"), "li.load_tokenizer"),
    "tokenizer nowhere": (lambda m, f, t: li.load_tokenizer(t), "no tokenizer comes with"),
    "score a text": (lambda m, f, t: li.score(m, f, {"base": None, "l": "3.in"}), "the edit 'l' is '3.in': expected"),
    "report of an object": (
        lambda m, f, t: li.write_report(f, t / "a.html"),
        "expected the folder that its out= wrote",
    ),
    "a study that was not saved": (
        lambda m, f, t: li.write_report(None, t / "a.html"),
        "the run is a NoneType: expected the folder",
    ),
    "random control of pruning": (
        lambda m, f, t: li.controls.random_kept(m, li.controls.pruned(m, "3.in", 0.9), seed=0),
        "keeps no number of directions",
    ),
    "control at its own site": (
        lambda m, f, t: li.controls.same_rank_in_layer(m, li.laser(m, "3.in", rank=1), layer=3),
        "which is a site of the edit itself",
    ),
    "corpus of a model": (lambda m, f, t: li.counts.corpus_of(m), "expected its hub id"),
    "counts of the organism": (lambda m, f, t: li.load_counts("organism"), "'wikidata' is shipped"),
    "task name": (lambda m, f, t: li.tasks.load_task("counterfacts"), "no set 'counterfacts'"),
    "task file": (lambda m, f, t: li.tasks.load_task("counterfact", t / "x.json"), "no file"),
    "task protocol": (
        lambda m, f, t: li.tasks.load_task("fever", t / "x.json", protocol="x"),
        "expected one of corrected",
    ),
    "export folder": (
        lambda m, f, t: li.export_dense(m, li.laser(m, "3.in", rank=3), shipped_dir("organism")),
        "exists",
    ),
    "seconds": (lambda m, f, t: refuse(_seconds("nan") is None), "refused"),
    "a negative count": (lambda m, f, t: refuse(checked_answer(-3, False) is None), "refused"),
    "a true count": (lambda m, f, t: refuse(checked_answer(True, False) is None), "refused"),
    "a huge count": (lambda m, f, t: refuse(checked_answer(10**30, False) is None), "refused"),
}


def gguf_file(folder):
    """A file of that name, which is not read."""
    (folder / "m.gguf").write_bytes(b"GGUF")
    return folder / "m.gguf"


def other():
    return li.load_model("organism-control", device="cpu")


def scores_of(model, facts):
    return li.score(model, facts[:6], {"base": None, "laser": li.laser(model, "3.in", rank=3)}, progress=False)


def refuse(refused):
    raise ValueError("refused, as it should be" if refused else "accepted, as it should not be")


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_python(organism, facts, tmp_path, name):
    call, says = CALLS[name]
    if says is None:
        call(organism, facts, tmp_path)  # what is natural works
        return
    with pytest.raises((ValueError, OSError, TypeError, KeyError), match="") as error:
        call(organism, facts, tmp_path)
    assert says in str(error.value)
    assert one_sentence(str(error.value))


# --- checkpoints -----------------------------------------------------------------------------------


def config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(folder, change):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    stored = load_file(path)
    save_file(change(stored) or stored, path, {"format": "pt"})


def with_nan(stored):
    stored["transformer.h.1.mlp.c_fc.weight"][0, 0] = float("nan")


class Evil:
    """Unpickled, it would end the tests."""

    def __reduce__(self):
        return (exit, (1,))


def evil(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")


BIN = "transformer.h.1.mlp.c_fc.weight"
CHECKPOINTS = {
    "more layers": (lambda p: config(p, n_layer=6), "24 weights are missing (transformer.h.4"),
    "fewer layers": (lambda p: config(p, n_layer=2), "belong to no part of the model (transformer.h.2"),
    "wider": (lambda p: config(p, n_embd=128), "have another shape"),
    "one missing": (lambda p: weights(p, lambda w: {k: v for k, v in w.items() if k != BIN}), f"are missing ({BIN})"),
    "renamed": (lambda p: weights(p, lambda w: {f"x.{k}": v for k, v in w.items()}), "are missing"),
    "one more": (lambda p: weights(p, lambda w: {**w, "foo": torch.zeros(2)}), "belong to no part of the model (foo)"),
    "nan": (lambda p: weights(p, with_nan), f"the weight {BIN} of"),
    "empty": (lambda p: (p / "model.safetensors").write_bytes(b""), "is empty"),
    "truncated": (lambda p: (p / "model.safetensors").write_bytes(b"x" * 1000), "they are damaged"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "cannot load the weights"),
    "pickled code": (evil, "cannot be read"),
    "architecture": (lambda p: config(p, architectures=["NopeForCausalLM"]), "which transformers does not have"),
    "architectures": (lambda p: config(p, architectures=5), "expected names of classes"),
    "model type": (lambda p: config(p, model_type="nope"), "cannot load the model"),
    "code beside it": (lambda p: config(p, model_type="own", auto_map={"AutoConfig": "own.C"}), "custom code"),
    "activation": (lambda p: config(p, activation_function="foo"), "foo"),
    "vocabulary": (lambda p: config(p, vocab_size=10), "have another shape"),
    "heads": (lambda p: config(p, n_head=5), "must be divisible"),
    "text for a number": (lambda p: config(p, n_layer="four"), "expected int"),
    "quantised": (lambda p: config(p, quantization_config={"quant_method": "awq", "bits": 4}), "quantised"),
    "config": (lambda p: (p / "config.json").write_text("{"), "not a valid JSON"),
    "config list": (lambda p: (p / "config.json").write_text("[]"), "cannot load the model"),
    "tokenizer": (lambda p: (p / "tokenizer.json").write_text("{"), "no tokenizer comes with"),
    "generic words": (lambda p: (p / "generic_words.json").write_text("5"), "is not a JSON list of words"),
    "generic json": (lambda p: (p / "generic_words.json").write_text("["), "not readable as JSON"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(tmp_path, capsys, name):
    spoil, says = CHECKPOINTS[name]
    folder = tmp_path / "model"
    shutil.copytree(shipped_dir("organism"), folder)
    spoil(folder)
    with pytest.raises((ValueError, OSError), match="") as error:
        li.load_model(folder, device="cpu")
    assert says in str(error.value)
    assert one_sentence(str(error.value))
    words = ["export", "--model", str(folder), "--edit", "3.in:0.05", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- the command line ------------------------------------------------------------------------------

MODEL = ["--model", "organism", "--device", "cpu"]
BOTH = [*MODEL, "--facts", "organism"]
COMMANDS = {
    "unknown command": (["serach"], "Did you mean"),
    "no facts": (["search", *MODEL, "--out", "x"], "--facts"),
    "unknown option": (["search", *BOTH, "--out", "x", "--layer", "3"], "--layer"),
    "no out": (["search", *BOTH], "--out is missing"),
    "rho": (["search", *BOTH, "--out", "x", "--rho", "2"], "must lie in (0, 1]"),
    "steps of several trainings": (
        ["trajectory", "organism@100", "organism@200", "--facts", "organism", "--steps", "100", "--out", "x"],
        "--steps chooses among the checkpoints of one training",
    ),
    "rho text": (["search", *BOTH, "--out", "x", "--rho", "half"], "unable to convert"),
    "layers": (["search", *BOTH, "--out", "x", "--layers", "5-2"], "expected 'all' or numbers"),
    "device": (
        ["search", "--model", "organism", "--facts", "organism", "--out", "x", "--device", "bogus"],
        "expected auto, cpu",
    ),
    "no model": (["search", "--model", "nowhere/at/all", "--facts", "organism", "--out", "x"], "no model folder"),
    "edit": (["discarded", *BOTH, "--edit", "3.in", "--out", "a.parquet"], "SITE:RHO"),
    "edit rank": (["discarded", *BOTH, "--edit", "3.in:rank=1.5", "--out", "a.parquet"], "SITE:RHO"),
    "edit site": (["discarded", *BOTH, "--edit", "9.in:0.1", "--out", "a.parquet"], "layers 0 to 3"),
    "discards nothing": (["discarded", *BOTH, "--edit", "3.in:1", "--out", "a.parquet"], "discards nothing"),
    "suffix": (["discarded", *BOTH, "--edit", "3.in:0.05", "--out", "a.xlsx"], "must be .parquet or .csv or .jsonl"),
    "directions suffix": (["attribute", *BOTH, "--out", "a"], "must be .parquet"),
    "counts suffix": (["count", "--facts", "organism", "--corpus", "organism", "--out", "a.csv"], "must be .parquet"),
    "page suffix": (["report", ".", "-o", "a.txt"], "must be .html"),
    "neither": (["count", "--facts", "organism", "--out", "a.parquet"], "expected either --corpus"),
    "no corpus": (["count", "--facts", "organism", "--corpus", "no.jsonl", "--out", "a.parquet"], "no.jsonl"),
    "no index": (["count", "--facts", "organism", "--index", "no", "--out", "a.parquet"], "no index in"),
    "index in processes": (
        ["count", "--facts", "organism", "--index", "no", "--workers", "2", "--document", "file", "--out", "a.parquet"],
        "an index cannot use --document and --workers",
    ),
    "service that reads no files": (
        ["count", "--facts", "organism", "--corpus", "infini-gram:v4", "--skip", "--out", "a.parquet"],
        "infini-gram cannot use --skip",
    ),
    "map without matching": (
        ["count", "--facts", "organism", "--corpus", "m.npz", "--no-fold-accents", "--out", "a.parquet"],
        "an entity map cannot use --no-fold-accents",
    ),
    "rule of a set": (["study", *MODEL, "--task", "fever", "--rule", "generation", "--out", "x"], "with its own"),
    "data of facts": (["study", *BOTH, "--data", "x.json", "--out", "x"], "--data and --protocol are for --task"),
    "counts and corpus": (
        ["analyse", "rare_facts", "--counts", "c.parquet", "--corpus", "organism"],
        "both were given: leave one out",
    ),
    "directions of two sites": (["analyse", "directions", "--edit", "3.in:0.1 + 3.out:0.1"], "looks at one matrix"),
    "window": (
        ["count", "--facts", "organism", "--corpus", "organism", "--window", "1" + "0" * 20, "--out", "a.parquet"],
        "expected 0",
    ),
    "limit": (["study", *BOTH, "--limit", "-1", "--out", "x"], "limit is -1"),
    "limit 0": (["study", *BOTH, "--limit", "0", "--out", "x"], "limit is 0"),
    "no facts at all": (["study", *MODEL, "--out", "x"], "either --facts"),
    "task": (["study", *MODEL, "--task", "nope", "--out", "x"], "no set 'nope'"),
    "rule": (["study", *BOTH, "--rule", "nope", "--out", "x"], "nope"),
    "counts": (["study", *BOTH, "--counts", "no.parquet", "--out", "x"], "no.parquet: make one, by li.count"),
    "text": (["study", *BOTH, "--text", "no.txt", "--out", "x"], "no.txt"),
    "no run": (["report", "nowhere", "-o", "r.html"], "no finished run"),
    "no tables": (["figures", "nowhere"], "no tables in"),
    "style": (["figures", "nowhere", "--style", "x"], ""),
    "analysis": (["analyse", "nope"], "nope"),
    "layers too many": (["search", *BOTH, "--out", "x", "--layers", "0-999999999"], "at most 10000 numbers"),
    "control seeds": (["search", *BOTH, "--out", "x", "--control-seeds", "x"], "control-seeds is ['x']"),
    "seed fraction": (["search", *BOTH, "--out", "x", "--seed", "1.5"], "--seed is '1.5': expected a whole number"),
    "workers fraction": (["search", *BOTH, "--out", "x", "--workers", "1.5"], "--workers is '1.5'"),
    "limit fraction": (["study", *BOTH, "--out", "x", "--limit", "1.5"], "--limit is '1.5'"),
    "out empty": (["search", *BOTH, "--out", ""], "--out is empty"),
    "text empty": (["study", *BOTH, "--out", "x", "--text", ""], "--text is empty"),
    "out nowhere": (["search", *BOTH, "--out", "/proc/x"], "/proc/x cannot be written"),
    "share": (["study", *BOTH, "--out", "x", "--share", "2"], "shares has 2.0"),
    "limit 1": (["study", *BOTH, "--out", "x", "--limit", "1"], "in the split 'test'"),
    "all that is missing": (["study"], "--model, --out are missing. For example: laser-interp study"),
    "an option without a value": (["report", "run", "--out"], "--out needs a value. For example"),
    "seed": (["organism", "train", "--seed", "-1", "--out", "x"], "expected a whole number of 0 or more"),
    "steps": (["organism", "train", "--steps", "0", "--out", "x"], "steps is 0"),
    "alpha": (["organism", "train", "--alpha", "2", "--out", "x"], "alpha"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_command_line(tmp_path, monkeypatch, capsys, name):
    words, says = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    shown = capsys.readouterr()
    said = [line for line in shown.err.splitlines() if not line.startswith("note: ")]
    assert said[0].startswith("laser-interp: ")
    assert says in " ".join(shown.err.split())
    assert one_sentence(shown.err)
    assert list(tmp_path.iterdir()) == []


def test_there_are_many():
    tables = (FACT_FILES, FACTS, CALLS, CHECKPOINTS, COMMANDS)
    assert sum(map(len, tables)) >= 280


# --- what is of the user ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["discarded", *BOTH, "--edit", "3.in:0.05"], "facts.jsonl"),
        (["discarded", *BOTH, "--edit", "3.in:0.05"], "notes.csv"),
        (["discarded", *BOTH, "--edit", "3.in:0.05"], "other.parquet"),
        (["attribute", *BOTH, "--sites", "3.in"], "facts.jsonl"),
        (["attribute", *BOTH, "--sites", "3.in"], "notes.csv"),
        (["report", "run"], "page.html"),
    ],
)
def test_files_of_the_user_stay(tmp_path, monkeypatch, capsys, facts, words, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_text("<p>mine</p>") if name.endswith("html") else facts.save(path)
    before = path.read_bytes()
    assert main([*words, "--out", name]) == 2
    assert "not an earlier result of this command" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_result_is_what_its_suffix_says_and_may_be_written_again(tmp_path, capsys, facts, suffix):
    path, mine = tmp_path / f"out{suffix}", tmp_path / "mine.jsonl"
    few = facts.split("test")[:4].save(tmp_path / "few.jsonl")
    words = ["discarded", *MODEL, "--facts", str(few), "--edit", "3.in:0.05", "--out"]
    assert main([*words, str(path)]) == 0
    assert main([*words, str(path)]) == 0
    read = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True)}[
        suffix
    ]
    assert {"fact_id", "answer", "category"} <= set(read(path).columns)
    assert len(read(path)) == 3 * sum(len(fact.prompts) for fact in li.load_facts(few))
    mine.write_text("mine")
    assert main([*words, str(mine)]) == 2
    assert main([*words, str(mine), "--force"]) == 0
    assert mine.read_text() != "mine"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m laser_interp.cli.app models | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "By name:\n", "")


def test_defaults_in_help_are_written_as_options_are(capsys):
    assert main(["search", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "[default: all]" in shown
    assert "[default: 0.9 0.8 0.6 0.4 0.2 0.1 0.05 0.01]" in shown
    assert "(" not in "".join(part.split("]")[0] for part in shown.split("[default: ")[1:])
    assert "default: None" not in shown


def test_two_processes_that_build_one_folder(tmp_path):
    """The later one is told; what the first has built stays."""
    from laser_interp.storage.atomic import new_folder

    out = tmp_path / "index"

    def both():
        with new_folder(out) as mine:
            (mine / "a").touch()
            out.mkdir()
            (out / "b").touch()

    with pytest.raises(FileExistsError, match="was written by another process meanwhile"):
        both()
    assert [path.name for path in out.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.slow
def test_figures_that_no_table_draws(tmp_path, capsys):
    assert (
        main(
            [
                "search",
                *BOTH,
                "--layers",
                "3",
                "--matrices",
                "in",
                "--rho",
                "0.1",
                "--out",
                str(tmp_path / "r"),
                "--quiet",
            ]
        )
        == 0
    )
    assert "points, standard error over subjects" in capsys.readouterr().out
    assert main(["figures", str(tmp_path / "r")]) == 2
    assert "from which no figure is drawn" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "r"), "--quiet"]) == 0
    assert (tmp_path / "r" / "report.html").is_file()


def test_numbers_of_numpy_are_numbers(organism):
    edit = li.laser(organism, (np.int64(3), "in"), rho=np.float32(0.1))
    assert edit.rho == 0.1
    assert li.laser(organism, [(np.int64(3), "in")], rank=np.int64(3)).rank == 3
    settings = li.types.SearchSettings(rhos=np.array([0.1, 0.2], np.float32), layers=np.arange(2), seed=np.int64(1))
    assert (settings.rhos, settings.layers, settings.seed) == ((0.1, 0.2), (0, 1), 1)
    assert li.laser(organism, "-1.in", rank=3).sites == li.laser(organism, "3-3.in", rank=3).sites
    assert li.types.SearchSettings(layers="-1,0-1").layers == (-1, 0, 1)


@pytest.mark.slow
def test_a_spectrum_in_blocks_has_the_stable_rank_of_its_largest_value(organism):
    for blocks in (4, "3-inputs-kmeans"):
        known = li.spectrum(organism, "3.in", blocks=blocks)
        assert known.stable_rank == pytest.approx(float(known.S.square().sum() / known.S.max() ** 2))
        half = int(known._repr_html_().split("its energy is in ")[1].split()[0])
        largest = known.energy.sort(descending=True).values
        assert float(largest[:half].sum()) >= 0.5 > float(largest[: half - 1].sum())


FORMS = {
    "list": lambda facts: [{k: v for k, v in vars(fact).items() if v} for fact in facts],
    "tuples": lambda facts: [(f.subject, f.relation, f.object, f.prompt) for f in facts],
    "frame": lambda facts: facts.to_frame(),
    "task": li.tasks.own_task,
    "file": None,
}
TAKE_FACTS = {
    "score": lambda m, f: li.score(m, f, None, progress=False),
    "search": lambda m, f: li.search(m, f, matrices="in", layers=[3], rhos=[0.1], test="none", progress=False),
    "estimate": lambda m, f: li.estimate(m, f, matrices="in", layers=[3], rhos=[0.1]),
    "attribute": lambda m, f: li.attribute(m, f, "3.in", progress=False),
    "favoured_answers": lambda m, f: li.favoured_answers(m, f, li.laser(m, "3.in", rank=3), progress=False),
    "path_effects": lambda m, f: li.path_effects(m, f, li.laser(m, "3.out", rank=3), progress=False),
    "count": lambda m, f: li.count(f, "organism", progress=False),
    "join_counts": lambda m, f: li.counts.join_counts(
        f, pd.DataFrame({"subject": ["Mira Tolen"], "object": ["x"], "n_both": [1]})
    ),
    "frequent_words": lambda m, f: li.counts.frequent_words("organism", exclude=f, progress=False),
    "transfer": lambda m, f: li.tasks.transfer(m, f, {"laser": li.laser(m, "3.in", rank=3)}, progress=False),
    "at": lambda m, f: li.laser(m, "3.in", rank=3).at(m, "last", f),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TAKE_FACTS)
def test_facts_in_every_form(organism, facts, tmp_path, form, name):
    few = facts.keep([*facts.split("validation")][:3] + [*facts.split("test")][:3])
    given = few.save(tmp_path / "facts.jsonl") if form == "file" else FORMS[form](few)
    if name == "join_counts":  # no fact matches: a sentence all the same
        with pytest.raises(ValueError, match="no fact of"):
            TAKE_FACTS[name](organism, given)
        return
    assert TAKE_FACTS[name](organism, given) is not None


def test_tokenizers_by_name():
    for name in ("organism", "organism-control", str(shipped_dir("organism"))):
        assert li.load_tokenizer(name)("Mira")["input_ids"]


@pytest.mark.slow
def test_an_output_folder_of_others_stays_as_it_was(tmp_path, capsys):
    (tmp_path / ".part-0.snappy.parquet.crc").touch()
    (tmp_path / "run.json").write_text('{"x": 1}')
    assert main(["search", *BOTH, "--out", str(tmp_path)]) == 2
    assert "other settings" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {".part-0.snappy.parquet.crc", "run.json"}


def test_a_password_stays_where_it_is():
    source = li.counts.HostedInfiniGram(index="i", url="https://me:secret@example.org/path?key=secret")
    assert source.name == "https://example.org/path:i"
    assert "secret" not in repr(source)


@pytest.mark.slow
def test_a_study_whose_best_edit_discards_nothing(organism, facts):
    """It crashed after the whole search."""
    few = facts.keep([*facts.split("validation")][:8] + [*facts.split("test")][:8])
    found = li.study(
        organism, few, matrices="q", layers=[0], rhos=[1.0], n_draws=1, compose=False, attribute=False,
        n_permutations=99, progress=False,
    )  # fmt: skip
    assert found.cell.rank == 64
    assert "discarded_answers" not in found.tables


# --- edits and weights -----------------------------------------------------------------------------


def test_edits_that_overlap(organism, facts, laser):
    before = organism.next_token_logprobs("Mira Tolen was")
    placed = laser.at(organism, "last", facts)
    for outer, inner in (
        (placed, laser),
        (laser, placed),
        (laser.via("network"), li.zeroed(organism, "3.o").via("direct")),
    ):
        with outer.on(organism), pytest.raises(ValueError, match="not nested with another"), inner.on(organism):
            pass
    with laser.on(organism), pytest.raises(ValueError, match="scoring needs the model as trained"):
        li.score(organism, facts[:2], {"base": None}, engine="reference")
    with laser.on(organism), pytest.raises(ValueError, match="attribution needs the model as trained"):
        li.attribute(organism, facts[:2])
    other_edit = li.laser(organism, "2.out", rank=3)
    first, second = laser.on(organism), other_edit.on(organism)
    first.__enter__()
    second.__enter__()
    with pytest.raises(ValueError, match="left before one that was entered after it"):
        first.__exit__(None, None, None)
    assert torch.equal(organism.next_token_logprobs("Mira Tolen was"), before)
    second.__exit__(None, None, None)
    assert torch.equal(organism.next_token_logprobs("Mira Tolen was"), before)


def test_one_thread_at_a_time(organism, laser):
    expected = organism.next_token_logprobs("Mira Tolen was", laser)
    results: list[object] = []

    def run():
        for _ in range(20):
            try:
                results.append(torch.equal(organism.next_token_logprobs("Mira Tolen was", laser), expected))
            except ValueError as error:
                results.append("another thread is using" in str(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(results) == 80
    assert all(result is True for result in results)


def test_changed_weights_are_noticed():
    model = li.load_model("organism", device="cpu")
    edit, digest = li.laser(model, "3.in", rho=0.05), model.weights_sha256
    top = edit.parts[li.Site(3, "in")].spectrum.S[0]
    weight = model.linear(3, "in").weight
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(ValueError, match="made from other weights"):
        edit.check(model)
    assert model.weights_sha256 != digest
    assert float(li.spectrum(model, "3.in").S[0]) == pytest.approx(2 * float(top))
    with torch.no_grad():
        weight.mul_(0.5)
    edit.check(model)
    assert model.weights_sha256 == digest
    weight.data[5, 7] += 1  # torch does not count what is done to `.data`
    model.weights_changed()
    with pytest.raises(ValueError, match="made from other weights"):
        edit.check(model)


# --- what is natural works -------------------------------------------------------------------------


def test_natural_inputs(organism, facts, laser):
    some = facts[:6]
    assert isinstance(some, li.FactSet)
    assert len(some) == 6
    scores = li.score(organism, some, laser, progress=False)
    assert list(dict.fromkeys(scores["edit"])) == ["base", "laser"]
    several = li.score(organism, some, [None, laser, li.laser(organism, "2.out", rank=3)], progress=False)
    assert several["edit"].nunique() == 3
    assert li.spectrum(organism, "3.in").max_rank == 64
    by_id = {fact.fact_id: i for i, fact in enumerate(some)}
    frames = [li.associate(scores.assign(split=""), counts).bins for counts in (by_id, pd.Series(by_id))]
    pd.testing.assert_frame_equal(*frames)
    truths = SCORES.assign(before="False", after="True")
    assert (
        li.frequency_report(pd.concat([truths] * 3, ignore_index=True).assign(fact_id=["a", "b", "c"]))
        .rows["fixed"]
        .all()
    )
