"""What stands beside accuracy, where answers are chosen from labels or generated."""

from collections.abc import Sequence
from typing import Self

from laser_interp.statistics.classification import metrics
from laser_interp.statistics.formatting import interval, p_value
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer


class BesideAccuracy(Answer):
    """Baselines, balanced accuracy and calibration of the model as trained, the edit and its controls."""

    key = "metrics"
    title = "Beside accuracy"

    @classmethod
    def ask(cls, context: StudyContext) -> Self:
        table = metrics(context.scores, context.task.rule, seed=context.settings.study_seed)
        degenerate = table.loc[table["degenerate"], "edit"].tolist()
        if degenerate:
            context.notes.append(f"degenerate: under {', '.join(degenerate)} nearly every answer is the same label")
        rows = {row.pop("edit"): row for row in table.to_dict("records")}
        return cls({"metrics": table}, {"metrics": rows})

    def lines(self) -> Sequence[str]:
        rows, rule = self.numbers["metrics"], self.numbers["task"]["rule"]
        if rule == "next_token":
            return ()
        lines = [
            "| test | accuracy | balanced | loss | commonest answer | p(candidates) | calibration error |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            accuracy = interval(row["accuracy"], row["accuracy_lo"], row["accuracy_hi"])
            lines.append(
                f"| {name} | {accuracy} | {row['balanced_accuracy']:.3f} | {row['loss']:.3f} | "
                f"{row['commonest_prediction']!r} ({row['share_commonest']:.0%}) | {interval(row['p_candidates'])} | "
                f"{interval(row['calibration_error'])} |"
            )
        base, laser = rows["base"], rows["laser"]
        lines += [
            "",
            f"Always giving the commonest right answer would score {base['majority_baseline']:.3f}. The edit fixes "
            f"{laser['n_fixed']:.0f} answers and breaks {laser['n_broken']:.0f} ({p_value(laser['p_change'])}, from a "
            "sign-flip test over subjects).",
        ]
        if rule == "truths":
            lines.append(f"The mc2 score is {base['score']:.3f} before and {laser['score']:.3f} after.")
        for name, row in rows.items():
            if row["degenerate"]:
                lines += [
                    "",
                    f"**Degenerate classifier:** under {name} {row['share_commonest']:.0%} of the answers are "
                    f"{row['commonest_prediction']!r}. Its accuracy only shows how common that label is.",
                ]
        return lines
