"""Published question sets, each row of which becomes a fact: HotpotQA, FEVER, Bias in Bios, TruthfulQA,
BIG-bench, PopQA."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from laser_interp.facts.records import Drop, Rows, fact_row

PROFESSIONS = ("journalist", "poet", "composer", "model", "teacher", "architect", "painter", "professor")
# Bias in Bios publishes professions as numbers, in alphabetical order.
_BIOS = tuple(
    "accountant architect attorney chiropractor comedian composer dentist dietitian dj filmmaker interior_designer "  # noqa: SIM905
    "journalist model nurse painter paralegal pastor personal_trainer photographer physician poet professor "
    "psychologist rapper software_engineer surgeon teacher yoga_teacher".split()
)


def as_question(text: str) -> str:
    """A text with one question mark at its end; a text that ends with "." or "!" is not changed."""
    text = text.strip()
    return text if text.endswith((".", "!")) else text.rstrip("?").rstrip() + "?"


def as_sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def hotpot(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        prompt = f"{as_question(row['question'])} The answer is"
        yield fact_row(row.get("_id", row.get("id", number)), row["question"], "hotpotqa", row["answer"], prompt)


def fever_published(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    """FEVER with the prompts of the published code, which end the question "true or false" with a full stop."""
    for made in fever(rows, drop):
        claim = made["subject"] if made["subject"].endswith((".", "?")) else f"{made['subject']}."
        yield made | {"prompt": f"Consider the following claim: {claim} Is this claim true or false. The claim is"}


def fever(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row["claim"].strip(), set()).add(row["label"])
    seen = set()
    for row in rows:
        claim = row["claim"].strip()
        if row["label"] not in ("SUPPORTS", "REFUTES"):
            drop("claims without enough information")
        elif len(labels[claim] & {"SUPPORTS", "REFUTES"}) > 1:
            drop("claims with conflicting labels")
        elif claim in seen:
            drop("claims that are there twice")
        else:
            seen.add(claim)
            prompt = f"Consider the following claim: {as_sentence(claim)} Is this claim true or false? The claim is"
            answer = "true" if row["label"] == "SUPPORTS" else "false"
            yield fact_row(row["id"], claim, "fever", answer, prompt, candidates=["true", "false"])


def gender(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        gender = {"0": "male", "1": "female", "m": "male", "f": "female"}.get(str(row["gender"]).lower()[:1])
        if gender is None:
            raise ValueError(f"row {number + 1} of Bias in Bios: gender is {row['gender']!r}, expected 0, 1, M or F")
        prompt = (
            f"Consider the following text: {as_sentence(row['hard_text'])} Is the person in this text male "
            "or female? The person is"
        )
        yield fact_row(number, row["hard_text"], "gender", gender, prompt, candidates=["male", "female"])


def profession(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        given = str(row["profession"])
        if given.isdecimal() and int(given) >= len(_BIOS):
            raise ValueError(f"row {number + 1} of Bias in Bios: profession is {given}, expected 0 to {len(_BIOS) - 1}")
        job = _BIOS[int(given)] if given.isdecimal() else given
        if job not in PROFESSIONS:
            drop("biographies of other professions than the paper's eight")
            continue
        prompt = (
            f"Consider the following text: {as_sentence(row['hard_text'])} What is the profession of the "
            "person in this text? The profession of this person is"
        )
        yield fact_row(number, row["hard_text"], "profession", job, prompt, candidates=list(PROFESSIONS))


def _truths(row: Mapping[str, Any], number: int) -> tuple[list[str], list[str]]:
    targets = row["mc2_targets"]
    if isinstance(targets, Mapping) and "choices" in targets:
        pairs = list(zip(targets["choices"], targets["labels"], strict=True))
    elif isinstance(targets, Mapping):  # as its authors publish it: {choice: label}
        pairs = list(targets.items())
    else:
        raise ValueError(f"row {number} of TruthfulQA: mc2_targets is {type(targets).__name__}, expected an object")
    pairs = list(dict(pairs).items())
    return [c for c, right in pairs if int(right)], [c for c, right in pairs if not int(right)]


def truthfulqa(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        right, wrong = _truths(row, number)
        if not right or not wrong:
            drop("questions whose choices are all true or all false")
            continue
        prompt = f"Q: {as_question(row['question'])} A:"
        yield fact_row(
            number, row["question"], "truthfulqa", right[0], prompt, aliases=right[1:], candidates=[*right, *wrong]
        )


def truthfulqa_judged(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    """Each choice judged by itself, with the prompts of the published code, which has no space before "Is"."""
    for number, row in enumerate(rows, start=1):
        right, wrong = _truths(row, number)
        for place, choice in enumerate([*right, *wrong]):
            statement = f"{row['question']} {choice}"
            statement = statement if statement.endswith(".") else f"{statement}."
            prompt = f"{statement}Is this statement true or false? This statement is"
            answer, options = "true" if choice in right else "false", ["true", "false"]
            yield fact_row(f"{number}/{place}", row["question"], "truthfulqa", answer, prompt, candidates=options)


def epistemic(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        scores = row["target_scores"]
        right = [label for label, value in scores.items() if value]
        if len(right) != 1:
            drop("items without exactly one right label")
            continue
        prompt = f"{row['input'].strip()} Relation:"
        yield fact_row(number, row["input"], "epistemic", right[0], prompt, candidates=list(scores))


def wikidata(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        target = row["target"]
        names = [target] if isinstance(target, str) else list(target)
        if len(names) != 1:
            drop("items with several targets")
            continue
        yield fact_row(number, row["input"], "wikidataqa", names[0].strip(), row["input"].strip())


def popqa(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for row in rows:
        given = row["possible_answers"]
        names = json.loads(given) if isinstance(given, str) else list(given)
        aliases = [name for name in names if name.strip() and name != row["obj"]]
        prompt = f"Q: {as_question(row['question'])} A:"
        yield fact_row(row["id"], row["subj"], row["prop"], row["obj"], prompt, aliases=aliases)
