"""Write the table of supported families (docs/models.md) from the results of their tests.

Run from the checkout: python tests/support_table.py
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from families import FAMILIES

ROOT = Path(__file__).parents[1]
START, END = "<!-- families: python tests/support_table.py -->", "<!-- /families -->"
NOTES = {
    "openai-gpt": "q k v are stored fused; no left padding, no generation: TransformerLens loses its causal mask",
    "bert": "answers at the mask",
    "roberta": "answers at the mask",
    "gpt_neox": "q k v are stored fused",
    "gpt2": "q k v are stored fused",
    "phi3": "all but o and out are stored fused",
}


def table(results: dict[tuple[str, str], tuple[str, str]]) -> str:
    """The table, from (family, dtype) -> (matrices, worst error)."""
    lines = [
        "| family | transformers class | matrices | worst error, fp32 | fp64 | notes |",
        "|---|---|---|---|---|---|",
    ]
    for family, (cls, *_) in FAMILIES.items():
        matrices, single = results[family, "float32"]
        double = results[family, "float64"][1]
        lines.append(f"| {family} | {cls.__name__} | {matrices} | {single} | {double} | {NOTES.get(family, '')} |")
    return "\n".join(lines)


def measure() -> dict[tuple[str, str], tuple[str, str]]:
    """Run the family tests and collect what they measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "support.tsv"
        command = [sys.executable, "-m", "pytest", str(ROOT / "tests" / "models" / "test_families.py")]
        subprocess.run(command, check=True, env=os.environ | {"LASER_INTERP_SUPPORT": str(path)})
        rows = [line.split("\t") for line in path.read_text().splitlines()]
    return {(family, dtype): (matrices, worst) for family, dtype, matrices, worst in rows}


if __name__ == "__main__":
    page = ROOT / "docs" / "models.md"
    before, rest = page.read_text().split(START)
    page.write_text(f"{before}{START}\n{table(measure())}\n{END}{rest.split(END)[1]}")
