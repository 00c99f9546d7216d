"""Every rule against a slow reading of a plain transformers model; the metrics by hand; a study, whole."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import laser_interp as li
from laser_interp.facts.published import load_task
from laser_interp.facts.tasks import own_task
from laser_interp.scoring.answer_rules import _contains, apply_rule, f1, normalise_answer
from laser_interp.scoring.memory import parse_memory
from laser_interp.scoring.text_loss import perplexity
from laser_interp.statistics.classification import metrics
from laser_interp.statistics.paraphrases import robustness

SHARED = Path(__file__).parents[3] / "shared"


def slow_logprob(hf, tokenizer, prompt, answer):
    """log p of the answer's tokens, from whole forward passes, one token at a time."""
    row = tokenizer(prompt)["input_ids"]
    whole = tokenizer(f"{prompt} {answer}")["input_ids"]
    assert whole[: len(row)] == row
    total, n = 0.0, 0
    for token in whole[len(row) :]:
        logits = hf(torch.tensor([row])).logits[0, -1]
        total += float(logits.log_softmax(-1)[token])
        row = [*row, token]
        n += 1
    return total, n


def slow_generate(hf, tokenizer, prompt, n):
    row = tokenizer(prompt)["input_ids"]
    start = len(row)
    for _ in range(n):
        token = int(hf(torch.tensor([row])).logits[0, -1].argmax())
        row = [*row, token]
        if token == hf.config.eos_token_id:
            break
    return tokenizer.decode(row[start:], skip_special_tokens=True)


def plain(folder, cls=transformers.AutoModelForCausalLM):
    return cls.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(folder)


def check_rules(model, folder, tasks):
    """All rules on one model, against the functions above."""
    hf, tokenizer = plain(folder)
    with torch.no_grad():
        for task in tasks:
            few = task.keep(task.facts.keep(task.facts.facts[:4]))
            rows = li.score(model, few, {"base": None}, progress=False)
            facts = {fact.fact_id: fact for fact in few.facts}
            for row in rows.to_dict("records"):
                fact = facts[row["fact_id"]]
                prompt = fact.prompts[row["prompt_id"]]
                if task.rule in ("candidates", "truths"):
                    found = {c: slow_logprob(hf, tokenizer, prompt, c) for c in fact.candidates}
                    best = max(found, key=lambda c: found[c][0])
                    assert row["prediction"] == best
                    assert row["prediction_per_token"] == max(found, key=lambda c: found[c][0] / found[c][1])
                    right = {fact.object, *fact.aliases}
                    assert row["correct"] == (best in right)
                    total = sum(math.exp(v) for v, _ in found.values())
                    assert row["p_candidates"] == pytest.approx(total, rel=1e-4)
                    if task.rule == "truths":
                        share = sum(math.exp(v) for c, (v, _) in found.items() if c in right) / total
                        assert row["score"] == pytest.approx(share, rel=1e-3)
                elif task.rule == "generation":
                    text = slow_generate(hf, tokenizer, prompt, task.max_new_tokens).strip().split("\n")[0]
                    assert row["prediction"] == text
                    names = (fact.object, *fact.aliases)
                    assert row["correct"] == any(
                        f" {normalise_answer(n)} " in f" {normalise_answer(text)} " for n in names
                    )
                else:
                    ids = tokenizer(prompt)["input_ids"]
                    first = int(hf(torch.tensor([ids])).logits[0, -1].argmax())
                    assert row["prediction"] == tokenizer.decode([first]).strip()
                if task.rule != "truths":
                    expected = max(slow_logprob(hf, tokenizer, prompt, n)[0] for n in (fact.object, *fact.aliases))
                    assert row["logprob"] == pytest.approx(expected, abs=2e-4)


def test_rules_against_a_plain_model(random_model):
    model, folder, tasks = random_model
    check_rules(model, folder / "model", [tasks[n] for n in ("counterfact", "fever", "truthfulqa", "hotpotqa", "lre")])


def test_rules_on_a_real_checkpoint():
    folder = SHARED / "models" / "slm4096"
    if not folder.is_dir():
        pytest.skip("needs ../shared/models")
    model = li.load_model(folder, device="cpu")
    rows = [
        {"fact_id": "1", "subject": "dog", "relation": "r", "object": "park", "prompt": "The dog ran to the"},
        {"fact_id": "2", "subject": "she", "relation": "r", "object": "happy", "prompt": "She was very"},
    ]
    listed = [row | {"candidates": ["park", "happy", "sad"], "aliases": []} for row in rows]
    tasks = [own_task(rows), own_task(listed, "candidates"), own_task(listed, "truths"), own_task(rows, "generation")]
    check_rules(model, folder, tasks)


@pytest.mark.slow
def test_the_papers_rules(random_model):
    model, folder, _ = random_model
    path = folder / "hotpotqa" / "hotpotqa.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["answer"] = "city"  # stands in every question
    other = folder / "hotpotqa" / "inside.json"
    other.write_text(json.dumps(rows))
    paper = li.score(model, load_task("hotpotqa", other, protocol="paper"), {"base": None}, progress=False)
    ours = li.score(model, load_task("hotpotqa", other), {"base": None}, progress=False)
    assert paper["correct"].all()  # the published rule finds the answer in the question
    assert ours["correct"].mean() < 1
    task = load_task("counterfact", folder / "counterfact" / "counterfact.json", protocol="paper")
    found = li.score(model, task, {"base": None}, progress=False)
    said = found["prediction"].str.lower().str.strip() == found["object"].str.lower()
    assert (found["correct"] == said).all()


def test_windows_overlap_by_a_token_at_least(organism):
    """The first token of a window is predicted by nothing in it, so that the window before has to."""
    text = "Mira Tolen was born in Varholt and taught by the river"
    found, most = (perplexity(organism, text, window=4, stride=stride) for stride in (99, 3))
    assert found == most
    assert found["n_tokens"] == len(organism.encode(text)) - 1


def test_memory_in_every_unit(organism):
    units = {"5000000": 5_000_000, "5000 KB": 5_000_000, "5MB": 5_000_000, "2kib": None, "2 MiB": 2 << 20, "1GB": 10**9}
    for text, expected in units.items():
        if expected is None:
            with pytest.raises(ValueError, match="memory is 2048 bytes: at least a megabyte"):
                parse_memory(text, organism)
        else:
            assert parse_memory(text, organism) == expected


def test_the_papers_rule_of_the_next_token_wants_the_whole_token(organism):
    task = replace(own_task(li.load_facts("organism")), protocol="paper")
    scores = pd.DataFrame(
        {"top1": True, "top_answer": [" Paris", "Rome", "Zurich"], "object": ["paris", "Oslo", "Rome"]}
    )
    assert apply_rule(organism, task, scores, None)["correct"].tolist() == [True, False, False]


def test_normalised_answers():
    assert normalise_answer("The  Eiffel-Tower, a!") == "eiffeltower"
    assert f1("the cat sat", "a cat") == pytest.approx(2 / 3)
    assert f1("", "") == 1
    assert f1("dog", "cat") == 0


def frame(correct, predictions=None, objects=None, edit="base", prompts=1):
    n = len(correct)
    return pd.DataFrame(
        {
            "fact_id": [f"f{i // prompts}" for i in range(n)],
            "prompt_id": [i % prompts for i in range(n)],
            "subject": [f"s{i // prompts}" for i in range(n)],
            "relation": "r",
            "object": objects or ["x"] * n,
            "edit": edit,
            "prediction": predictions or ["x"] * n,
            "correct": correct,
            "score": np.array(correct, float),
            "logprob": -1.0,
            "confidence": 0.75,
            "p_candidates": 0.5,
        }
    )


def test_metrics_by_hand():
    objects = ["yes"] * 6 + ["no"] * 4
    base = frame([True] * 6 + [False] * 4, ["yes"] * 10, objects)
    edit = frame([True] * 5 + [False] + [True] * 4, ["yes"] * 5 + ["no"] * 5, objects, "laser")
    table = metrics(pd.concat([base, edit]), "candidates").set_index("edit")
    first, second = table.loc["base"], table.loc["laser"]
    assert (first["accuracy"], first["majority_baseline"], first["balanced_accuracy"]) == (0.6, 0.6, 0.5)
    assert first["degenerate"]
    assert not second["degenerate"]
    assert (second["n_fixed"], second["n_broken"]) == (4, 1)
    assert second["p_change"] == pytest.approx(2 * sum(math.comb(5, k) for k in (0, 1)) / 32)
    assert first["calibration_error"] == pytest.approx(0.15)
    assert second["balanced_accuracy"] == pytest.approx((5 / 6 + 1) / 2)
    assert first["accuracy_lo"] < 0.6 < first["accuracy_hi"]
    with pytest.raises(ValueError, match="no scores of baseline='other'"):
        metrics(base, "candidates", baseline="other")
    with pytest.raises(ValueError, match="4 prompts were scored under one of 'base' and 'laser' only"):
        metrics(pd.concat([base, edit[:6]]), "candidates")


def test_robustness_by_hand():
    rows = frame([True, True, True, False, False, False], ["a", "a", "a", "b", "c", "c"], prompts=2)
    (row,) = robustness(rows).to_dict("records")
    assert (row["n_facts"], row["all_right"], row["any_right"]) == (3, pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert row["agreement"] == pytest.approx(2 / 3)
    assert robustness(frame([True, False])).empty


def test_perplexity_against_a_plain_loop(random_model):
    model, folder, _ = random_model
    hf, tokenizer = plain(folder / "model")
    text = "Person 3 was born in Paris. " * 20
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for window, stride in ((64, 16), (32, 31), (128, 64)):
        total = 0.0
        predicted, stop = 1, min(window, len(ids))
        with torch.no_grad():
            while predicted < len(ids):
                start = max(stop - window, 0)
                logprobs = hf(torch.tensor([ids[start:stop]])).logits[0].log_softmax(-1)
                total -= sum(float(logprobs[i - 1 - start, ids[i]]) for i in range(predicted, stop))
                predicted, stop = stop, min(stop + stride, len(ids))
        found = perplexity(model, text, window=window, stride=stride)
        assert found["n_tokens"] == len(ids) - 1
        assert found["loss"] == pytest.approx(total / (len(ids) - 1), abs=1e-4)
        assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    edit = li.laser(model, "0.in", rank=1)
    assert perplexity(model, text, edit)["loss"] != pytest.approx(perplexity(model, text)["loss"], abs=1e-3)
    with pytest.raises(ValueError, match="at least two"):
        perplexity(model, "")


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("It is Paris.", "Paris", True),
        ("Parisian", "Paris", False),
        ("东京是日本的首都。", "东京", True),
        ("日本", "东京", False),
        ("", "A", False),
        ("The river", "A", False),
        ("A.", "A", True),
        ("C’est «Paris»…", "Paris", True),
        ("L’Aquila", "L'Aquila", True),
    ],
)
def test_an_answer_stands_in_a_text_by_its_words(text, answer, expected):
    assert _contains(text, answer) == expected
