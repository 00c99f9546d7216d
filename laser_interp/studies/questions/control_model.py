"""Does the edit help a model that should have no use for it? A second model, under its own edit and this one."""

from collections.abc import Sequence
from typing import Self

from laser_interp.edits.edit import Edit
from laser_interp.scoring.scores import score, summarise
from laser_interp.statistics.formatting import points
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer


class OnControlModel(Answer):
    """The control model as trained, under the edit that it would choose itself, and under this one."""

    key = "control_model"
    title = "On the control model"

    @classmethod
    def ask(cls, context: StudyContext) -> Self | None:
        other = context.on_control_model()
        if other is None:
            return None
        same = context.cell.edit(other.model, other.facts)
        runs: dict[str, Edit | None] = {"base": None, "own": other.edit, "same": same}
        scores = score(other.model, other.task.keep(other.test), runs, progress=False)
        table = summarise(scores, ("edit", "site", "rank_kept"))
        rows = {row["edit"]: row for row in table.to_dict("records")}
        own, base = rows["own"], rows["base"]
        found = {
            "base_accuracy": base["accuracy"],
            "own_edit_change": own["accuracy"] - base["accuracy"],
            "own_edit": {"site": own["site"], "rank": own["rank_kept"]},
            "same_edit_change": rows["same"]["accuracy"] - base["accuracy"],
        }
        return cls({"control_model": table}, {"control_model": found})

    def lines(self) -> Sequence[str]:
        found = self.numbers["control_model"]
        return [
            f"The control model changes by {points(found['own_edit_change'])} under its own best edit "
            f"({found['own_edit']['site']}) and by {points(found['same_edit_change'])} under this one."
        ]
