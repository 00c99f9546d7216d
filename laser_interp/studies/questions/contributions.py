"""What does each edit of a composition contribute? Every subset of its edits, and what is lost without each."""

from collections.abc import Sequence
from itertools import combinations
from typing import Self

import pandas as pd

from laser_interp.cluster_intervals import Clusters, with_interval
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.edits.sites import Site
from laser_interp.scoring.scores import summarise
from laser_interp.statistics.formatting import in_nats, points
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable

MOST = 4  # edits of which all subsets are scored; of more, each alone and all but each
COLUMNS = ("accuracy", "generic_masked_top1", "loss")


class Contributions(Answer):
    """The test scores of subsets of the edits, one row each, and of each edit the change that it adds to the others."""

    key = "contributions"
    title = "What does each edit contribute?"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        whole = context.cell
        if len(whole.sites) < 2:
            return None
        _ = context.scores  # with answers ranked, so that they are not scored again
        edits: dict[str, EditSpec | None] = {"base": None}
        edits |= {_name(sites): whole.of_sites(sites) for sites in subsets(whole.sites)}
        scores = context.store.scores(context.test, edits, candidates=False)
        table = summarise(scores)[["edit", *COLUMNS, "n"]].rename(columns={"edit": "edits"})
        table.insert(1, "n_edits", [0 if name == "base" else name.count("+") + 1 for name in table["edits"]])
        by_edit = dict(tuple(scores.groupby("edit", sort=False)))
        together, clusters = by_edit[_name(whole.sites)], Clusters(by_edit["base"]["subject"])
        rows = []
        for site in whole.sites:
            without = by_edit[_name([other for other in whole.sites if other != site])]
            row: dict[str, object] = {"edit": str(site)}
            for name, column in (("accuracy", "correct"), ("nats", "logprob")):
                values = [frame[column].to_numpy(float) for frame in (without, together)]
                row |= with_interval(name, clusters.change(*values))
            rows.append(row)
        added = pd.DataFrame(rows)
        numbers = {"subsets": table.to_dict("records"), "added": rows}
        return cls({"subsets": table, "contributions": added}, {"contributions": numbers})

    def lines(self) -> Sequence[str]:
        found = self.numbers["contributions"]
        of = {row["edits"]: row for row in found["subsets"]}
        lines = ["| edits | accuracy | generic words masked | loss |", "|---|---|---|---|"]
        for name, row in of.items():
            shown = ["none" if name == "base" else name, *(f"{row[column]:.3f}" for column in COLUMNS)]
            lines.append(f"| {' | '.join(shown)} |")
        told = []
        for row in found["added"]:
            accuracy = points(row["accuracy"], row["accuracy_lo"], row["accuracy_hi"])
            nats = in_nats(row["nats"], row["nats_lo"], row["nats_hi"])
            told.append(f"{row['edit']} changes accuracy by {accuracy} and log p(answer) by {nats}")
        base = of["base"]["accuracy"]
        alone = sum(of[row["edit"]]["accuracy"] - base for row in found["added"])
        whole = max(found["subsets"], key=lambda row: row["n_edits"])["accuracy"] - base
        return [
            *lines,
            "",
            f"Added to the others, {'; '.join(told)}. Alone, the edits change accuracy by {points(alone)} in sum, and "
            f"together by {points(whole)}.",
        ]

    def page_table(self) -> PageTable:
        return PageTable(
            "contributions",
            "What each edit contributes",
            "Test prompts under every subset of the edits.",
            ("edits", "accuracy", "generic words masked", "loss", "prompts"),
            self.tables["subsets"].replace({"edits": {"base": "none"}}).drop(columns="n_edits"),
        )


def subsets(sites: Sequence[Site]) -> list[tuple[Site, ...]]:
    """All subsets of up to four edits, the smallest first; of more edits, each alone, all but each, and all."""
    n = len(sites)
    sizes = range(1, n + 1) if n <= MOST else (1, n - 1, n)
    return [chosen for size in sizes for chosen in combinations(sites, size)]


def _name(sites: Sequence[Site]) -> str:
    return "+".join(map(str, sites))
