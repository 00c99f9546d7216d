"""Controls of an edit, and other edits of the same size: what a claim about it is compared with."""

from laser_interp.edits.controls import bottom_kept as bottom_kept
from laser_interp.edits.controls import random_equal_energy as random_equal_energy
from laser_interp.edits.controls import random_kept as random_kept
from laser_interp.edits.controls import random_subspace as random_subspace
from laser_interp.edits.controls import same_rank_in_layer as same_rank_in_layer
from laser_interp.edits.controls import same_spectrum_random as same_spectrum_random
from laser_interp.edits.other_changes import pruned as pruned
from laser_interp.studies.questions.discarded_part import discarded_controls as discarded_controls
