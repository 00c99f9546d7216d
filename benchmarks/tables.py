"""Write the benchmarks' results into the documentation: `python -m benchmarks tables`.

A page marks each place with `<!-- benchmark: engine -->` before a table or a few words, and `<!-- /benchmark -->` after
it. The results are the files in `benchmarks/results/`, written with `--json`. A test fails if a page differs from them.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import read

PAGES = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"(<!-- benchmark: ([\w-]+) -->)(.*?)(<!-- /benchmark -->)", re.DOTALL)


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
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
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


def count() -> str:
    """Speed of counting by the number of names."""
    results = read("count")
    rows = []
    for row in results["rows"]:
        speeds = [f"{row[name]:.0f} MB/s" for name in ("ours_mb_s", "ours_jsonl_zst_mb_s")]
        rows.append([f"{row['names']:,}", *speeds, f"{_short(row['loop_mb_s'])} MB/s", f"{row['times_loop']:,.0f}"])
    return _table(["names", "text", "jsonl.zst", "Python loop", "times as fast as the loop"], rows, results)


def count_range() -> str:
    """How much faster than a loop counting is, in words."""
    return f"{_range([row['times_loop'] for row in read('count')['rows']], 0)} times a Python loop over the names"


def count_pile() -> str:
    """What counting CounterFact in the Pile would cost, by the measured rate."""
    (row,) = (row for row in read("count")["rows"] if row["names"] == 20_000)
    rate = row["ours_jsonl_zst_mb_s"]
    hours = 830_000 / rate / 3600
    return (
        f"At {rate:.0f} MB/s a core for 20,000 names (CounterFact's) that is {hours:.0f} core-hours;\n`--executor ray` "
        f"gives each file to another core of a cluster, so 30 cores need {60 * hours / 30:.0f} minutes."
    )


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


def race_share() -> str:
    """The share of SmolLM2's grid that its study's race cost."""
    summary = json.loads((PAGES.parent / "figures" / "smollm2" / "summary.json").read_text(encoding="utf-8"))
    return f"{100 * summary['search']['share_of_grid']:.1f} %"


_MODELS = {
    "gpt2-small": "GPT-2 small",
    "pythia-160m": "Pythia 160M",
    "gptj": "GPT-J's block, GPT-2's size",
    "llama": "Llama's block, GPT-2's size",
    "llama3-0.5b": "0.5B, 128,256 words (Llama 3's)",
    "gemma3-1b": "Gemma 3 1B, 262,144 words",
}


def engine(name: str) -> str:
    """How much faster the scoring engine is."""
    results = read(name)
    rows = []
    for row in results["rows"]:
        ratios = [f"{row['ratio_published']:.1f}", f"{row['ratio_plain']:.1f}", _short(row["gemm_fraction"])]
        rows.append([_MODELS[row["model"]], _short(row["ms_per_cell_prompt"]), *ratios])
    columns = ["random model, fp32", "ms per cell and prompt", "times the speed of the published procedure"]
    return _table([*columns, "of the strongest plain loop", "share of matrix-product rate"], rows, results)


def engine_large() -> str:
    """How fast the scoring engine is where the vocabulary is large, and how its time grows."""
    files = [read(name) for name in ("engine-llama3", "engine-gemma3")]
    rows = []
    for results in files:
        for row in results["rows"]:
            grows = [_short(row[f"slope_{name}"]) for name in ("prompts", "cells", "layers", "vocabulary")]
            numbers = [f"{row['ms_per_cell_prompt']:.1f}", f"{row['ratio_plain']:.1f}", _short(row["gemm_fraction"])]
            rows.append([_MODELS[row["model"]], *numbers, ", ".join(grows), _short(row["at_last"])])
    columns = ["random model, fp32", "ms per cell and prompt", "times the speed of the strongest plain loop"]
    columns += ["share of matrix-product rate", "exponents: prompts, cells, layers, vocabulary", "at the last position"]
    commands = {"command": "`, `".join(results["command"] for results in files)}
    return _table(columns, rows, files[-1] | commands)


def engine_range() -> str:
    """How much faster the scoring engine is, in words."""
    rows = read("engine")["rows"]
    published, plain = ([row[name] for row in rows] for name in ("ratio_published", "ratio_plain"))
    return f"{_range(published, 0)} times the published procedure, {_range(plain, 1)} times the strongest plain loop"


def attribution() -> str:
    """What an attribution pass costs, in words."""
    rows = read("attribution")["rows"]
    return " and ".join(f"{row['forward_passes']:.1f} forward passes for {_MODELS[row['model']]}" for row in rows)


def frequency() -> str:
    """What the analysis of rare facts costs, in words."""
    most = max(read("frequency")["rows"], key=lambda row: row["facts"])
    parts = ", ".join(f"`li.{name}` {most[name]:.1f} s" for name in ("associate", "decompose", "explain"))
    return f"of {most['facts']:,.0f} facts: {parts}"


TABLES: dict[str, Callable[[], str]] = {
    "attribution": attribution,
    "frequency": frequency,
    "count": count,
    "count-pile": count_pile,
    "count-range": count_range,
    "engine": lambda: engine("engine"),
    "engine-gpu": lambda: engine("engine-gpu"),
    "engine-large": engine_large,
    "engine-range": engine_range,
    "race-share": race_share,
    "search-organism": lambda: search("organism"),
    "search-smollm2": lambda: search("smollm2"),
}
