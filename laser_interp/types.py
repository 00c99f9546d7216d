"""What the functions return, and the settings that they take: for type annotations, and to keep settings."""

from laser_interp.discarded.attribution import Attribution
from laser_interp.discarded.continued_text import Continuations
from laser_interp.discarded.one_prompt import Probe
from laser_interp.selection.composition import Composition
from laser_interp.selection.cost_estimate import Estimate
from laser_interp.selection.search_result import Search, Selection
from laser_interp.selection.settings import CompositionSettings, SearchSettings
from laser_interp.statistics.accuracy_change import AccuracyChange
from laser_interp.statistics.association import Association
from laser_interp.statistics.comparison import Comparison
from laser_interp.statistics.decomposition import Decomposition
from laser_interp.statistics.mechanism import Mechanism
from laser_interp.studies.pipeline import Study
from laser_interp.studies.run_comparison import RunComparison
from laser_interp.studies.settings import StudySettings
from laser_interp.studies.training_checkpoints import Checkpoint
from laser_interp.studies.training_trajectory import Trajectory
from laser_interp.verification.model_check import Check

__all__ = [
    "AccuracyChange",
    "Association",
    "Attribution",
    "Check",
    "Checkpoint",
    "Comparison",
    "Composition",
    "CompositionSettings",
    "Continuations",
    "Decomposition",
    "Estimate",
    "Mechanism",
    "Probe",
    "RunComparison",
    "Search",
    "SearchSettings",
    "Selection",
    "Study",
    "StudySettings",
    "Trajectory",
]
