"""Why did an edit change the answers? The parts of the change in nats, beside controls that show what they mean.

1. Generic words lost probability ("the", "a"): then most of the gain in log-probability is that part. Chen, Bruna &
   Bietti (ICLR 2025, arXiv 2406.03068) find that late feed-forward layers learn such words, and that truncation lowers
   them. Forbidding them in the model as trained, or lowering them there by as much as the edit does, shows what this
   alone would give.
2. Answers of the right kind gained on all others, or the right answer gained on its rivals of the same kind.
3. Chance: then no part's change differs from 0 in the sample.

The verdict comes from the parts (`laser_interp.statistics.decomposition`), in which no threshold is involved.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.plots.names import PARTS
from laser_interp.statistics.accuracy_change import AccuracyChange, change
from laser_interp.statistics.decomposition import WHOLE, Decomposition, decompose
from laser_interp.statistics.formatting import points, row_in_nats
from laser_interp.statistics.paired_scores import KEYS, reported


@dataclass(frozen=True, repr=False)
class Mechanism:
    """What speaks for each explanation of a change.

    Attributes:
        parts: the change of log p(answer), taken apart.
        edit: the change of top-1 accuracy by the edit.
        masked_base: the change by forbidding generic words in the model as trained, without any edit.
        dose: the change by lowering the logits of generic words in the model as trained, by so many nats
            (`dose_nats`) that their probability is that under the edit; None where it cannot be told.
        overlap: (how many of the prompts that the edit fixes are fixed by forbidding generic words too, how many it
            fixes).
        with_masks: the change by the edit with generic words forbidden before and after it.
        among_answers: the change of how often the right answer is first among its relation's; None where answers were
            not ranked.
        zeroed: the change by deleting the matrix; None where that was not scored.
        over_zeroed: the change of log p(answer) from the deleted matrix to the edit; None where that was not scored.
        over_zeroed_masked: the same with generic words forbidden.
        p_generic: mean probability of generic words before and after.
    """

    parts: Decomposition
    edit: AccuracyChange
    masked_base: AccuracyChange
    dose: AccuracyChange | None
    dose_nats: float
    overlap: tuple[int, int]
    with_masks: AccuracyChange
    among_answers: AccuracyChange | None
    zeroed: AccuracyChange | None
    over_zeroed: pd.Series | None
    over_zeroed_masked: pd.Series | None
    p_generic: tuple[float, float]

    @property
    def chance(self) -> bool:
        """Whether neither accuracy nor any part of log-probability changes by more than chance."""
        parts = (self.parts.part(name) for name in (*self.parts.names, WHOLE))
        return not (self.edit.is_shown or self.edit.is_loss or any(row["lo"] > 0 or row["hi"] < 0 for row in parts))

    @property
    def suppression(self) -> bool:
        """Whether most of the gain in log-probability is what generic words lost."""
        return self.parts.is_most("generic")

    @property
    def rivals(self) -> bool:
        """Whether the right answer gains on rivals of the same kind, or where these are not known, on all others."""
        return self.parts.gains("rivals" if "rivals" in self.parts.names else "others")

    @property
    def kind(self) -> bool:
        """Whether answers of the right kind gain on all others."""
        return "kind" in self.parts.names and self.parts.gains("kind")

    @property
    def low_rank_matters(self) -> bool:
        """Whether the edit gains log-probability, and more of it than deleting the whole matrix does."""
        return self.over_zeroed is not None and self.over_zeroed["lo"] > 0 and self.parts.gains(WHOLE)

    @property
    def verdict(self) -> str:
        """What the parts show, in words."""
        if self.chance:
            return "Chance is enough to explain the change."
        whole = self.parts.part(WHOLE)
        if whole["hi"] < 0:
            lost = [name for name in self.parts.names if self.parts.part(name)["hi"] < 0]
            of = ", ".join(f"{PARTS[name]} ({self.parts.part(name)['share']:.0%})" for name in lost)
            text = f"The answers lose log-probability{f', as {of}' if of else ''}"
            return f"{text}, although accuracy rises." if self.edit.is_shown else f"{text}."
        if not self.parts.gains(WHOLE):
            none = f"their log-probability shows no change ({row_in_nats(whole)})"
            if self.edit.is_loss:
                return f"Accuracy falls, by more than chance, while of the answers {none}."
            if self.edit.is_shown:
                return (
                    f"Accuracy rises, while of the answers {none}: a rise in accuracy alone can be a threshold effect."
                )
            return f"Parts of the answers' log-probability change, and cancel: {none}."
        also = [name for name in self.parts.names if self.parts.gains(name) and not self.parts.is_most(name)]
        text = f"Most of the gain is {self.parts.most}" if self.parts.most else "No part is most of the gain"
        if also:
            text += f"; {' and '.join(PARTS[name] for name in also)} also {'gains' if len(also) == 1 else 'gain'}"
        if self.over_zeroed is None:
            return f"{text}."
        if self.low_rank_matters:
            return f"{text}. What is kept of the matrix is worth {row_in_nats(self.over_zeroed)} over deleting it."
        return f"{text}. What is kept of the matrix shows no worth over deleting it ({row_in_nats(self.over_zeroed)})."

    def __repr__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """The numbers for each explanation, one sentence each, and the verdict last."""
        before, after = self.p_generic
        n_also, n_fixed = self.overlap
        generic = (
            f"Generic words: under the edit their probability goes from {before:.3f} to {after:.3f}. Forbidding them "
            f"without any edit {_points(self.masked_base)}"
        )
        if self.dose is not None:
            generic += f"; lowering them as far as the edit does (by {self.dose_nats:.2f} nats) {_points(self.dose)}"
        if n_fixed:
            generic += f". Of the {n_fixed} prompts that the edit fixes, forbidding them fixes {n_also} too"
        rivals = f"Rivals: with generic words forbidden before and after, the edit {_points(self.with_masks)}"
        if self.among_answers is not None:
            rivals += f"; among its relation's answers alone, it {_points(self.among_answers)}"
        lines = [f"Right answers: {self.edit}.", self.parts.paragraph, f"{generic}.", f"{rivals}."]
        if self.zeroed is not None and self.over_zeroed is not None:
            lines.append(
                f"The whole matrix: deleting it {_points(self.zeroed)}. The edit is worth "
                f"{row_in_nats(self.over_zeroed)} more than deleting it, and {row_in_nats(self.over_zeroed_masked)} "
                "with generic words forbidden."
            )
        return [*lines, self.verdict]


def _points(found: AccuracyChange) -> str:
    return f"changes accuracy by {points(found.change, found.lo, found.hi)}"


def explain(scores: pd.DataFrame, *, edit: str = "laser", baseline: str = "base", seed: int = 0) -> Mechanism:
    """Which explanations of a change the scores support.

    Args:
        scores: from `li.score`, under the baseline and the edit, and under "zeroed" where that was scored; where it
            holds a split named "test", only that is used.
        seed: of the sign flips.

    Example:
        >>> scores = li.score(model, facts, {"base": None, "laser": laser, "zeroed": li.zeroed(model, "3.in")})
        >>> print(li.explain(scores).verdict)
        Most of the gain is generic words (...)...
    """
    scores = reported(scores)
    before, after = (scores[scores["edit"] == label] for label in (baseline, edit))
    parts = decompose(scores, edit=edit, baseline=baseline)

    def between(rows: pd.DataFrame, column: str, then: pd.DataFrame, other: str) -> AccuracyChange:
        sides = ((baseline, then, other), (edit, rows, column))
        both = pd.concat([of.assign(edit=label, correct=of[right].astype(bool)) for label, of, right in sides])
        return change(both, baseline=baseline, edit=edit, seed=seed)

    p_generic = (float(before["p_generic"].mean()), float(after["p_generic"].mean()))
    dosed, nats = _dosed(before, p_generic[1])
    ranked = bool(before["candidate_rank"].notna().all() and after["candidate_rank"].notna().all())
    zeroed = scores[scores["edit"] == "zeroed"]
    over = decompose(scores, edit=edit, baseline="zeroed") if len(zeroed) else None
    fixed = after.set_index(KEYS)["correct"].reindex(pd.MultiIndex.from_frame(before[KEYS])).to_numpy(bool)
    fixed = fixed & ~before["correct"].to_numpy(bool)
    masked = before["generic_masked_top1"].to_numpy(bool)
    return Mechanism(
        parts=parts,
        edit=between(after, "correct", before, "correct"),
        masked_base=between(before, "generic_masked_top1", before, "correct"),
        dose=None if dosed is None else between(dosed, "correct", before, "correct"),
        dose_nats=nats,
        overlap=(int((fixed & masked).sum()), int(fixed.sum())),
        with_masks=between(after, "generic_masked_top1", before, "generic_masked_top1"),
        among_answers=between(after, "candidate_top1", before, "candidate_top1") if ranked else None,
        zeroed=between(zeroed, "correct", before, "correct") if len(zeroed) else None,
        over_zeroed=None if over is None else over.part(WHOLE),
        over_zeroed_masked=None if over is None else over.without("generic"),
        p_generic=p_generic,
    )


def _dosed(base: pd.DataFrame, wanted: float) -> tuple[pd.DataFrame | None, float]:
    """The unedited model's scores with the logits of generic words lowered by a constant, so that their mean
    probability is as wanted; and that constant, in nats. None where they need not be lowered, or cannot."""
    from scipy.optimize import brentq

    share = base["p_generic"].to_numpy(float)
    if not np.isfinite(share).all() or "generic_logprob" not in base.columns or not 0 < wanted < share.mean():
        return None, 0.0

    def left(nats: float) -> np.ndarray:
        lowered = share * np.exp(-nats)
        return lowered / (1 - share + lowered)

    nats: Any = brentq(lambda c: float(left(c).mean()) - wanted, 0.0, 60.0)
    ahead = base["first_logprob"] <= base["generic_logprob"] - nats
    return base.assign(correct=base["generic_masked_top1"].astype(bool) & ~ahead), float(nats)
