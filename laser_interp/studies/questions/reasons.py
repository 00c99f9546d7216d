"""Where does the gain come from? The parts of the change in nats, and controls that show what they mean."""

from collections.abc import Mapping, Sequence
from typing import Self

from laser_interp.plots.names import PARTS
from laser_interp.statistics.formatting import interval
from laser_interp.statistics.mechanism import explain
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer

_FORBIDDEN = "…, generic words forbidden"
_IN_POINTS = {
    "masked_base": "no edit, generic words forbidden",
    "dose": "no edit, generic words lowered as far as by the edit",
    "with_masks": "the edit, generic words forbidden before and after",
    "among_answers": "the edit, among its relation's answers alone",
    "zeroed": "the matrix deleted",
}


def _ends(row: Mapping[str, float], form: str, scale: float = 1.0) -> str:
    known = [row[name] for name in ("change", "lo", "hi")]
    return interval(*(None if value is None else scale * value for value in known), form=form)


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
        found, parts = self.numbers["mechanism"], self.numbers["decomposition"]
        lines = ["| change | nats |", "|---|---|"]
        lines += [f"| {PARTS.get(name, 'log p(answer)')} | {_ends(row, '+.3f')} |" for name, row in parts.items()]
        for name, label in (("over_zeroed", "over deleting the matrix"), ("over_zeroed_masked", _FORBIDDEN)):
            lines += [f"| {label} | {_ends(found[name], '+.3f')} |"] if name in found else []
        lines += ["", "| change | points |", "|---|---|"]
        for name, label in _IN_POINTS.items():
            lines += [f"| {label} | {_ends(found[name], '+.1f', 100)} |"] if name in found else []
        before, after = found["p_generic"]
        also, fixed = found["fixed_by_masking_too"], self.numbers["change"]["n_fixed"]
        if before is None or after is None:  # the tokenizer has none of them
            return lines
        told = f"The probability of generic words goes from {before:.3f} to {after:.3f}."
        if fixed:
            told += f" Of the {fixed} prompts that the edit fixes, forbidding them without an edit fixes {also} too."
        return [*lines, "", told]

    def finding(self) -> str:
        return f"Where the gain comes from: {self.numbers['mechanism']['in_words'][-1]}"

    def page_words(self) -> Sequence[str]:
        return self.numbers["mechanism"]["in_words"][-1:]
