"""Which singular directions help or harm?"""

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
    """The singular values of an edit's sites: `site, direction, singular_value, noise_edge, rank_kept`."""
    frames = []
    for site, part in edit.parts.items():
        frame = part.spectrum.figure_tables["spectrum"]
        frames.append(frame.assign(site=str(site), rank_kept=int((part.gains != 0).sum())))
    return pd.concat(frames, ignore_index=True)
