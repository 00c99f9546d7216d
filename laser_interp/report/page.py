"""A run as one HTML page that a colleague without Python can explore: `laser-interp report RUN -o report.html`.

The page holds everything it needs, even the charting library, and loads nothing from a network. It shows the run's
tables. Python computes the intervals and frequency views; the page's script computes none.
"""

import base64
import gzip
import json
import math
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.extras import require
from laser_interp.progress import progress_bar
from laser_interp.report import page_data
from laser_interp.report.run_reader import FinishedRun, read_frequencies, read_run
from laser_interp.report.training_page import TABLE, training_page
from laser_interp.report.two_runs import labels_of, side_by_side
from laser_interp.storage.atomic import write_text
from laser_interp.storage.run_folder import find_table

MAX_FACTS = 20_000
MAX_BYTES = 9_500_000
_HERE = Path(__file__).parent


def write_report(
    run: str | Path,
    out: str | Path,
    *,
    compare_with: str | Path | None = None,
    counts: pd.DataFrame | None = None,
    max_facts: int = MAX_FACTS,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write a run as one self-contained HTML page.

    Args:
        run: folder of `li.search`, `li.study`, `li.trajectory` or `laser-interp reproduce`. The page uses every search
            in it of the same model and facts. From a search with `controls=["discarded"]` and `alphas` it shows what
            the discarded part answers, and the curve against α.
        out: the .html file.
        compare_with: folder of a second run. The page then begins with a comparison of the two, and shows either.
        counts: from `li.count` or elsewhere; None takes those in the run, or the facts' own frequencies.
        max_facts: most facts in the table of facts; a larger set is sampled with `seed`, and the page says so. Figures
            always use all facts.
        max_bytes: largest size of the page. It holds the answers of as many edits as fit, those of the chosen edit
            first. Whether an answer is right is there for every edit.
        seed: of the sample of facts and of the permutations.

    Raises:
        FileNotFoundError: no finished run in a folder.
        ValueError: no folder was given, the counts lack a fact, or the page does not fit into `max_bytes`.

    Example:
        >>> search = li.search(model, facts, matrices="in", rhos=[0.05], out="searched")
        >>> li.write_report("searched", "report.html")
    """
    folders = [run] if compare_with is None else [run, compare_with]
    for folder in folders:
        if not isinstance(folder, str | Path):
            raise ValueError(f"the run is a {type(folder).__name__}: expected the folder that its out= wrote")
    if find_table(run, TABLE) is not None:
        for given, what in ((compare_with, "the second run"), (counts, "counts")):
            if given is not None:
                raise ValueError(f"{run} holds a trajectory, which has a page of its own: leave {what} out")
        return write_text(training_page(Path(run), (_HERE / "page.css").read_text(encoding="utf-8")), out)
    return write_text(assembled(page_of(folders, counts, max_facts, max_bytes, seed, progress)), out)


def page_of(
    runs: Sequence[str | Path],
    counts: pd.DataFrame | None = None,
    max_facts: int = MAX_FACTS,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """What a page shows of one run or two; see `write_report`."""
    folders = [Path(folder) for folder in runs]
    loaded = [read_run(folder) for folder in folders]
    room = (max_bytes - sum(map(len, _page_parts().values())) - 4096) // len(runs)
    shown = [
        _fitting(folder, one, counts, max_facts, room, seed, progress)
        for folder, one in zip(folders, loaded, strict=True)
    ]
    data: dict[str, Any] = {"runs": shown, "labels": labels_of(folders, loaded)}
    if len(runs) > 1:
        data["side_by_side"] = side_by_side(folders, loaded, data["labels"])
    return data


def _fitting(
    folder: Path, loaded: FinishedRun, counts: pd.DataFrame | None, max_facts: int, room: int, seed: int, progress: bool
) -> dict[str, Any]:
    """The data of one run for the page, with as many facts and answers as fit into `room` bytes."""
    known = read_frequencies(folder, loaded, counts)
    lasers = loaded.chosen_among
    data = page_data.fixed_part(loaded, lasers, known)
    data["study"] = page_data.study_part(folder)
    if known is not None and (found := page_data.by_frequency(loaded, known, lasers, seed, progress))["cells"]:
        of_study = data["study"] and data["study"].pop("frequency")
        if of_study and counts is None:  # with generic words forbidden too, which a search does not keep
            found["paragraph"] = of_study
        data["frequency"] = found
    needed = [loaded.selected, ""]
    order = list(dict.fromkeys([*needed, *page_data.by_interest(loaded, lasers)]))
    n_facts = max_facts
    while True:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(loaded.facts))[:n_facts])
        items = page_data.items_of(loaded, chosen)
        shown = page_data.facts_part(loaded, lasers, chosen, known)
        left = room - len(_zipped(data | shown))
        packed: dict[str, Any] = {}
        words: dict[str, int] = {"": 0}
        fits = True
        for name in progress_bar(order, desc="answers", disable=not progress, leave=False):
            before = len(words)
            answers = loaded.answers(name)
            if answers is None:
                continue
            columns = page_data.encoded(answers, items, words)
            new = "".join(list(words)[before:])
            left -= sum(math.ceil(len(zlib.compress(v)) * 1.4) for v in columns.values()) + 2 * len(new) + 200
            if left < 0:
                fits = name not in needed
                words = {word: i for word, i in words.items() if i < before}  # those of this edit are not shown
                break
            packed[name] = {key: base64.b64encode(value).decode() for key, value in columns.items()}
        if fits:
            break
        if len(chosen) < 20:
            raise ValueError(f"{room} bytes are too few for the run {folder}: give a larger max_bytes")
        n_facts = len(chosen) // 2
    data |= shown | {"answers": list(words), "details": packed}
    data["about"] |= {
        "facts_shown": len(chosen),
        "answers_of": len(packed),
        "answers_of_all": len(packed) == len(order),
        "sample_seed": seed,
    }
    return data


def _zipped(content: Any) -> str:
    """A text, or data for JSON."""
    text = content if isinstance(content, str) else json.dumps(content, allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@cache
def _page_parts() -> dict[str, str]:
    require("page", "plotly", what="the report")
    from plotly.offline import get_plotlyjs

    return {
        "STYLE": (_HERE / "page.css").read_text(encoding="utf-8"),
        "SCRIPT": (_HERE / "page.js").read_text(encoding="utf-8"),
        "PLOTLY": _zipped(get_plotlyjs()),
    }


def assembled(data: dict[str, Any]) -> str:
    """A page. Data are base64, so that no text of a fact is ever read as HTML or as a script."""
    text = (_HERE / "page.html").read_text(encoding="utf-8")
    for name, value in (_page_parts() | {"DATA": _zipped(data)}).items():
        text = text.replace(f"/*{name}*/", value)
    return text
