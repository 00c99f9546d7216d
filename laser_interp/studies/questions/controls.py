"""Would anything else have done as well? The edit on test, beside its controls."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from laser_interp.cluster_intervals import LEVEL, Clusters, student_quantile
from laser_interp.edits.controls import CONTROLS
from laser_interp.facts.giveaways import giveaways
from laser_interp.plots.control_bars import FIRST, by_value
from laser_interp.plots.names import plain_name
from laser_interp.scoring.scores import summarise
from laser_interp.statistics.accuracy_change import change
from laser_interp.statistics.formatting import p_value, percent, points
from laser_interp.studies.context import StudyContext
from laser_interp.studies.question import Answer, PageTable

METRICS = ("accuracy", "score", "top1", "top10", "loss", "generic_masked_top1", "candidate_top1")
_EDITING = set(CONTROLS) - {"discarded"}  # controls that edit a weight


class BesideControls(Answer):
    """The change on test, and the change by every control."""

    schemas: ClassVar[Mapping[str, str]] = {"scores": "scores"}
    key = "test"
    title = "Beside its controls"

    @classmethod
    def ask(cls, context: StudyContext) -> Self:
        scores, seed = context.scores, context.settings.study_seed
        table = control_table(scores)
        numbers = {"test": _test(table), "change": change_numbers(scores, seed), "draws": among_draws(scores)}
        if away := giveaways(context.test):
            others = scores[~scores["fact_id"].isin(away)]
            numbers["without_giveaways"] = {"n_giveaways": len(away)} | change_numbers(others, seed)
        return cls({"scores": scores, "controls": table}, numbers)

    def lines(self) -> Sequence[str]:
        test, numbers = self.numbers["test"], self.numbers
        lines = ["| on test | accuracy | loss | top-10 | generic words masked |", "|---|---|---|---|---|"]
        for name, row in ({name: test[name] for name in FIRST if name in test} | test["controls"]).items():
            lowest = row.get("accuracy_lowest")
            spread = "" if lowest is None else f" ({lowest:.3f}–{row['accuracy_highest']:.3f})"
            lines.append(
                f"| {plain_name(name)} | {row['accuracy']:.3f}{spread} | {row['loss']:.3f} | {row['top10']:.3f} | "
                f"{row['generic_masked_top1']:.3f} |"
            )
        text = _rank(test["laser"]["accuracy"], numbers["draws"])
        if "without_giveaways" in numbers:
            others = numbers["without_giveaways"]
            text += f"Without the {others['n_giveaways']} facts whose subject gives the answer away, accuracy changes "
            text += f"by {points(others['change'], others['lo'], others['hi'])}."
        return [*lines, "", text.rstrip()]

    def finding(self) -> str:
        test = self.numbers["test"]
        masked = test["controls"].get("generic_masked", {}).get("accuracy")
        forbidden = "" if masked is None else f", and generic words forbidden without any edit {masked:.3f}"
        return (
            f"Beside its controls: {self.numbers['change']['in_words']}. The edit reaches "
            f"{test['laser']['accuracy']:.3f}, the best control that edits a weight ({plain_name(self.best)}) "
            f"{test['controls'][self.best]['accuracy']:.3f}{forbidden}."
        )

    @property
    def best(self) -> str:
        """The control that edits a weight and reaches the highest accuracy, on average over its draws."""
        reached = {name: row["accuracy"] for name, row in self.numbers["test"]["controls"].items() if name in _EDITING}
        return max(reached, key=reached.__getitem__)

    def page_words(self) -> Sequence[str]:
        test = self.numbers["test"]
        words = [
            f"On {test['base']['n']} test prompts, which had no part in this choice, the model as trained answers "
            f"{percent(test['base']['accuracy'])} correctly and the edited model {percent(test['laser']['accuracy'])}: "
            f"{self.numbers['change']['in_words']}."
        ]
        masked = test["controls"].get("generic_masked")
        words.append(
            "Controls are edits that show whether LASER's choice of matrix and directions matters. The best of them is "
            f"“{plain_name(self.best)}” with {percent(test['controls'][self.best]['accuracy'])}."
            + (
                f" Forbidding generic words, such as “the”, without any edit gives {percent(masked['accuracy'])}."
                if masked
                else ""
            )
        )
        return words

    def page_table(self) -> PageTable:
        rows = by_value(self.tables["controls"])
        columns = ["control", "accuracy", "accuracy_lo", "accuracy_hi", "loss", "top10", "n_draws"]
        return PageTable(
            "controls",
            "Beside its controls",
            "If a control gains as much, the gain is no evidence for LASER. From and to: 95 % interval over subjects.",
            ("edit", "accuracy", "from", "to", "loss", "top-10", "draws"),
            rows.assign(control=rows["control"].map(plain_name))[columns],
        )


def _rank(accuracy: float, draws: Mapping[str, Any]) -> str:
    """Where the edit stands among random draws, as the first sentence."""
    n, as_good = draws["n"], draws["as_good_by_accuracy"]
    if not n:
        return ""
    than = f"none of {n} random draws reaches" if not as_good else f"{as_good} of {n} random draws reach"
    nats = draws["as_good_by_nats"]
    in_nats = "none does in log-probability" if not nats else f"{nats} do in log-probability"
    return (
        f"On test, {than} the edit's accuracy of {accuracy:.3f} ({p_value(draws['p_by_accuracy'])}; the highest is "
        f"{draws['highest']:.3f}), and {in_nats} ({p_value(draws['p_by_nats'])}). "
    )


def control_table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per edit or control: means of `METRICS` (over draws too), a 95 % interval of the accuracy over
    subjects, the lowest and the highest accuracy of any draw and all of them (`draws`), and whether it edits a weight.
    The interval of a random control holds the spread over subjects and the spread between draws.

    "generic_masked" is the model as trained, with generic words forbidden where the answer begins.
    """
    base = scores[scores["edit"] == "base"]
    scores = pd.concat([scores, _generic_masked(base)], ignore_index=True)
    scores["control"] = scores["edit"].str.partition("/")[0]
    grouped = summarise(scores, ("control", "edit")).groupby("control", sort=False)
    table = grouped[[*METRICS, "p_generic"]].mean()
    table["n"], table["n_draws"] = grouped["n"].first(), grouped.size()
    table["accuracy_lowest"], table["accuracy_highest"] = grouped["accuracy"].min(), grouped["accuracy"].max()
    table["draws"] = grouped["accuracy"].agg(list)
    table["edits_weight"] = ~table.index.isin(["base", "generic_masked"])
    # The mean over draws for each prompt, in the order of the base's rows
    each = scores.groupby(["control", "fact_id", "prompt_id"])["correct"].mean()
    prompts, clusters = pd.MultiIndex.from_frame(base[["fact_id", "prompt_id"]]), Clusters(base["subject"])
    table[["accuracy_lo", "accuracy_hi"]] = [
        _with_draws(*clusters.mean(each[str(control)].reindex(prompts).to_numpy()), draws)
        for control, draws in table["draws"].items()
    ]
    return table.reset_index()


def _generic_masked(base: pd.DataFrame) -> pd.DataFrame:
    """The scores of the model as trained, with generic words forbidden where the answer begins."""
    right = base["generic_masked_top1"]
    return base.assign(
        edit="generic_masked",
        correct=right,
        top1=right,
        score=right.astype(float),
        p_generic=0.0,
        top10=base["generic_masked_rank"] <= 10,
        logprob=base["generic_masked_logprob"],
    )


def _with_draws(mean: float, lo: float, hi: float, draws: Sequence[float]) -> tuple[float, float]:
    """The interval of a mean over draws: its spread over subjects, and that between draws."""
    n = len(draws)
    if n < 2 or not np.isfinite(lo):
        return lo, hi
    between = student_quantile(n, LEVEL) * float(np.std(draws, ddof=1)) / np.sqrt(n)
    return max(mean - float(np.hypot(mean - lo, between)), 0.0), min(mean + float(np.hypot(hi - mean, between)), 1.0)


def among_draws(scores: pd.DataFrame) -> dict[str, Any]:
    """The edit's rank among all random draws, by accuracy and by log-probability, each as a p-value.

    Random draws are edits that keep or remove something random; (1 + draws at least as good) / (1 + draws) is the
    probability that the edit would stand so high if it were one of them.
    """
    means = scores.groupby("edit", sort=False).agg(accuracy=("correct", "mean"), nats=("logprob", "mean"))
    drawn = [name for name in means.index if (c := CONTROLS.get(str(name).partition("/")[0])) and c.is_random]
    out: dict[str, Any] = {"n": len(drawn), "highest": None}
    for name in ("accuracy", "nats"):
        own = float(means[name].to_dict()["laser"])
        as_good = int((means.loc[drawn, name] >= own - 1e-12).sum())
        out |= {f"as_good_by_{name}": as_good, f"p_by_{name}": (1 + as_good) / (1 + len(drawn))}
    if drawn:
        out["highest"] = float(means.loc[drawn, "accuracy"].max())
    return out


def _test(table: pd.DataFrame) -> dict[str, Any]:
    rows = {}
    for row in table.to_dict("records"):
        of_draws = ("accuracy_lowest", "accuracy_highest") if row["n_draws"] > 1 else ()
        rows[row["control"]] = {name: row[name] for name in (*METRICS, "n", *of_draws)}
    named = {name: rows.pop(name) for name in FIRST if name in rows}
    return {**named, "controls": rows}


def change_numbers(scores: pd.DataFrame, seed: int, baseline: str = "base", edit: str = "laser") -> dict[str, Any]:
    """The change of accuracy from one edit to another, as numbers and in words."""
    found = change(scores, baseline=baseline, edit=edit, seed=seed)
    names = ("change", "lo", "hi", "p", "n_fixed", "n_broken", "n")
    return {name: getattr(found, name) for name in names} | {"in_words": str(found)}
