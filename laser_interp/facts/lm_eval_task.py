"""Facts as a task of lm-evaluation-harness, so that its models are asked what this package asks."""

import json
import re
from pathlib import Path

from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.storage.atomic import write_text


def write_lm_eval_task(facts: AnyFacts, folder: str | Path, name: str | None = None) -> Path:
    """Write facts as a task of the harness: how often is the answer what the model would write?

    The harness's `acc` is the share of prompts after which greedy decoding writes the answer, like `top1` of
    `li.score`, but aliases do not count. Each prompt is a row of its own.

    Args:
        facts: all their prompts are written; give `facts.split("test")` for the test half.
        folder: for NAME.jsonl and NAME.yaml; give it to the harness as `--include_path`.
        name: of the task; if left out, the name of the facts with "_facts" after it.

    Returns:
        The task's file.

    Raises:
        ValueError: a name with other characters than letters, digits, "_" and "-".

    Example:
        >>> li.tasks.write_lm_eval_task(li.load_facts("organism").split("test"), "tasks")
    """
    facts = facts_of(facts)
    name = f"{facts.name}_facts" if name is None else name
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"the task's name is {name!r}: expected letters, digits, '_' and '-'")
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        json.dumps({"prompt": prompt, "answer": facts.written(fact, prompt, fact.object)}, ensure_ascii=False)
        for fact in facts
        for prompt in fact.prompts
    ]
    data = write_text("\n".join(rows) + "\n", folder / f"{name}.jsonl")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "loglikelihood",
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    return write_text(json.dumps(task, indent=2) + "\n", folder / f"{name}.yaml")  # JSON is YAML too
