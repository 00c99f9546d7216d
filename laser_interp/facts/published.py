"""The published sets in one table: where each comes from, what its rows must look like, and how they become facts.

`load_task("counterfact", "counterfact.json")` gives facts to be scored, the rule by which they are scored, and what was
dropped and why. Nothing is downloaded unless a set is asked for by name alone.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from laser_interp.choices import AnswerRule, Protocol, check_choice, names_with_suggestion
from laser_interp.facts import question_sets as questions
from laser_interp.facts import recall_sets as recall
from laser_interp.facts.files import facts_from_rows
from laser_interp.facts.records import Drop, Rows, check_rows, read_records
from laser_interp.facts.tasks import Task


@dataclass(frozen=True)
class Source:
    """A published set.

    Attributes:
        title, licence, citation: its name, its licence, and the publication to cite.
        columns: what each of its rows must have; none of a set that is a folder.
        rule: by which an answer counts as right.
        read: (rows or folder, drop) -> facts, as dictionaries; it calls `drop` with a reason for each row that it
            leaves out.
        hub: (dataset, configuration, split) of a copy in the published schema on the Hugging Face hub, if any.
        paper_rule: the rule under `protocol="paper"`, where it differs.
        paper_read: as `read`, under `protocol="paper"`.
        max_new_tokens: how many tokens are generated, for the rule "generation".
    """

    title: str
    licence: str
    citation: str
    columns: tuple[str, ...]
    rule: AnswerRule
    read: Callable[[Any, Drop], Iterable[dict[str, Any]]]
    hub: tuple[str, str | None, str] | None = None
    paper_rule: AnswerRule | None = None
    paper_read: Callable[[Any, Drop], Iterable[dict[str, Any]]] | None = None
    max_new_tokens: int = 0


def load_task(name: str, path: str | Path | None = None, *, protocol: Protocol = "corrected") -> Task:
    """A published set, from the file its authors publish, or by name from the hub.

    Args:
        name: a key of `SOURCES`, such as "counterfact".
        path: the file (json, jsonl, csv, tsv, parquet), or for ParaRel, LAMA and BEAR the folder. None asks the hub,
            for the sets that have a copy there.
        protocol: "corrected", or "paper" for the published rule.

    Raises:
        ValueError: an unknown set or protocol, or rows that are not in the published schema.
        FileNotFoundError: no such file.
        OSError: the hub cannot be reached.

    Example:
        >>> task = li.tasks.load_task("counterfact", "counterfact.json")  # doctest: +SKIP
    """
    if name not in SOURCES:
        raise ValueError(
            f"no set {name!r}: expected {names_with_suggestion(SOURCES, name)}; li.tasks.own_task makes your own"
        )
    check_choice("protocol", protocol, Protocol)
    source = SOURCES[name]
    dropped: Counter[str] = Counter()

    def drop(why: str) -> None:
        dropped[why] += 1

    paper = protocol == "paper"
    read = (source.paper_read if paper else None) or source.read
    if source.columns:
        rows = _from_hub(name, source) if path is None else read_records(path)
        where = name if path is None else Path(path).name
        if not rows:
            raise ValueError(f"{where} holds no rows")
        check_rows(rows, source.columns, where, source.title)
        made = list(read(rows, drop))
    elif path is None or not Path(path).is_dir():
        raise FileNotFoundError(f"{source.title} is read from its folder; {path!r} is no folder")
    else:
        made = list(read(Path(path), drop))
    if not made:
        reasons = ", ".join(f"{n} {why}" for why, n in dropped.items())
        raise ValueError(f"no row of {source.title} is left: {reasons}")
    return Task(
        name,
        replace(facts_from_rows(made, name), separator=" "),  # as the published codes write answers
        (source.paper_rule if paper else None) or source.rule,
        protocol,
        dict(dropped),
        source.title,
        source.licence,
        source.citation,
        source.max_new_tokens,
    )


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


_LASER = "Prompt and protocol after Sharma, Ash & Misra 2023"
_BIOS_CITED = f"De-Arteaga et al. 2019, FAT*. {_LASER}"
_BIG_BENCH = f"Srivastava et al. 2022, arXiv 2206.04615. {_LASER}"
SOURCES: dict[str, Source] = {
    "counterfact": Source(
        "CounterFact", "MIT", "Meng et al. 2022, NeurIPS", ("case_id", "requested_rewrite", "paraphrase_prompts"),
        "next_token", recall.counterfact,
    ),
    "hotpotqa": Source(
        "HotpotQA", "CC BY-SA 4.0", f"Yang et al. 2018, EMNLP. {_LASER}", ("question", "answer"), "generation",
        questions.hotpot,
        hub=("hotpotqa/hotpot_qa", "distractor", "validation"), max_new_tokens=15,
    ),
    "fever": Source(
        "FEVER", "CC BY-SA 3.0", f"Thorne et al. 2018, NAACL. {_LASER}", ("id", "label", "claim"), "candidates",
        questions.fever, paper_read=questions.fever_published,
        hub=("fever/fever", "v1.0", "labelled_dev"),
    ),
    "bios_gender": Source(
        "Bias in Bios, gender", "MIT", _BIOS_CITED, ("hard_text", "gender"), "candidates", questions.gender,
        hub=("LabHC/bias_in_bios", None, "dev"),
    ),
    "bios_profession": Source(
        "Bias in Bios, profession", "MIT", _BIOS_CITED, ("hard_text", "profession"), "candidates", questions.profession,
        hub=("LabHC/bias_in_bios", None, "dev"),
    ),
    "truthfulqa": Source(
        "TruthfulQA", "Apache 2.0", f"Lin, Hilton & Evans 2022, ACL. {_LASER}", ("question", "mc2_targets"), "truths",
        questions.truthfulqa, hub=("truthfulqa/truthful_qa", "multiple_choice", "validation"), paper_rule="candidates",
        paper_read=questions.truthfulqa_judged,
    ),
    "epistemic": Source(
        "BIG-bench epistemic reasoning", "Apache 2.0", _BIG_BENCH, ("input", "target_scores"), "candidates",
        questions.epistemic,
    ),
    "wikidataqa": Source(
        "BIG-bench WikidataQA", "Apache 2.0", _BIG_BENCH, ("input", "target"), "generation", questions.wikidata,
        max_new_tokens=10,
    ),
    "pararel": Source("ParaRel", "MIT", "Elazar et al. 2021, TACL", (), "next_token", recall.pararel),
    "lama": Source("LAMA (T-REx)", "CC BY-NC 4.0", "Petroni et al. 2019, EMNLP", (), "next_token", recall.lama),
    "bear": Source(
        "BEAR", "as its authors say at lm-pub-quiz.github.io", "Wiland, Ploner & Akbik 2024, Findings of NAACL", (),
        "candidates", recall.bear,
    ),
    "popqa": Source(
        "PopQA", "MIT", "Mallen et al. 2023, ACL", ("id", "subj", "prop", "obj", "question", "possible_answers"),
        "generation", questions.popqa, hub=("akariasai/PopQA", None, "test"), max_new_tokens=10,
    ),
    "known_1000": Source(
        "known_1000", "MIT", "Meng et al. 2022, NeurIPS", ("known_id", "subject", "attribute", "prompt", "relation_id"),
        "next_token", recall.known,
    ),
    "lre": Source(
        "LRE relations", "MIT", "Hernandez et al. 2024, ICLR", ("name", "prompt_templates", "subject", "object"),
        "next_token", recall.lre,
    ),
}  # fmt: skip
