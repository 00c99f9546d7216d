"""Why did an edit change accuracy? Three explanations, each with the numbers that speak for or against it.

1. Generic words were suppressed ("the", "a"): then forbidding them in the model as trained, or deleting the matrix,
   does about as well, and their probability falls. Chen, Bruna & Bietti (ICLR 2025, arXiv 2406.03068) find that late
   feed-forward layers learn such words, and that truncation lowers them.
2. The right answer gained on its rivals: then accuracy also rises with generic words always forbidden, and the right
   answer is first among its relation's answers more often.
3. Chance: then the change is one that the sample cannot show.
"""

from dataclasses import dataclass

import pandas as pd

from laser_interp.statistics.accuracy_change import AccuracyChange, change
from laser_interp.statistics.formatting import points
from laser_interp.statistics.paired_scores import reported

MOST = 0.5  # this share of a gain, or more, counts as most of it


@dataclass(frozen=True)
class Mechanism:
    """What speaks for each explanation of a change.

    Attributes:
        edit: the change of top-1 accuracy by the edit.
        masked_base: the change by forbidding generic words in the model as trained, without any edit.
        with_masks: the change by the edit with generic words forbidden before and after it.
        among_answers: the change of how often the right answer is first among its relation's; None where answers were
            not ranked.
        zeroed: the change by deleting the matrix; None where that was not scored.
        over_zeroed: the change from the deleted matrix to the edit; None where that was not scored.
        p_generic: mean probability of generic words before and after.
        masked_loss: loss with generic words forbidden, before and after.
    """

    edit: AccuracyChange
    masked_base: AccuracyChange
    with_masks: AccuracyChange
    among_answers: AccuracyChange | None
    zeroed: AccuracyChange | None
    over_zeroed: AccuracyChange | None
    p_generic: tuple[float, float]
    masked_loss: tuple[float, float]

    @property
    def chance(self) -> bool:
        """Whether chance is enough to explain the change: it is neither a gain nor a loss that the sample can show."""
        return not self.edit.is_shown and not self.edit.is_loss

    @property
    def suppression(self) -> bool:
        """Whether forbidding generic words alone gives most of the gain, and the edit lowers their probability."""
        enough = self.masked_base.is_shown and self.masked_base.change >= MOST * self.edit.change
        return self.edit.is_shown and enough and self.p_generic[1] < self.p_generic[0]

    @property
    def rivals(self) -> bool:
        """Whether the right answer gains on rivals that are not generic words."""
        shown = [found for found in (self.with_masks, self.among_answers) if found is not None and found.is_shown]
        return self.edit.is_shown and bool(shown)

    @property
    def low_rank_matters(self) -> bool:
        """Whether the edit gains, deleting the whole matrix shows no gain, and the edit is better than deleting it by
        more than chance: the interesting case."""
        if self.zeroed is None or self.over_zeroed is None:
            return False
        return self.edit.is_shown and not self.zeroed.is_shown and self.over_zeroed.is_shown

    @property
    def verdict(self) -> str:
        """Which explanations the data support, in words."""
        if self.chance:
            return "Chance is enough to explain the change."
        if self.edit.is_loss:
            return "The edit loses accuracy, by more than chance: there is no gain to explain."
        names = [
            name
            for name, holds in (
                ("generic words were suppressed", self.suppression),
                ("the right answer gained on its rivals", self.rivals),
            )
            if holds
        ]
        if not names:
            return "The gain is not chance, and neither suppressed generic words nor weaker rivals explain it."
        text = f"The data support that {' and that '.join(names)}."
        if self.low_rank_matters:
            text += " Deleting the whole matrix does not help, so what is kept of it matters: the interesting case."
        return text

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """The numbers for each explanation, one sentence each, and the verdict last."""
        before, after = self.p_generic
        loss_before, loss_after = self.masked_loss
        lines = [
            f"Chance: {self.edit}.",
            f"Generic words: forbidding them in the model as trained, without any edit, {_points(self.masked_base)}; "
            f"under the edit their probability goes from {before:.3f} to {after:.3f}.",
        ]
        if self.zeroed is not None:
            lines.append(f"The whole matrix: deleting it {_points(self.zeroed)}.")
        rivals = f"Rivals: with generic words forbidden before and after, the edit {_points(self.with_masks)}"
        if self.among_answers is not None:
            rivals += f"; with only its relation's answers allowed, the edit {_points(self.among_answers)}"
        lines.append(
            f"{rivals}; the loss with generic words forbidden goes from {loss_before:.3f} to {loss_after:.3f}."
        )
        return [*lines, self.verdict]


def _points(found: AccuracyChange) -> str:
    return f"changes accuracy by {points(found.change, found.lo, found.hi)}"


def explain(scores: pd.DataFrame, *, edit: str = "laser", baseline: str = "base", seed: int = 0) -> Mechanism:
    """Which of three explanations of a change the scores support.

    Args:
        scores: from `li.score`, under the baseline and the edit, and under "zeroed" where that was scored; where it
            holds a split named "test", only that is used.
        seed: of the sign flips.

    Example:
        >>> scores = li.score(model, facts, {"base": None, "laser": laser, "zeroed": li.zeroed(model, "3.in")})
        >>> print(li.explain(scores).verdict)
        The data support that generic words were suppressed...
    """
    scores = reported(scores)
    labels = set(scores["edit"])
    before, after = (scores[scores["edit"] == label] for label in (baseline, edit))

    def of(rows: pd.DataFrame, column: str, label: str) -> pd.DataFrame:
        right = rows[column].astype(bool)
        return rows.assign(edit=label, correct=right, top1=right, score=right.astype(float))

    def between(rows: pd.DataFrame, column: str, then: pd.DataFrame, other: str) -> AccuracyChange:
        both = pd.concat([of(then, other, baseline), of(rows, column, edit)], ignore_index=True)
        return change(both, baseline=baseline, edit=edit, seed=seed)

    ranked = bool(before["candidate_rank"].notna().all() and after["candidate_rank"].notna().all())
    zeroed = scores[scores["edit"] == "zeroed"]
    return Mechanism(
        edit=between(after, "correct", before, "correct"),
        masked_base=between(before, "generic_masked_top1", before, "correct"),
        with_masks=between(after, "generic_masked_top1", before, "generic_masked_top1"),
        among_answers=between(after, "candidate_top1", before, "candidate_top1") if ranked else None,
        zeroed=between(zeroed, "correct", before, "correct") if "zeroed" in labels else None,
        over_zeroed=between(after, "correct", zeroed, "correct") if "zeroed" in labels else None,
        p_generic=(float(before["p_generic"].mean()), float(after["p_generic"].mean())),
        masked_loss=tuple(-float(rows["generic_masked_logprob"].mean()) for rows in (before, after)),  # type: ignore[arg-type]
    )
