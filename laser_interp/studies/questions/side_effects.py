"""What does the edit cost elsewhere? Perplexity of running text, where one was given."""

from collections.abc import Sequence
from typing import Self

import pandas as pd

from laser_interp.plots.names import plain_name
from laser_interp.scoring.text_loss import perplexity
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable


class SideEffects(Answer):
    """Perplexity before and after."""

    key = "perplexity"
    title = "Side effects"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        if context.text is None:
            return None
        if context.cell.at is not None:
            context.notes.append(
                "the edit acts at chosen positions of prompts, which running text does not have: its perplexity is not "
                "measured"
            )
            return None
        edits = {"base": None, "laser": context.edit}
        if context.cell != context.single:
            edits["single"] = context.single.edit(context.model)
        rows = [{"edit": name} | perplexity(context.model, context.text, edit) for name, edit in edits.items()]
        return cls({"perplexity": pd.DataFrame(rows)}, {"perplexity": rows})

    def lines(self) -> Sequence[str]:
        before, after, *others = (row["perplexity"] for row in self.numbers["perplexity"])
        single = f", {others[0]:.2f} under the single edit" if others else ""
        return [f"Perplexity of running text: {before:.2f} before, {after:.2f} after{single}."]

    def page_table(self) -> PageTable:
        rows = self.tables["perplexity"]
        return PageTable(
            "perplexity",
            "Side effects",
            "Perplexity of running text: what the edit costs where no fact is asked for. Lower is better.",
            ("edit", "perplexity", "tokens"),
            rows.assign(edit=rows["edit"].map(plain_name))[["edit", "perplexity", "n_tokens"]],
        )
