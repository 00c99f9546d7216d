"""Controls of an edit, and other edits of the same size: what a claim about it is compared with."""

from laser_interp.edits.controls import (
    bottom_kept,
    random_equal_energy,
    random_kept,
    random_subspace,
    same_rank_in_layer,
    same_spectrum_random,
)
from laser_interp.edits.other_changes import pruned
from laser_interp.studies.questions.discarded_part import discarded_controls

__all__ = [
    "bottom_kept",
    "discarded_controls",
    "pruned",
    "random_equal_energy",
    "random_kept",
    "random_subspace",
    "same_rank_in_layer",
    "same_spectrum_random",
]
