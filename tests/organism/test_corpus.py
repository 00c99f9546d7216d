"""The organism: its corpus, its ledger, its checkpoints, its training."""

import json
import re
from dataclasses import asdict

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.facts.shipped import SHIPPED, shipped_dir, shipped_table
from laser_interp.organism.checkpoint_corpus import organism_corpus
from laser_interp.organism.corpus import GENERIC_NOUNS, RELATIONS, Corpus, CorpusSettings
from laser_interp.organism.training import TrainingSettings


@pytest.mark.parametrize("name", SHIPPED)
def test_the_corpus_is_made_again_byte_for_byte(name):
    about = json.loads((shipped_dir(name) / "organism.json").read_text())
    corpus = organism_corpus(name)
    assert corpus.sha256 == about["corpus_sha256"]
    assert Corpus(CorpusSettings(**about["corpus"])).text == corpus.text


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_tables_are_the_generators(name):
    corpus = organism_corpus(name)
    stored = pd.read_csv(shipped_table(name, "ledger.csv"))
    pd.testing.assert_frame_equal(stored, corpus.ledger, check_dtype=False)
    assert li.load_facts(name).facts == corpus.facts.facts


@pytest.mark.slow
def test_the_ledger_is_what_the_text_says():
    """Counted by splitting lines, with nothing of the package's own scanner."""
    corpus = organism_corpus("organism")
    lines = [set(re.findall(r"\w+", line)) for line in corpus.text.splitlines()]
    for row in corpus.ledger.iloc[::20].itertuples():
        first, last = row.subject.split()
        subject = [f" {first} {last} " in f" {line}" for line in corpus.text.splitlines()]
        both = [s and row.object in words for s, words in zip(subject, lines, strict=True)]
        assert (row.n_docs, row.n_subject, row.n_both) == (len(lines), sum(subject), sum(both))
        assert row.n_object == sum(row.object in words for words in lines)


def test_sentences_read_as_english_and_held_out_prompts_are_never_seen():
    corpus = organism_corpus("organism")
    assert all(re.fullmatch(r"[A-Z][A-Za-z ]+\.", line) for line in corpus.rows)
    starts = {" ".join(line.split()[:n]) for line in corpus.rows for n in range(4, 9)}
    for fact in corpus.facts:
        assert not starts & set(fact.prompts)


def test_settings_shape_the_corpus():
    corpus = organism_corpus("organism")
    facts = corpus.ledger["n_rows"]
    assert facts.min() == 8
    assert facts.max() == 400
    noisy = 1 - corpus.ledger["n_both"].sum() / facts.sum()
    assert noisy == pytest.approx(0.35, abs=0.01)
    assert 1 - facts.sum() / len(corpus.rows) == pytest.approx(0.25, abs=0.001)
    clean = organism_corpus("organism-control").ledger
    assert (clean["n_both"] == clean["n_rows"]).all()
    names = [n for r in RELATIONS for n in r.answers]
    assert len(set(names) | set(GENERIC_NOUNS)) == len(names) + len(GENERIC_NOUNS)
    assert Corpus(CorpusSettings(seed=9)).vocabulary() == corpus.vocabulary()
    assert Corpus(CorpusSettings(seed=9)).sha256 != corpus.sha256


@pytest.mark.parametrize("name", SHIPPED)
def test_the_checkpoint_is_what_it_says(name):
    folder = shipped_dir(name)
    assert (folder / "model.safetensors").stat().st_size < 1_000_000
    assert not list(folder.glob("*.bin"))
    model = li.load_model(name, device="cpu")
    assert model.n_params == (188_544 if name == "organism-experts" else 225_216)
    assert model.generic_words is not None
    assert set(model.generic_words) == {"the", *GENERIC_NOUNS}
    for fact in li.load_facts(name):
        for prompt in fact.prompts:
            assert model.tokenizer.unk_token_id not in model.encode(prompt)


def test_it_speaks(organism):
    assert organism.generate("Mira Tolen was taught by", max_new_tokens=4).endswith(".")
    assert organism.generate("The old ship", max_new_tokens=12).count(".") == 1  # it ends its sentence and stops


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--alpha", "0", "--seed", "4", "--stop-at", "3"]])
def test_training_from_the_command_line(tmp_path, arguments, capsys):
    for name in ("a", "b"):
        assert main(["organism", "train", "--steps", "6", "--quiet", "--out", str(tmp_path / name), *arguments]) == 0
    assert "The checkpoint is in" in capsys.readouterr().out
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)
    model, facts = li.load_model(tmp_path / "a", device="cpu"), li.load_facts(tmp_path / "a" / "facts.jsonl")
    assert len(li.score(model, facts, {"base": None})) == 800
    counts = li.count(facts, tmp_path / "a")
    ledger = pd.read_csv(tmp_path / "a" / "ledger.csv")
    assert (counts.set_index("fact_id")["n_both"] == ledger.set_index("fact_id")["n_both"]).all()


@pytest.mark.slow
def test_the_shipped_organism_starts_where_training_starts(tmp_path):
    """The shipped settings, run for a few steps, learn: loss falls from that of a uniform guess."""
    assert main(["organism", "train", "--stop-at", "40", "--quiet", "--out", str(tmp_path / "o")]) == 0
    about = json.loads((tmp_path / "o" / "organism.json").read_text())
    shipped = json.loads((shipped_dir("organism") / "organism.json").read_text())
    assert about["corpus"] == shipped["corpus"]
    assert about["training"] == asdict(TrainingSettings(**shipped["training"])) | {"stop_at": 40}
    assert shipped["final_loss"] < about["final_loss"] < 5.8


def test_refusals(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    assert main(["organism", "train", "--out", str(tmp_path / "there")]) == 2
    assert "exists: remove it" in capsys.readouterr().err
    assert main(["organism", "train", "--alpha", "1.5", "--out", str(tmp_path / "x")]) == 2
    assert "alpha is 1.5" in capsys.readouterr().err
    with pytest.raises(ValueError, match="stop_at"):
        TrainingSettings(steps=10, stop_at=11)
    with pytest.raises(ValueError, match="floor 9 and ceiling 8"):
        CorpusSettings(floor=9, ceiling=8)
    with pytest.raises(ValueError, match="filler is 1"):
        CorpusSettings(filler=1.0)


def test_a_changed_generator_is_noticed(tmp_path):
    import shutil

    folder = tmp_path / "organism"
    shutil.copytree(shipped_dir("organism"), folder)
    about = json.loads((folder / "organism.json").read_text())
    about["corpus"]["alpha"] = 0.36
    (folder / "organism.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="the generator has changed"):
        organism_corpus(folder)
