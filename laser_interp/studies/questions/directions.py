"""Which singular directions help or harm?"""

import math
from typing import Self

import pandas as pd

from laser_interp.discarded.attribution import attribute
from laser_interp.edits.edit import Edit
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer


class Directions(Answer):
    """The spectrum of the edited matrices, and the mean gradient of each direction of the model."""

    @classmethod
    def ask(cls, context: StudyContext) -> Self:
        tables = {"spectrum": spectrum_table(context.edit)}
        wanted = context.settings.attribute
        if context.task.rule == "next_token" if wanted is None else wanted:
            facts = context.facts.split("validation")
            if context.settings.attributed is not None:
                facts = facts.draw(context.settings.attributed, seed=context.settings.study_seed)
            tables["directions_gradients"] = attribute(context.model, facts, progress=context.progress).summary()
        return cls(tables, {})


def spectrum_table(edit: Edit) -> pd.DataFrame:
    """The singular values of an edit's sites: `site, direction, singular_value, noise_edge, rank_kept`.

    The rank is not known (NaN) where an edit keeps other directions than the first, as learned gains do.
    """
    frames = []
    for site, part in edit.parts.items():
        kept = int((part.gains != 0).sum())
        rank = kept if bool((part.gains[:kept] == 1).all()) else math.nan
        frames.append(part.spectrum.figure_tables["spectrum"].assign(site=str(site), rank_kept=rank))
    return pd.concat(frames, ignore_index=True)
