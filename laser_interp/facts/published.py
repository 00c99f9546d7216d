"""One table of sets: where each comes from, what it must look like, and how its rows become facts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.facts.fact_set import FactSet, facts_from_rows, json_lines, load_facts

KINDS = ("next_token", "candidates", "truths", "generation")
PROTOCOLS = ("corrected", "paper")
PROFESSIONS = ("journalist", "poet", "composer", "model", "teacher", "architect", "painter", "professor")
# Bias in Bios publishes professions as numbers, in alphabetical order.
_BIOS = tuple(
    "accountant architect attorney chiropractor comedian composer dentist dietitian dj filmmaker interior_designer "  # noqa: SIM905
    "journalist model nurse painter paralegal pastor personal_trainer photographer physician poet professor "
    "psychologist rapper software_engineer surgeon teacher yoga_teacher".split()
)

Rows = list[dict[str, Any]]
Drop = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A published set.

    Attributes:
        title, licence, citation: what it is, and what its users owe its authors.
        columns: what each of its rows must have.
        kind: of scoring, of `KINDS`.
        read: rows -> facts, as dictionaries; what is dropped is told to the second argument.
        hub: (dataset, configuration, split) of a copy in the published schema on the Hugging Face hub, if any.
        whole: reads a folder by itself instead of rows.
        paper_kind: of scoring under `protocol="paper"`, where it differs.
        paper_read: as `read`, under `protocol="paper"`.
        max_new_tokens: of generation.
    """

    title: str
    licence: str
    citation: str
    columns: tuple[str, ...]
    kind: str
    read: Callable[[Rows, Drop], Iterable[dict[str, Any]]]
    hub: tuple[str, str | None, str] | None = None
    whole: Callable[[Path, Drop], Iterable[dict[str, Any]]] | None = None
    paper_kind: str | None = None
    paper_read: Callable[[Rows, Drop], Iterable[dict[str, Any]]] | None = None
    max_new_tokens: int = 0


@dataclass(frozen=True)
class Task:
    """Facts, and how answers to them are judged.

    Attributes:
        name: of the set.
        facts: one fact a question; `candidates` are its labels or choices, `aliases` other right answers.
        kind: of `KINDS`.
        protocol: "corrected", or "paper" for the published rule with its faults.
        dropped: why -> how many rows were left out.
        title, licence, citation: of the set.
        max_new_tokens: of generation.
    """

    name: str
    facts: FactSet
    kind: str
    protocol: str = "corrected"
    dropped: Mapping[str, int] = field(default_factory=dict)
    title: str = ""
    licence: str = ""
    citation: str = ""
    max_new_tokens: int = 0

    def keep(self, facts: FactSet) -> Task:
        """The same task on other facts."""
        return replace(self, facts=facts)

    def __str__(self) -> str:
        told = f"{self.name}: {len(self.facts)} facts, scored by {self.kind} ({self.protocol})"
        if self.dropped:
            told += "; dropped: " + ", ".join(f"{n} {why}" for why, n in self.dropped.items())
        return told + (f". {self.title}. Licence: {self.licence}. {self.citation}" if self.title else "")


def load_task(name: str, path: str | Path | None = None, *, protocol: str = "corrected") -> Task:
    """A published set, from the file its authors publish, or by name from the hub.

    Args:
        name: of `SOURCES`.
        path: the file (json, jsonl, csv, tsv, parquet), or for ParaRel and LAMA the folder. None asks the hub, for
            the sets that have a copy there.
        protocol: "corrected", or "paper" for the published rule.

    Raises:
        ValueError: an unknown set or protocol, or rows that are not in the published schema.
        FileNotFoundError: no such file.
        OSError: the hub cannot be reached.
    """
    if name not in SOURCES:
        raise ValueError(f"no set {name!r}: expected one of {', '.join(SOURCES)}, or li.datasets.own_task for your own")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    source = SOURCES[name]
    dropped: Counter[str] = Counter()

    def drop(why: str) -> None:
        dropped[why] += 1

    paper = protocol == "paper"
    read = source.paper_read if paper and source.paper_read is not None else source.read
    if source.whole is not None:
        if path is None or not Path(path).is_dir():
            raise FileNotFoundError(f"{source.title} is read from its folder; {path!r} is none")
        made = list(source.whole(Path(path), drop))
    else:
        rows = _from_hub(name, source) if path is None else records(path)
        _check(rows, source, name if path is None else Path(path).name)
        made = list(read(rows, drop))
    if not made:
        told = ", ".join(f"{n} {why}" for why, n in dropped.items())
        raise ValueError(f"no row of {source.title} is left: {told}")
    kind = source.paper_kind if paper and source.paper_kind is not None else source.kind
    return Task(
        name,
        facts_from_rows(made, name),
        kind,
        protocol,
        dict(dropped),
        source.title,
        source.licence,
        source.citation,
        source.max_new_tokens,
    )


def own_task(source: Any, kind: str = "next_token", *, max_new_tokens: int = 10) -> Task:
    """Your own facts as a task.

    Args:
        source: as `li.load_facts` takes it.
        kind: "next_token"; "candidates" (each fact's `candidates`, or the answers of its relation); "truths"
            (`aliases` are right too); or "generation".

    Raises:
        ValueError: another kind, or facts that `li.load_facts` refuses.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: expected one of {', '.join(KINDS)}")
    facts = source if isinstance(source, FactSet) else load_facts(source)
    return Task(facts.name, facts, kind, max_new_tokens=max_new_tokens)


def records(path: str | Path) -> Rows:
    """Rows of a json (an array, or an object with one under "examples", "data" or "samples"), jsonl, csv, tsv or
    parquet file.

    Raises:
        FileNotFoundError, ValueError: no such file, or one that cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}: expected a .json, .jsonl, .csv, .tsv or .parquet file")
    if path.suffix == ".parquet":
        return _plain(pd.read_parquet(path))
    if path.suffix in (".csv", ".tsv"):
        separator = "\t" if path.suffix == ".tsv" else ","
        return _plain(pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False))
    if path.suffix == ".jsonl":
        out = []
        for where, row in json_lines(path):
            if not isinstance(row, dict):
                raise ValueError(f"{where} is {type(row).__name__}, expected an object")
            out.append(row)
        return out
    if path.suffix == ".json":
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name} is not valid JSON: {error}") from None
        if isinstance(value, dict):
            lists = (value.get(key) for key in ("examples", "data", "samples"))
            inner = next((one for one in lists if isinstance(one, list)), None)
            # What belongs to all rows is given to each
            shared = {k: v for k, v in value.items() if not isinstance(v, list) or k == "prompt_templates"}
            value = [{**shared, **row} for row in inner] if inner is not None else [value]
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise ValueError(f"{path.name} is no array of objects")
        return value
    raise ValueError(f"cannot read {path.name!r}: expected .json, .jsonl, .csv, .tsv or .parquet")


def _plain(frame: pd.DataFrame) -> Rows:
    rows = frame.to_dict("records")
    return [{str(k): v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()} for row in rows]


def _from_hub(name: str, source: Source) -> Rows:
    if source.hub is None:
        raise ValueError(f"no copy of {source.title} in its published schema is known on the hub: give its path")
    from datasets import load_dataset

    dataset, configuration, split = source.hub
    try:
        return [dict(row) for row in load_dataset(dataset, configuration, split=split)]
    except Exception as error:  # the library raises many kinds where there is no network
        raise OSError(
            f"{name} could not be loaded from the hub ({type(error).__name__}: {str(error)[:200]}): give its path, or "
            f"the network that {dataset!r} needs"
        ) from error


def _check(rows: Rows, source: Source, where: str) -> None:
    if not rows:
        raise ValueError(f"{where} holds no rows")
    for number, row in enumerate(rows, start=1):
        if missing := [column for column in source.columns if column not in row]:
            raise ValueError(
                f"{where}, row {number} is not in the schema of {source.title}: no {', '.join(missing)} (it has "
                f"{', '.join(map(str, row))})"
            )


# --- rows to facts ---------------------------------------------------------------------------------


def _question(text: str) -> str:
    return text.strip().rstrip("?").rstrip() + "?"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _counterfact(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
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
        yield {
            "fact_id": str(row["case_id"]),
            "subject": subject,
            "relation": relation,
            "object": answer.strip(),
            "prompt": prompt.format(subject),
            "paraphrases": [text.strip() for text in row["paraphrase_prompts"]],
        }


def _known(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            "fact_id": str(row["known_id"]),
            "subject": row["subject"],
            "relation": str(row["relation_id"]),
            "object": row["attribute"].strip(),
            "prompt": row["prompt"].strip(),
        }


def _lre(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        templates = [t.strip() for t in row["prompt_templates"]]
        prompts = [t.format(row["subject"]) for t in templates]
        yield {
            "fact_id": f"{row['name']}/{number}",
            "subject": row["subject"],
            "relation": row["name"],
            "object": row["object"].strip(),
            "prompt": prompts[0],
            "paraphrases": prompts[1:],
        }


def _before_answer(template: str, subject: str) -> str | None:
    """The text before [Y], if nothing but a full stop follows it."""
    before, mark, after = template.strip().partition("[Y]")
    if not mark or after.strip(" .") or "[X]" not in before:
        return None
    return before.replace("[X]", subject).rstrip()


def _pararel(folder: Path, drop: Drop) -> Iterator[dict[str, Any]]:
    files = sorted((folder / "facts").glob("*.jsonl")) or sorted((folder / "trex_lms_vocab").glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{folder} is not ParaRel's folder: expected facts/*.jsonl and patterns/*.jsonl")
    for file in files:
        patterns_file = folder / "patterns" / file.name
        patterns = [row["pattern"] for row in records(patterns_file)] if patterns_file.is_file() else []
        usable = [pattern for pattern in patterns if _before_answer(pattern, "X") is not None]
        for _ in range(len(patterns) - len(usable)):
            drop("patterns whose answer does not come last")
        rows = records(file)
        seen: set[str] = set()
        for number, row in enumerate(rows, start=1):
            if missing := [c for c in ("sub_label", "obj_label", "uuid") if c not in row]:
                raise ValueError(f"{file.name}, line {number} is not in the schema of ParaRel: no {', '.join(missing)}")
            if not usable:
                drop("facts of relations without a pattern whose answer comes last")
                continue
            if row["uuid"] in seen:
                drop("facts that are there twice")
                continue
            seen.add(row["uuid"])
            prompts = list(dict.fromkeys(str(_before_answer(p, row["sub_label"])) for p in usable))
            yield {
                "fact_id": f"{file.stem}/{row['uuid']}",
                "subject": row["sub_label"],
                "relation": file.stem,
                "object": row["obj_label"],
                "prompt": prompts[0],
                "paraphrases": prompts[1:],
            }


def _lama(folder: Path, drop: Drop) -> Iterator[dict[str, Any]]:
    table = folder / "relations.jsonl"
    if not table.is_file():
        raise FileNotFoundError(f"{folder} is not LAMA's folder: expected relations.jsonl beside TREx/*.jsonl")
    templates = {row["relation"]: row["template"] for row in records(table)}
    for file in sorted(folder.glob("**/P*.jsonl")):
        for number, row in enumerate(records(file), start=1):
            if missing := [c for c in ("sub_label", "obj_label") if c not in row]:
                raise ValueError(f"{file.name}, line {number} is not in the schema of LAMA: no {', '.join(missing)}")
            prompt = _before_answer(templates.get(file.stem, ""), row["sub_label"])
            if prompt is None:
                drop("facts of relations whose answer does not come last")
                continue
            yield {
                "fact_id": f"{file.stem}/{row.get('uuid', number)}",
                "subject": row["sub_label"],
                "relation": file.stem,
                "object": row["obj_label"],
                "prompt": prompt,
            }


def _popqa(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for row in rows:
        given = row["possible_answers"]
        names = json.loads(given) if isinstance(given, str) else list(given)
        yield {
            "fact_id": str(row["id"]),
            "subject": row["subj"],
            "relation": row["prop"],
            "object": row["obj"],
            "prompt": f"Q: {_question(row['question'])} A:",
            "aliases": [name for name in names if name.strip() and name != row["obj"]],
        }


def _hotpot(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        yield {
            "fact_id": str(row.get("_id", row.get("id", number))),
            "subject": row["question"],
            "relation": "hotpotqa",
            "object": row["answer"],
            "prompt": f"{_question(row['question'])} The answer is",
        }


def _fever(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
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
            yield {
                "fact_id": str(row["id"]),
                "subject": claim,
                "relation": "fever",
                "object": "true" if row["label"] == "SUPPORTS" else "false",
                "prompt": f"Consider the following claim: {_sentence(claim)} Is this claim true or false? The claim is",
                "candidates": ["true", "false"],
            }


def _gender(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        gender = {"0": "male", "1": "female", "m": "male", "f": "female"}.get(str(row["gender"]).lower()[:1])
        if gender is None:
            raise ValueError(f"row {number + 1} of Bias in Bios: gender is {row['gender']!r}, expected 0, 1, M or F")
        yield {
            "fact_id": str(number),
            "subject": row["hard_text"],
            "relation": "gender",
            "object": gender,
            "prompt": f"Consider the following text: {_sentence(row['hard_text'])} Is the person in this text male or "
            "female? The person is",
            "candidates": ["male", "female"],
        }


def _profession(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        given = str(row["profession"])
        if given.isdecimal() and int(given) >= len(_BIOS):
            raise ValueError(f"row {number + 1} of Bias in Bios: profession is {given}, expected 0 to {len(_BIOS) - 1}")
        job = _BIOS[int(given)] if given.isdecimal() else given
        if job not in PROFESSIONS:
            drop("biographies of other professions than the paper's eight")
            continue
        yield {
            "fact_id": str(number),
            "subject": row["hard_text"],
            "relation": "profession",
            "object": job,
            "prompt": f"Consider the following text: {_sentence(row['hard_text'])} What is the profession of the "
            "person in this text? The profession of this person is",
            "candidates": list(PROFESSIONS),
        }


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


def _truthfulqa(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        right, wrong = _truths(row, number)
        if not right or not wrong:
            drop("questions whose choices are all true or all false")
            continue
        yield {
            "fact_id": str(number),
            "subject": row["question"],
            "relation": "truthfulqa",
            "object": right[0],
            "prompt": f"Q: {_question(row['question'])} A:",
            "aliases": right[1:],
            "candidates": [*right, *wrong],
        }


def _truthfulqa_judged(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        right, wrong = _truths(row, number)
        for place, choice in enumerate([*right, *wrong]):
            yield {
                "fact_id": f"{number}/{place}",
                "subject": row["question"],
                "relation": "truthfulqa",
                "object": "true" if choice in right else "false",
                "prompt": f"{_question(row['question'])} {_sentence(choice)} Is this statement true or false? This "
                "statement is",
                "candidates": ["true", "false"],
            }


def _epistemic(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        scores = row["target_scores"]
        right = [label for label, value in scores.items() if value]
        if len(right) != 1:
            drop("items without exactly one right label")
            continue
        yield {
            "fact_id": str(number),
            "subject": row["input"],
            "relation": "epistemic",
            "object": right[0],
            "prompt": f"{row['input'].strip()} Relation:",
            "candidates": list(scores),
        }


def _wikidata(rows: Rows, drop: Drop) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows):
        target = row["target"]
        names = [target] if isinstance(target, str) else list(target)
        if len(names) != 1:
            drop("items with several targets")
            continue
        yield {
            "fact_id": str(number),
            "subject": row["input"],
            "relation": "wikidataqa",
            "object": names[0].strip(),
            "prompt": row["input"].strip(),
        }


_LASER = "Prompt and protocol after Sharma, Ash & Misra 2023"
_BIOS_CITED = f"De-Arteaga et al. 2019, FAT*. {_LASER}"
_BIG_BENCH = f"Srivastava et al. 2022, arXiv 2206.04615. {_LASER}"

SOURCES: dict[str, Source] = {
    "counterfact": Source(
        "CounterFact", "MIT", "Meng et al. 2022, NeurIPS", ("case_id", "requested_rewrite", "paraphrase_prompts"),
        "next_token", _counterfact,
    ),
    "hotpotqa": Source(
        "HotpotQA", "CC BY-SA 4.0", f"Yang et al. 2018, EMNLP. {_LASER}", ("question", "answer"), "generation", _hotpot,
        hub=("hotpotqa/hotpot_qa", "distractor", "validation"), max_new_tokens=15,
    ),
    "fever": Source(
        "FEVER", "CC BY-SA 3.0", f"Thorne et al. 2018, NAACL. {_LASER}", ("id", "label", "claim"), "candidates", _fever,
        hub=("fever/fever", "v1.0", "labelled_dev"),
    ),
    "bios_gender": Source(
        "Bias in Bios, gender", "MIT", _BIOS_CITED, ("hard_text", "gender"), "candidates", _gender,
        hub=("LabHC/bias_in_bios", None, "dev"),
    ),
    "bios_profession": Source(
        "Bias in Bios, profession", "MIT", _BIOS_CITED, ("hard_text", "profession"), "candidates", _profession,
        hub=("LabHC/bias_in_bios", None, "dev"),
    ),
    "truthfulqa": Source(
        "TruthfulQA", "Apache 2.0", f"Lin, Hilton & Evans 2022, ACL. {_LASER}", ("question", "mc2_targets"), "truths",
        _truthfulqa, hub=("truthfulqa/truthful_qa", "multiple_choice", "validation"), paper_kind="candidates",
        paper_read=_truthfulqa_judged,
    ),
    "epistemic": Source(
        "BIG-bench epistemic reasoning", "Apache 2.0", _BIG_BENCH, ("input", "target_scores"), "candidates", _epistemic,
    ),
    "wikidataqa": Source(
        "BIG-bench WikidataQA", "Apache 2.0", _BIG_BENCH, ("input", "target"), "generation", _wikidata,
        max_new_tokens=10,
    ),
    "pararel": Source(
        "ParaRel", "MIT", "Elazar et al. 2021, TACL", (), "next_token", lambda rows, drop: (), whole=_pararel,
    ),
    "lama": Source(
        "LAMA (T-REx)", "CC BY-NC 4.0", "Petroni et al. 2019, EMNLP", (), "next_token", lambda rows, drop: (),
        whole=_lama,
    ),
    "popqa": Source(
        "PopQA", "MIT", "Mallen et al. 2023, ACL", ("id", "subj", "prop", "obj", "question", "possible_answers"),
        "generation", _popqa, hub=("akariasai/PopQA", None, "test"), max_new_tokens=10,
    ),
    "known_1000": Source(
        "known_1000", "MIT", "Meng et al. 2022, NeurIPS", ("known_id", "subject", "attribute", "prompt", "relation_id"),
        "next_token", _known,
    ),
    "lre": Source(
        "LRE relations", "MIT", "Hernandez et al. 2024, ICLR", ("name", "prompt_templates", "subject", "object"),
        "next_token", _lre,
    ),
}  # fmt: skip
