"""Published sets of facts to recall, each row of which becomes a fact: CounterFact, known_1000, LRE, ParaRel, LAMA,
BEAR."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from laser_interp.facts.records import Drop, Rows, check_rows, fact_row, read_records

_BEAR_METADATA = "metadata_relations.json"


def counterfact(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for row in rows:
        asked = row["requested_rewrite"]
        try:
            subject, prompt, relation = asked["subject"], asked["prompt"], asked["relation_id"]
            answer = asked["target_true"]["str"]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"case {row['case_id']} of CounterFact: requested_rewrite lacks {error}; expected subject, prompt, "
                "relation_id and target_true.str"
            ) from None
        wrong = (asked.get("target_new") or {}).get("str")
        more = {"paraphrases": [text.strip() for text in row["paraphrase_prompts"]], "target_new": wrong}
        yield fact_row(row["case_id"], subject, relation, answer.strip(), prompt.format(subject)) | more


def known(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield fact_row(
            row["known_id"], row["subject"], str(row["relation_id"]), row["attribute"].strip(), row["prompt"].strip()
        )


def lre(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        name, subject = row["name"], row["subject"]
        prompt, *paraphrases = (template.strip().format(subject) for template in row["prompt_templates"])
        yield fact_row(f"{name}/{number}", subject, name, row["object"].strip(), prompt, paraphrases=paraphrases)


def _before_answer(template: str, subject: str) -> str | None:
    """The text before [Y], if nothing but a full stop follows it."""
    before, mark, after = template.strip().partition("[Y]")
    if not mark or after.strip(" .") or "[X]" not in before:
        return None
    return before.replace("[X]", subject).rstrip()


def _usable(templates: Sequence[str], kind: str, drop: Drop) -> list[str]:
    """The templates whose answer comes last."""
    usable = [template for template in templates if _before_answer(template, "X") is not None]
    for _ in range(len(templates) - len(usable)):
        drop(f"{kind} whose answer does not come last")
    return usable


def _prompts(templates: Sequence[str], subject: str) -> dict[str, Any]:
    prompt, *paraphrases = dict.fromkeys(str(_before_answer(template, subject)) for template in templates)
    return {"prompt": prompt, "paraphrases": paraphrases}


def pararel(folder: Path, drop: Drop) -> Iterator[dict[str, Any]]:
    files = sorted((folder / "facts").glob("*.jsonl")) or sorted((folder / "trex_lms_vocab").glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{folder} is not ParaRel's folder: expected facts/*.jsonl and patterns/*.jsonl")
    for file in files:
        patterns_file = folder / "patterns" / file.name
        patterns = [row["pattern"] for row in read_records(patterns_file)] if patterns_file.is_file() else []
        usable = _usable(patterns, "patterns", drop)
        seen: set[str] = set()
        for row in check_rows(read_records(file), ("sub_label", "obj_label", "uuid"), file.name, "ParaRel"):
            if not usable:
                drop("facts of relations without a pattern whose answer comes last")
                continue
            if row["uuid"] in seen:
                drop("facts that are there twice")
                continue
            seen.add(row["uuid"])
            asked = _prompts(usable, row["sub_label"])
            yield fact_row(f"{file.stem}/{row['uuid']}", row["sub_label"], file.stem, row["obj_label"], **asked)


def lama(folder: Path, drop: Drop) -> Iterator[dict[str, Any]]:
    table = folder / "relations.jsonl"
    if not table.is_file():
        raise FileNotFoundError(f"{folder} is not LAMA's folder: expected relations.jsonl beside TREx/*.jsonl")
    templates = {row["relation"]: row["template"] for row in read_records(table)}
    for file in sorted(folder.glob("**/P*.jsonl")):
        rows = check_rows(read_records(file), ("sub_label", "obj_label"), file.name, "LAMA")
        for number, row in enumerate(rows, start=1):
            prompt = _before_answer(templates.get(file.stem, ""), row["sub_label"])
            if prompt is None:
                drop("facts of relations whose answer does not come last")
                continue
            yield fact_row(
                f"{file.stem}/{row.get('uuid', number)}", row["sub_label"], file.stem, row["obj_label"], prompt
            )


def bear(folder: Path, drop: Drop) -> Iterator[dict[str, Any]]:
    """BEAR (or BEAR-big): a file for each relation, and one that says its templates and its answer options."""
    folder = next((f for f in (folder, folder / "BEAR") if (f / _BEAR_METADATA).is_file()), folder)
    if not (folder / _BEAR_METADATA).is_file():
        raise FileNotFoundError(f"{folder} is not BEAR's folder: expected {_BEAR_METADATA} beside P*.jsonl")
    relations = json.loads((folder / _BEAR_METADATA).read_text(encoding="utf-8"))
    for relation, about in sorted(relations.items()):
        options = about.get("answer_space_labels", about.get("answer_space"))
        if not isinstance(options, list) or "templates" not in about:
            raise ValueError(
                f"{relation} in {_BEAR_METADATA} is not in the schema of BEAR: expected templates and "
                f"answer_space_labels, and it has {', '.join(about)}"
            )
        usable = _usable(about["templates"], "templates", drop)
        file = folder / f"{relation}.jsonl"
        rows = check_rows(read_records(file), ("sub_label", "obj_label"), file.name, "BEAR")
        for number, row in enumerate(rows, start=1):
            if not usable:
                drop("facts of relations without a template whose answer comes last")
                continue
            asked = _prompts(usable, row["sub_label"])
            fact_id = f"{relation}/{row.get('sub_id', number)}/{number}"
            yield fact_row(fact_id, row["sub_label"], relation, row["obj_label"], **asked, candidates=options)
