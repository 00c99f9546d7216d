"""Published sets: files in the published schemas, written by hand, and what is refused or dropped."""

import json
from pathlib import Path

import pandas as pd
import pytest
from published_files import LRE, ROWS, TOWNS, made

from laser_interp.facts.published import SOURCES, load_task
from laser_interp.facts.question_sets import PROFESSIONS
from laser_interp.facts.records import read_records
from laser_interp.facts.tasks import own_task


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("protocol", ["corrected", "paper"])
def test_every_set_is_read_from_its_published_schema(tmp_path, name, protocol):
    task = load_task(name, made(tmp_path, name), protocol=protocol)
    assert task.protocol == protocol
    assert task.licence
    assert task.citation
    assert task.title in str(task)
    for fact in task.facts:
        assert fact.prompt == fact.prompt.strip()
        assert "{}" not in fact.prompt
        assert "[" not in fact.prompt
        if task.rule == "candidates":
            assert fact.object in fact.candidates
    expected = {
        "fever": (14, {"claims without enough information": 6, "claims with conflicting labels": 2}),
        "bios_profession": (8, {"biographies of other professions than the paper's eight": 20}),
        "wikidataqa": (20, {"items with several targets": 1}),
        "pararel": (
            20,
            {
                "patterns whose answer does not come last": 2,
                "facts of relations without a pattern whose answer comes last": 20,
            },
        ),
        "bear": (
            20,
            {
                "templates whose answer does not come last": 2,
                "facts of relations without a template whose answer comes last": 20,
            },
        ),
        "lama": (20, {"facts of relations whose answer does not come last": 20}),
    }.get(name, (20, {}))
    if name == "truthfulqa" and protocol == "paper":
        expected = (60, {})
    assert (len(task.facts), dict(task.dropped)) == expected
    for why in expected[1]:
        assert why in str(task)


def test_what_the_prompts_are(tmp_path):
    def prompt(name, protocol="corrected"):
        return load_task(name, made(tmp_path / f"{name}{protocol}", name), protocol=protocol).facts.facts[0]

    for folder in ("counterfact", "hotpotqa", "fever", "truthfulqa", "lre", "pararel", "popqa", "bear"):
        for protocol in ("corrected", "paper"):
            (tmp_path / f"{folder}{protocol}").mkdir()
    fact = prompt("counterfact")
    assert fact.prompts == ("Person 0 was born in", "Shayna does this. Person 0 originates from", "Person 0 hails from")
    assert (fact.object, fact.relation) == ("Paris", "P19")
    assert prompt("hotpotqa").prompt == "Where is city 0? The answer is"
    assert prompt("fever").prompt == (
        "Consider the following claim: Claim 0. Is this claim true or false? The claim is"
    )
    # The published code's own words
    assert prompt("fever", "paper").prompt == (
        "Consider the following claim: Claim 0. Is this claim true or false. The claim is"
    )
    assert prompt("truthfulqa", "paper").prompt.endswith(".Is this statement true or false? This statement is")
    fact = prompt("truthfulqa")
    assert (fact.object, fact.aliases, fact.candidates[-1]) == ("A number 0", ("Itself",), "A cat")
    assert prompt("truthfulqa", "paper").candidates == ("true", "false")
    assert prompt("lre").prompts == ("S0 was born in", "The birthplace of S0 is")
    assert prompt("pararel").prompts == ("S0 was born in", "S0 is from")
    fact = prompt("bear")
    assert (fact.prompts, fact.candidates, fact.relation) == (("S0 was born in",), tuple(TOWNS), "P19")
    assert prompt("popqa").aliases == ("the town",)


def test_the_published_prompts_leave_sentences_alone():
    rows = [{"question": text, "answer": "x"} for text in ("Name it.", "Who is it?", "Who is it")]
    prompts = [made["prompt"] for made in SOURCES["hotpotqa"].read(rows, lambda why: None)]
    assert prompts == ["Name it. The answer is", "Who is it? The answer is", "Who is it? The answer is"]
    claims = [
        {"id": i, "label": "SUPPORTS", "claim": claim} for i, claim in enumerate(("It is so", "Is it so?", "So!"))
    ]
    prompts = [made["prompt"] for made in SOURCES["fever"].paper_read(claims, lambda why: None)]
    assert [prompt.split(": ")[1].split(" Is this")[0] for prompt in prompts] == ["It is so.", "Is it so?", "So!."]


@pytest.mark.parametrize("name", [n for n in SOURCES if SOURCES[n].columns])
def test_wrong_schemas_are_named(tmp_path, name):
    path = tmp_path / "rows.json"
    column = SOURCES[name].columns[-1]
    rows = [{k: v for k, v in row.items() if k != column} for row in (ROWS.get(name) or [LRE["samples"][0] | LRE])]
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=rf"rows.json, row 1 is not in the schema of .*: no .*{column}"):
        load_task(name, path)


def test_other_refusals(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no set 'mmlu': expected one of counterfact"):
        load_task("mmlu")
    with pytest.raises(ValueError, match="protocol is 'loose'"):
        load_task("fever", "x", protocol="loose")
    with pytest.raises(FileNotFoundError, match="no file"):
        load_task("fever", tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError, match="is read from its folder"):
        load_task("pararel", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"is not ParaRel's folder"):
        load_task("pararel", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is not LAMA's folder"):
        load_task("lama", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is not BEAR's folder"):
        load_task("bear", tmp_path)
    (tmp_path / "metadata_relations.json").write_text('{"P19": {"templates": []}}')
    with pytest.raises(ValueError, match="P19 in metadata_relations.json is not in the schema of BEAR"):
        load_task("bear", tmp_path)
    with pytest.raises(ValueError, match="no copy of CounterFact .* is known on the hub: give its path"):
        load_task("counterfact")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(OSError, match="truthfulqa could not be loaded from the hub"):
        load_task("truthfulqa")
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{oops\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2 is not valid JSON"):
        read_records(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="is no array of objects"):
        read_records(tmp_path / "a.json")
    (tmp_path / "b.json").write_text(json.dumps([{"hard_text": "x", "gender": "?"}]))
    with pytest.raises(ValueError, match=r"gender is '\?'"):
        load_task("bios_gender", tmp_path / "b.json")
    (tmp_path / "c.json").write_text(json.dumps([{"hard_text": "x", "profession": 0, "gender": 0}]))
    with pytest.raises(ValueError, match="no row of Bias in Bios, profession is left: 1 biographies of other"):
        load_task("bios_profession", tmp_path / "c.json")


def test_parquet_and_own_facts(tmp_path, facts):
    pd.DataFrame(ROWS["bios_gender"]).to_parquet(tmp_path / "a.parquet")
    assert len(load_task("bios_gender", tmp_path / "a.parquet").facts) == 20
    rows = [{"question": "What?", "mc2_targets": {"choices": ["a", "b"], "labels": [1, 0]}}] * 2
    pd.DataFrame(rows).to_parquet(tmp_path / "b.parquet")
    assert load_task("truthfulqa", tmp_path / "b.parquet").facts.facts[1].object == "a"
    task = own_task(facts)
    assert (task.name, task.rule) == ("organism", "next_token")
    assert own_task([{"fact_id": "1", "subject": "a", "relation": "r", "object": "b", "prompt": "c"}], "generation")
    with pytest.raises(ValueError, match="rule is 'essay'"):
        own_task(facts, "essay")
    assert len(PROFESSIONS) == 8


@pytest.mark.slow
def test_pararel_whole():
    """Read as it is published: 41 relations, of which some have no pattern whose answer comes last."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "pararel"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/pararel")
    task = load_task("pararel", folder)
    assert len(task.facts) + sum(n for why, n in task.dropped.items() if why.startswith("facts")) > 29_000
    assert len({fact.relation for fact in task.facts}) == 39
    assert sum(len(fact.prompts) for fact in task.facts) > 140_000
