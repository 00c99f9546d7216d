"""Are facts right on all of their prompts?"""

from collections.abc import Sequence
from typing import Self

from laser_interp.plots.names import plain_name
from laser_interp.statistics.formatting import interval
from laser_interp.statistics.paraphrases import robustness
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable


class Paraphrases(Answer):
    """How far the prompts of a fact agree, as trained and under the edit."""

    key = "paraphrases"
    title = "Paraphrases"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        table = robustness(context.scores_of_all_prompts)
        if table.empty:
            return None
        rows = {row.pop("edit"): row for row in table.to_dict("records")}
        return cls({"robustness": table}, {"paraphrases": rows})

    def lines(self) -> Sequence[str]:
        before, after = (self.numbers["paraphrases"][name] for name in ("base", "laser"))
        all_right = [interval(*(row[f"all_right{end}"] for end in ("", "_lo", "_hi"))) for row in (before, after)]
        return [
            "| | as trained | LASER |",
            "|---|---|---|",
            f"| facts right on all of their prompts | {all_right[0]} | {all_right[1]} |",
            f"| pairs of prompts with one answer | {before['agreement']:.3f} | {after['agreement']:.3f} |",
        ]

    def page_table(self) -> PageTable:
        rows = self.tables["robustness"]
        return PageTable(
            "paraphrases",
            "Paraphrases",
            "Share of facts that are right on all of their prompts; share of prompts that are right; share of "
            "facts that are right on any prompt; and how often two prompts of a fact get the same answer.",
            ("edit", "right on all", "right, per prompt", "right on any", "prompts agree"),
            rows.assign(edit=rows["edit"].map(plain_name))[["edit", "all_right", "accuracy", "any_right", "agreement"]],
        )
