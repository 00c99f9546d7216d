"""The questions of a study, in the order in which they are asked and reported; each is one file."""

from laser_interp.studies.question import Answer
from laser_interp.studies.questions.answers import BesideAccuracy
from laser_interp.studies.questions.better_prompts import BetterPrompts
from laser_interp.studies.questions.composition import SeveralEdits
from laser_interp.studies.questions.contributions import Contributions
from laser_interp.studies.questions.control_model import OnControlModel
from laser_interp.studies.questions.controls import BesideControls
from laser_interp.studies.questions.directions import Directions
from laser_interp.studies.questions.discarded_part import DiscardedPart
from laser_interp.studies.questions.edit_choice import EditChoice
from laser_interp.studies.questions.paraphrases import Paraphrases
from laser_interp.studies.questions.rare_facts import RareFacts
from laser_interp.studies.questions.reasons import Reasons
from laser_interp.studies.questions.relations import Relations
from laser_interp.studies.questions.side_effects import SideEffects

QUESTIONS: tuple[type[Answer], ...] = (
    EditChoice,
    BesideControls,
    BetterPrompts,
    Contributions,
    OnControlModel,
    Reasons,
    Relations,
    BesideAccuracy,
    RareFacts,
    DiscardedPart,
    Paraphrases,
    SeveralEdits,
    SideEffects,
    Directions,
)
