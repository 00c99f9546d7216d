"""The paper's table as data, and a run's own row beside it.

The numbers are the results of Sharma, Ash & Misra 2023 for three models on eight tasks: accuracy and loss before and
after the edit, on the 80 % of facts for test, and the edit that validation chose. Our runs differ in three ways. Their
truncation is exact, while the published code uses a randomised SVD. They divide facts by subject, unless given
`--split paper`. They use corrected rules, unless given `--protocol paper`.
"""

from pathlib import Path

import pandas as pd

from laser_interp.storage.run_folder import SUMMARY, TABLES, read_json
from laser_interp.storage.tables import write_table

# task: (RoBERTa, GPT-J, Llama-2-7B), each (accuracy before, after, loss before, after, matrix, layer, rho)
_PAPER = {
    "counterfact": (
        (17.3, 19.3, 5.78, 5.43, "in", 8, 0.8),
        (13.1, 24.0, 5.78, 5.05, "in", 27, 0.01),
        (35.6, 37.6, 3.61, 3.49, "gate", 28, 0.05),
    ),
    "hotpotqa": (
        (6.1, 6.7, 10.99, 10.53, "out", 2, 0.4),
        (19.6, 19.5, 3.40, 3.39, "in", 27, 0.1),
        (16.5, 17.2, 3.15, 2.97, "gate", 27, 0.2),
    ),
    "fever": (
        (50.0, 52.3, 2.5, 1.76, "in", 3, 0.4),
        (50.2, 56.2, 1.24, 1.27, "in", 24, 0.01),
        (59.3, 64.5, 1.02, 0.91, "gate", 30, 0.2),
    ),
    "bios_gender": (
        (87.5, 93.7, 0.87, 1.13, "in", 9, 0.9),
        (70.9, 97.5, 3.86, 4.20, "in", 14, 0.01),
        (75.5, 88.4, 3.48, 2.93, "gate", 24, 0.01),
    ),
    "bios_profession": (
        (64.5, 72.5, 4.91, 6.44, "in", 3, 0.9),
        (75.6, 82.1, 4.64, 4.91, "in", 18, 0.01),
        (85.0, 86.7, 4.19, 4.05, "out", 30, 0.4),
    ),
    "truthfulqa": (
        (56.2, 56.2, 1.60, 1.42, "in", 0, 0.01),
        (54.9, 55.6, 1.02, 1.01, "in", 7, 0.8),
        (50.5, 56.2, 0.95, 1.04, "gate", 30, 0.05),
    ),
    "epistemic": (
        (37.1, 41.8, 9.39, 6.80, "out", 1, 0.4),
        (37.1, 38.3, 0.74, 0.62, "in", 26, 0.01),
        (44.8, 63.4, 0.78, 0.73, "out", 28, 0.01),
    ),
    "wikidataqa": (
        (28.0, 30.7, 9.07, 7.69, "in", 7, 0.4),
        (51.8, 65.9, 3.52, 2.86, "in", 27, 0.01),
        (59.5, 62.0, 2.40, 2.31, "gate", 27, 0.01),
    ),
}
MODELS = ("roberta-base", "EleutherAI/gpt-j-6b", "meta-llama/Llama-2-7b-hf")


def published() -> pd.DataFrame:
    """The 24 rows: `task, model, accuracy, accuracy_laser, loss, loss_laser` (accuracy as shares), and the edit in our
    names: `matrix, layer, rho` (for Llama the published U_in is the gate)."""
    columns = ["accuracy", "accuracy_laser", "loss", "loss_laser", "matrix", "layer", "rho"]
    rows = [
        {"task": task, "model": model, **dict(zip(columns, numbers, strict=True))}
        for task, of_models in _PAPER.items()
        for model, numbers in zip(MODELS, of_models, strict=True)
    ]
    table = pd.DataFrame(rows)
    table[["accuracy", "accuracy_laser"]] = (table[["accuracy", "accuracy_laser"]] / 100).round(4)
    return table


def beside(run: Path) -> pd.DataFrame:
    """The paper's rows of a study's task, and the study's own.

    Raises:
        FileNotFoundError: the folder holds no summary.json.
    """
    if not (run / SUMMARY).is_file():
        raise FileNotFoundError(f"no {run / SUMMARY}: run `laser-interp study --out {run}` first")
    summary = read_json(run / SUMMARY)
    task, base, laser = summary["task"]["name"], summary["metrics"]["base"], summary["metrics"]["laser"]
    own = {
        "task": task,
        "model": f"this run: {summary['model']['name']}",
        "accuracy": base["accuracy"],
        "accuracy_laser": laser["accuracy"],
        "loss": base["loss"],
        "loss_laser": laser["loss"],
        "edit": summary["selected"]["cell"],
    }
    paper = published()
    paper["edit"] = [f"{r.layer}.{r.matrix} rho={r.rho:g}" for r in paper.itertuples()]
    rows = paper[paper["task"] == task].drop(columns=["matrix", "layer", "rho"])
    return pd.concat([rows, pd.DataFrame([own])], ignore_index=True)


def main(*, run: Path | None = None, out: Path = Path("runs/paper_table")) -> None:
    """Show the paper's results for all tasks, or for the task of a study, together with the study's own.

    For example: laser-interp analyse paper_table

    Args:
        run: Folder of a study. If left out, only the paper's results are shown.
        out: Folder for the table.
    """
    table = published() if run is None else beside(run)
    path = out / TABLES / "paper_table.parquet"
    print(f"{table.to_string(index=False)}\n{write_table(table, path, None, {'source': 'arXiv 2312.13558'})}")
