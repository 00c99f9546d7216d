"""Write the benchmarks' results into the documentation: `python -m benchmarks tables`.

A page marks each place with `<!-- benchmark: engine -->` before a table or a few words, and `<!-- /benchmark -->` after
it. The results are the files in `benchmarks/results/`, written with `--json`. A test fails if a page differs from them.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import read

PAGES = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"(<!-- benchmark: ([\w-]+) -->)(.*?)(<!-- /benchmark -->)", re.DOTALL)
_NAMES = {
    "gpt2-small": "GPT-2 small",
    "pythia-160m": "Pythia 160M",
    "gptj": "GPT-J's block, GPT-2's size",
    "llama": "Llama's block, GPT-2's size",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def main(args: argparse.Namespace) -> None:
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (now := rewritten(text)) != text:
            page.write_text(now, encoding="utf-8")
            print(f"{page.name}: written anew")


def rewritten(text: str) -> str:
    """A page with its blocks replaced by the current results."""
    return _BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[4]}", text)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], results: dict[str, Any]) -> str:
    """A Markdown table, and below it where its numbers are from."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    from_where = f"Measured on {results['date']} with torch {results['versions']['torch']} ({results['machine']}):"
    return "\n" + "\n".join([*lines, "", from_where, f"`{results['command']}`"]) + "\n"


def _short(value: float, digits: int = 2) -> str:
    """So many significant digits, without a leading zero or an exponent."""
    if value >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}".removeprefix("0") if value >= 0.01 else f"{value:.1g}"


def _range(values: Sequence[float], digits: int) -> str:
    return f"{min(values):,.{digits}f} to {max(values):,.{digits}f}"


def engine() -> str:
    """Time of a cell and prompt, beside the published procedure and the strongest plain loop."""
    results = read("engine")
    rows = [
        (
            _NAMES[row["model"]],
            f"{row['ms_per_cell_prompt']:.1f}",
            f"{row['ratio_published']:.1f} times slower",
            f"{row['ratio_plain']:.1f} times slower",
            f"{row['gemm_fraction']:.2f}".removeprefix("0"),
        )
        for row in results["rows"]
    ]
    columns = ["random model, fp32", "ms per cell and prompt", "published procedure", "strongest plain loop"]
    return _table([*columns, "share of the matrix-product rate"], rows, results)


def engine_range() -> str:
    """The engine's two ratios over all models, in words."""
    rows = read("engine")["rows"]
    published, plain = (
        _range([row[name] for row in rows], n) for name, n in (("ratio_published", 0), ("ratio_plain", 1))
    )
    return f"{published} times the published procedure, {plain} times the strongest plain loop"


def engine_layers() -> str:
    """How a cell's cost falls from the first to the last of the measured layers."""
    row = read("engine")["rows"][0]
    first, *_, last = row["by_layer"]
    at = [f"{one['ms']:.1f} ms at layer {one['layer']}" for one in (first, last)]
    return f"{_NAMES[row['model']]}: {at[0]}, {at[1]}"


def count() -> str:
    """Speed of counting by the number of names."""
    results = read("count")
    rows = []
    for row in results["rows"]:
        rg = (
            [f"{row['rg_mb_s']:.0f} MB/s", f"{row['share_of_rg']:.2f}".removeprefix("0")]
            if "rg_mb_s" in row
            else ["–"] * 2
        )
        speeds = [f"{row[name]:.0f} MB/s" for name in ("ours_mb_s", "ours_jsonl_zst_mb_s")]
        loop = [f"{_short(row['loop_mb_s'])} MB/s", f"{row['times_loop']:,.0f} times"]
        rows.append([f"{row['names']:,}", *speeds, *loop, *rg])
    columns = ["names", "text", "jsonl.zst", "Python loop", "as fast as the loop", "`rg`", "share of `rg`"]
    return _table(columns, rows, results)


def count_range() -> str:
    """How much faster than a loop counting is, in words."""
    return f"{_range([row['times_loop'] for row in read('count')['rows']], 0)} times a Python loop over the names"


def count_memory() -> str:
    """The peak memory of counting, over texts of several sizes."""
    rows = read("count-memory")["rows"]
    sizes = ", ".join(f"{row['text_mb']:,.0f}" for row in rows)
    return f"{max(row['peak_mb'] for row in rows):,.0f} MB of memory at most, over texts of {sizes} MB"


def attribution() -> str:
    """What attribution costs, in forward passes."""
    rows = read("attribution")["rows"]
    return " and ".join(f"{row['forward_passes']:.1f} on the shape of {_NAMES[row['model']]}" for row in rows)


def search(name: str) -> str:
    """Each method's choice and cost."""
    results = read(f"search-{name}")
    rows = []
    for row in results["rows"]:
        share = row["of the grid's"]
        of_grid = "–" if share is None else f"{share:.2f}"
        rows.append(
            (
                row["method"],
                f"{row['cells x prompts']:,.0f}",
                f"{100 * row['share']:.1f} %",
                f"{row['seconds']:,.1f}" if row["seconds"] < 100 else f"{row['seconds']:,.0f}",
                f"{100 * row['validation_change']:+.1f}",
                f"{100 * row['test_change']:+.1f}",
                of_grid,
                f"{row['published / it']:,.0f}",
            )
        )
    columns = ["method", "cells × prompts", "share of the grid", "seconds", "validation, points", "test, points"]
    return _table(
        [*columns, "share of the grid's test gain", "times as fast as the published procedure"], rows, results
    )


TABLES: dict[str, Callable[[], str]] = {
    "engine": engine,
    "engine-range": engine_range,
    "engine-layers": engine_layers,
    "count": count,
    "count-range": count_range,
    "count-memory": count_memory,
    "attribution": attribution,
    "search-organism": lambda: search("organism"),
    "search-smollm2": lambda: search("smollm2"),
}
