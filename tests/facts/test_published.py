"""Published sets: files in the published schemas, written by hand, and what is refused or dropped."""

import json
from pathlib import Path

import pandas as pd
import pytest

from laser_interp.facts.published import SOURCES, load_task
from laser_interp.facts.question_sets import PROFESSIONS
from laser_interp.facts.records import read_records
from laser_interp.facts.tasks import own_task

TOWNS = ["Paris", "Rome", "Oslo", "Bern", "Cairo"]
N = 20


def counterfact():
    return [
        {
            "case_id": i,
            "pararel_idx": i,
            "requested_rewrite": {
                "prompt": "{} was born in",
                "relation_id": f"P{19 + i % 2}",
                "target_new": {"str": "Berlin", "id": "Q64"},
                "target_true": {"str": TOWNS[i % 5], "id": "Q1"},
                "subject": f"Person {i}",
            },
            "paraphrase_prompts": [f"Shayna does this. Person {i} originates from ", f"Person {i} hails from"],
            "neighborhood_prompts": [],
            "attribute_prompts": [],
            "generation_prompts": [],
        }
        for i in range(N)
    ]


ROWS = {
    "counterfact": counterfact(),
    "known_1000": [
        {"known_id": i, "subject": f"City {i}", "attribute": TOWNS[i % 5], "template": "{} is near", "prediction": "x"}
        | {"prompt": f"City {i} is near", "relation_id": "P47"}
        for i in range(N)
    ],
    "hotpotqa": [
        {"_id": f"h{i}", "question": f"Where is city {i}?", "answer": TOWNS[i % 5], "type": "bridge", "level": "easy"}
        for i in range(N)
    ],
    "fever": [
        {"id": i, "verifiable": "V", "label": ["SUPPORTS", "REFUTES", "NOT ENOUGH INFO"][i % 3], "claim": f"Claim {i}"}
        for i in range(N)
    ]
    + [{"id": 98, "label": "SUPPORTS", "claim": "Both."}, {"id": 99, "label": "REFUTES", "claim": "Both."}],
    "bios_gender": [{"hard_text": f"She works in town {i}", "profession": i, "gender": i % 2} for i in range(N)],
    "bios_profession": [{"hard_text": f"Works in town {i}.", "profession": i, "gender": 0} for i in range(28)],
    "truthfulqa": [
        {"question": f"What is {i}?", "mc1_targets": {}, "mc2_targets": {f"A number {i}": 1, "Itself": 1, "A cat": 0}}
        for i in range(N)
    ],
    "epistemic": [
        {
            "input": f"Premise: Ada knows {i}. Hypothesis: {i} is so.",
            "target_scores": {"entailment": i % 2, "non-entailment": 1 - i % 2},
        }
        for i in range(N)
    ],
    "wikidataqa": [{"input": f"Town {i} is in ", "target": [TOWNS[i % 5]]} for i in range(N)]
    + [{"input": "Two is", "target": ["a", "b"]}],
    "popqa": [
        {"id": i, "subj": f"S{i}", "prop": "place of birth", "obj": TOWNS[i % 5], "question": f"Where was S{i} born?"}
        | {"possible_answers": json.dumps([TOWNS[i % 5], "the town"]), "s_pop": 10}
        for i in range(N)
    ],
}
LRE = {
    "name": "born in",
    "prompt_templates": ["{} was born in", "The birthplace of {} is"],
    "prompt_templates_zs": [],
    "properties": {"relation_type": "factual"},
    "samples": [{"subject": f"S{i}", "object": TOWNS[i % 5]} for i in range(N)],
}


def write(folder, name):
    """The file as its authors publish it."""
    path = folder / f"{name}.{'jsonl' if name == 'fever' else 'tsv' if name == 'popqa' else 'json'}"
    if name == "popqa":
        pd.DataFrame(ROWS[name]).to_csv(path, sep="\t", index=False)
    elif name == "fever":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    elif name == "lre":
        path.write_text(json.dumps(LRE))
    elif name in ("epistemic", "wikidataqa"):  # BIG-bench has a header around its examples
        path.write_text(json.dumps({"name": name, "description": "…", "keywords": ["x"], "examples": ROWS[name]}))
    else:
        path.write_text(json.dumps(ROWS[name]))
    return path


def write_pararel(folder):
    for kind in ("facts", "patterns"):
        (folder / kind).mkdir(parents=True)
    facts = [{"sub_label": f"S{i}", "obj_label": TOWNS[i % 5], "uuid": f"u{i}"} for i in range(N)]
    for name in ("P19", "P20"):
        (folder / "facts" / f"{name}.jsonl").write_text("".join(json.dumps(f) + "\n" for f in facts))
    good = ["[X] was born in [Y].", "[X] is from [Y] .", "[Y] is the birthplace of [X]."]
    (folder / "patterns" / "P19.jsonl").write_text("".join(json.dumps({"pattern": p}) + "\n" for p in good))
    (folder / "patterns" / "P20.jsonl").write_text(json.dumps({"pattern": "[Y] saw [X] die."}) + "\n")
    return folder


def write_lama(folder):
    (folder / "TREx").mkdir(parents=True)
    (folder / "relations.jsonl").write_text(
        json.dumps({"relation": "P19", "template": "[X] was born in [Y] ."})
        + "\n"
        + json.dumps({"relation": "P36", "template": "The capital [Y] is of [X] ."})
        + "\n"
    )
    for name in ("P19", "P36"):
        rows = [{"sub_label": f"S{i}", "obj_label": TOWNS[i % 5], "uuid": f"{name}{i}"} for i in range(N)]
        (folder / "TREx" / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def made(folder, name):
    if name == "pararel":
        return write_pararel(folder / name)
    if name == "lama":
        return write_lama(folder / name)
    return write(folder, name)


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

    for folder in ("counterfact", "hotpotqa", "fever", "truthfulqa", "lre", "pararel", "popqa"):
        for protocol in ("corrected", "paper"):
            (tmp_path / f"{folder}{protocol}").mkdir()
    fact = prompt("counterfact")
    assert fact.prompts == ("Person 0 was born in", "Shayna does this. Person 0 originates from", "Person 0 hails from")
    assert (fact.object, fact.relation) == ("Paris", "P19")
    assert prompt("hotpotqa").prompt == "Where is city 0? The answer is"
    assert prompt("fever").prompt == (
        "Consider the following claim: Claim 0. Is this claim true or false? The claim is"
    )
    fact = prompt("truthfulqa")
    assert (fact.object, fact.aliases, fact.candidates[-1]) == ("A number 0", ("Itself",), "A cat")
    assert prompt("truthfulqa", "paper").candidates == ("true", "false")
    assert prompt("lre").prompts == ("S0 was born in", "The birthplace of S0 is")
    assert prompt("pararel").prompts == ("S0 was born in", "S0 is from")
    assert prompt("popqa").aliases == ("the town",)


@pytest.mark.parametrize("name", [n for n in SOURCES if SOURCES[n].whole is None])
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


def test_pararel_whole():
    """Read as it is published: 41 relations, of which some have no pattern whose answer comes last."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "pararel"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/pararel")
    task = load_task("pararel", folder)
    assert len(task.facts) + sum(n for why, n in task.dropped.items() if why.startswith("facts")) > 29_000
    assert len({fact.relation for fact in task.facts}) == 39
    assert sum(len(fact.prompts) for fact in task.facts) > 140_000
