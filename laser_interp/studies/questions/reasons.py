"""Where does the gain come from? The parts of the change in nats, and controls that show what they mean."""

from collections.abc import Sequence
from typing import Self

from laser_interp.statistics.mechanism import explain
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer


class Reasons(Answer):
    """What `li.decompose` and `li.explain` say of the edit and its controls."""

    key = "mechanism"
    title = "Where the gain comes from"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        if context.task.rule != "next_token":
            return None
        found = explain(context.scores, seed=context.settings.study_seed)
        names = ("masked_base", "dose", "with_masks", "among_answers", "zeroed", "over_zeroed", "over_zeroed_masked")
        parts = {name: part for name in names if (part := getattr(found, name)) is not None}
        numbers = {
            **{name: {"change": part.change, "lo": part.lo, "hi": part.hi} for name, part in parts.items()},
            "dose_nats": found.dose_nats,
            "fixed_by_masking_too": found.overlap[0],
            "p_generic": list(found.p_generic),
            "chance": found.chance,
            "suppression": found.suppression,
            "kind": found.kind,
            "rivals": found.rivals,
            "low_rank_matters": found.low_rank_matters,
            "in_words": found.sentences(),
        }
        table = found.parts.table
        in_nats = {row["part"]: {k: row[k] for k in ("change", "lo", "hi")} for row in table.to_dict("records")}
        return cls({"decomposition": table}, {"mechanism": numbers, "decomposition": in_nats})

    def lines(self) -> Sequence[str]:
        _, *numbers, _ = self.numbers["mechanism"]["in_words"]  # the first and the last are among the findings
        return [f"- {line}" for line in numbers]

    def finding(self) -> str:
        return f"Where the gain comes from: {self.numbers['mechanism']['in_words'][-1]}"

    def page_words(self) -> Sequence[str]:
        return self.numbers["mechanism"]["in_words"][-1:]
