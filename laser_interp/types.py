"""What the functions return, and the settings that they take: for type annotations, and to keep settings."""

from laser_interp.discarded.attribution import Attribution as Attribution
from laser_interp.discarded.continued_text import Continuations as Continuations
from laser_interp.discarded.one_prompt import Probe as Probe
from laser_interp.selection.composition import Composition as Composition
from laser_interp.selection.cost_estimate import Estimate as Estimate
from laser_interp.selection.search_result import Search as Search
from laser_interp.selection.search_result import Selection as Selection
from laser_interp.selection.settings import CompositionSettings as CompositionSettings
from laser_interp.selection.settings import SearchSettings as SearchSettings
from laser_interp.statistics.accuracy_change import AccuracyChange as AccuracyChange
from laser_interp.statistics.association import Association as Association
from laser_interp.statistics.comparison import Comparison as Comparison
from laser_interp.statistics.decomposition import Decomposition as Decomposition
from laser_interp.statistics.mechanism import Mechanism as Mechanism
from laser_interp.studies.pipeline import Study as Study
from laser_interp.studies.run_comparison import RunComparison as RunComparison
from laser_interp.studies.settings import StudySettings as StudySettings
from laser_interp.studies.training_checkpoints import Checkpoint as Checkpoint
from laser_interp.studies.training_trajectory import Trajectory as Trajectory
from laser_interp.verification.model_check import Check as Check
