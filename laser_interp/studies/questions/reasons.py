"""Where does the gain come from? The parts of the change in nats, and controls that show what they mean."""

from collections.abc import Mapping, Sequence
from typing import Self

from laser_interp.plots.names import PARTS
from laser_interp.statistics.formatting import interval
from laser_interp.statistics.mechanism import explain
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer

_ENDS = ["change", "lo", "hi"]
_IN_NATS = {"over_zeroed": "over deleting the matrix", "over_zeroed_masked": "…, generic words forbidden"}
_IN_POINTS = {
    "masked_base": "no edit, generic words forbidden",
    "dose": "no edit, generic words lowered as far as by the edit",
    "with_masks": "the edit, generic words forbidden before and after",
    "among_answers": "the edit, among its relation's answers alone",
    "zeroed": "the matrix deleted",
}


def _ends(row: Mapping[str, float], form: str, scale: float = 1.0) -> str:
    return interval(*(None if row[name] is None else scale * row[name] for name in _ENDS), form=form)


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
            **{name: {end: getattr(part, end) for end in _ENDS} for name, part in parts.items()},
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
        in_nats = table.set_index("part")[_ENDS].to_dict("index")
        return cls({"decomposition": table}, {"mechanism": numbers, "decomposition": in_nats})

    def lines(self) -> Sequence[str]:
        found, parts = self.numbers["mechanism"], self.numbers["decomposition"]
        lines = ["| change | nats |", "|---|---|"]
        lines += [f"| {PARTS.get(name, 'log p(answer)')} | {_ends(row, '+.3f')} |" for name, row in parts.items()]
        lines += [f"| {label} | {_ends(found[name], '+.3f')} |" for name, label in _IN_NATS.items() if name in found]
        lines += ["", "| change | points |", "|---|---|"]
        shown = [(label, found[name]) for name, label in _IN_POINTS.items() if name in found]
        lines += [f"| {label} | {_ends(row, '+.1f', 100)} |" for label, row in shown]
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
