"""Which truncation helps? The search, with every ρ and the discarded part at the chosen site."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

from laser_interp.statistics.formatting import points
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer


class EditChoice(Answer):
    """The edit that validation chose, and every cell that was looked at."""

    schemas: ClassVar[Mapping[str, str]] = {"cells": "cells"}
    key = "selected"
    title = "Which truncation helps"

    @classmethod
    def ask(cls, context: StudyContext) -> Self:
        if context.task.rule == "next_token":
            _ = context.around  # its cells are for the page
        cell, selected, spent = context.cell, context.selection, context.search.spent
        single = {"score": selected.score, "loss": selected.loss}
        chosen = dict(single)
        if cell != context.single:
            last = context.composition.by_step.iloc[-1].to_dict()
            chosen = {name: float(last[f"validation_{name}"]) for name in ("score", "loss")}
        numbers: dict[str, Any] = {
            "selected": {
                "cell": str(cell),
                "single": str(context.single),
                "site": "+".join(map(str, cell.sites)),
                "rho": cell.rho,
                "rank": cell.rank,
                "improves_validation": selected.improves,
                "validation": {
                    "base": {"score": selected.base_score, "loss": selected.base_loss},
                    "laser": chosen,
                    "single": single,
                },
            },
            "search": None if spent is None else asdict(spent) | {"in_words": str(spent)},
        }
        return cls({"cells": context.search.cells}, numbers)

    def lines(self) -> Sequence[str]:
        selected, search = self.numbers["selected"], self.numbers["search"]
        validation = selected["validation"]
        gain = {name: points(row["score"] - validation["base"]["score"]) for name, row in validation.items()}
        no_better = "" if selected["improves_validation"] else ", which is **no better than no edit** there"
        looked_at = f", after {search['in_words']}" if search else ""
        return [
            f"Validation chose `{selected['single']}`{no_better}{looked_at}. It changes the score by {gain['single']} "
            "on the validation facts."
            + (
                f" Validation prefers the composition `{selected['cell']}`, which changes it by {gain['laser']}: this "
                "is the edit that is analysed below, called LASER."
                if selected["cell"] != selected["single"]
                else ""
            )
        ]

    def page_words(self) -> Sequence[str]:
        chosen = self.numbers["selected"]
        kept = "largest direction is" if chosen["rank"] == 1 else f"{chosen['rank']} largest directions are"
        several = "+" in chosen["site"] or chosen["rank"] is None
        what = "how much of them is kept" if several else f"that its {kept} kept"
        return [
            "LASER replaces weight matrices of a language model by simpler ones, made of their largest singular "
            f"directions. Validation facts chose {'the matrices' if several else 'the matrix'} {chosen['site']} (its "
            f"layer, counted from 0, and its name), and {what}."
        ]
