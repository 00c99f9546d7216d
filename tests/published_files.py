"""Files in the schemas of the published sets, written by hand."""

import json

import pandas as pd

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


def write_bear(folder):
    """As lm-pub-quiz publishes it, one folder further down."""
    (folder / "BEAR").mkdir(parents=True)
    about = {
        "P19": {"templates": ["[X] was born in [Y].", "[Y] is where [X] was born."], "answer_space_labels": TOWNS},
        "P36": {"templates": ["[Y] is the capital of [X]."], "answer_space_labels": TOWNS},
    }
    (folder / "BEAR" / "metadata_relations.json").write_text(json.dumps(about))
    for name in about:
        rows = [{"sub_id": f"Q{i}", "sub_label": f"S{i}", "obj_id": f"Q{i % 5}", "obj_label": TOWNS[i % 5]}
                for i in range(N)]  # fmt: skip
        (folder / "BEAR" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def made(folder, name):
    if name == "bear":
        return write_bear(folder / name)
    if name == "pararel":
        return write_pararel(folder / name)
    if name == "lama":
        return write_lama(folder / name)
    return write(folder, name)
