"""The settings of a study, for Python and the command line."""

import math
from dataclasses import dataclass

from laser_interp.choices import AskedPrompts, CompositionMethod, StudySubject, check_choice, check_seed, whole_number
from laser_interp.selection.settings import SearchSettings, several


@dataclass(frozen=True, kw_only=True)
class StudySettings(SearchSettings):
    """The settings of the search, and of the analyses of the edit that it chooses.

    Attributes:
        subject: The edit that is analysed: the strongest is the composition where validation prefers it to the single
            edit; both analyses the single edit as well, in the folder single.
        prompts: Ask the first prompt of each fact, or all of them. With first, its paraphrases are asked only as
            trained and under the edit.
        n_draws: How often each random control is drawn.
        shares: Shares of the discarded part whose answers are read.
        strengths: Strengths at which the discarded part is injected at the chosen site.
        compose: Whether edits are composed; by default where the rule is next_token.
        composition: How edits are composed: guided by gradients, or greedy, in the paper's order.
        most_edits: Largest number of edits that are composed.
        chance: How often the race and the composition are repeated with answers dealt anew within each relation, to see
            how much a composition gains by chance on validation.
        examples: Solved facts of the relation before each prompt, as a control of the edit. 0 asks no such prompts.
        attribute: Whether the directions that help and harm are attributed; by default where the rule is next_token.
        attributed: Prompts whose gradients this takes, drawn from validation; all of them if left out.
        n_permutations: Permutations of subjects behind each p-value.
        study_seed: Seed of the controls and the permutations.
    """

    subject: StudySubject = "strongest"
    prompts: AskedPrompts = "first"
    n_draws: int = 20
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    strengths: tuple[float, ...] = (-0.5, 0.25, 0.5, 0.75, 1.5)
    compose: bool | None = None
    composition: CompositionMethod = "guided"
    most_edits: int | None = None
    chance: int = 0
    examples: int = 3
    attribute: bool | None = None
    attributed: int | None = None
    n_permutations: int = 1999
    study_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_draws", "n_permutations"):
            whole_number(name, getattr(self, name), at_least=1)
        for name in ("chance", "examples"):
            whole_number(name, getattr(self, name), at_least=0)
        for name in ("most_edits", "attributed"):
            if (given := getattr(self, name)) is not None:
                whole_number(name, given, at_least=1, more="more, or nothing")
        check_seed("study_seed", self.study_seed)
        check_choice("subject", self.subject, StudySubject)
        check_choice("prompts", self.prompts, AskedPrompts)
        check_choice("composition", self.composition, CompositionMethod)
        self._set("shares", several(self.shares, "shares", float))
        self._set("strengths", several(self.strengths, "strengths", float, may_be_empty=True))
        if bad := [share for share in self.shares if not 0 < share <= 1]:
            raise ValueError(f"shares has {bad[0]}: each part of the discarded directions must lie in (0, 1]")
        if bad := [strength for strength in self.strengths if not math.isfinite(strength)]:
            raise ValueError(f"strengths has {bad[0]}: expected finite numbers")
