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


def table(results: list[list[str]]) -> str:
    """The table, from what the tests wrote: each line is of one family and dtype, or of one family in fp32 alone."""
    lines = [
        "| family | transformers class | matrices | worst error, fp32 | fp64 | notes |",
        "|---|---|---|---:|---:|---|",
    ]
    measured = {(row[0], row[1]): row[2:] for row in results if len(row) == 4}
    for family, (cls, *_) in FAMILIES.items():
        matrices, single = measured[family, "float32"]
        double = measured[family, "float64"][1]
        lines.append(f"| {family} | {cls.__name__} | {matrices} | {single} | {double} | {NOTES.get(family, '')} |")
    for family, cls, matrices, worst, note in sorted(row for row in results if len(row) == 5):
        lines.append(f"| {family} | {cls} | {matrices} | {worst} | | {note} |")
    return "\n".join(lines)


def measure() -> list[list[str]]:
    """Run the family tests and collect what they measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "support.tsv"
        tests = [str(ROOT / "tests" / "models" / f"test_{name}.py") for name in ("families", "more_families")]
        command = [sys.executable, "-m", "pytest", *tests]
        subprocess.run(command, check=True, env=os.environ | {"LASER_INTERP_SUPPORT": str(path)})
        return [line.split("\t") for line in path.read_text().splitlines()]


if __name__ == "__main__":
    page = ROOT / "docs" / "models.md"
    before, rest = page.read_text().split(START)
    page.write_text(f"{before}{START}\n{table(measure())}\n{END}{rest.split(END)[1]}")
