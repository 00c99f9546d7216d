"""A study's report in words: what was found, its controls, and what the model does not show."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.edits.controls import CONTROLS
from laser_interp.studies.context import StudyContext

Tables = Mapping[str, pd.DataFrame]
_EDITING = set(CONTROLS) - {"discarded"}  # controls that edit a weight


def describe(context: StudyContext, tables: Tables, summary: Mapping[str, Any], figures: Sequence[Path]) -> str:
    """The report, as Markdown."""
    sections = [
        _head(context, summary),
        _which_truncation(context, summary),
        _why(summary),
        _relations(summary),
        _answers(context, summary),
        _rare_facts(context, tables, summary),
        _discarded(summary),
        _paraphrases(summary),
        _side_effects(summary),
        _limits(summary),
        _notes(summary),
        ["## Figures", *(f"- {path}" for path in figures)] if figures else [],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _head(context: StudyContext, summary: Mapping[str, Any]) -> list[str]:
    task, base = context.task, summary["test"]["base"]
    n_facts = len(context.test.facts)
    return [
        f"# LASER on {html.escape(context.model.name)}: {html.escape(task.title or task.name)}",
        "",
        f"{summary['model']['n_params']:,} parameters{_quantised(summary)}; {base['n']} test prompts of "
        f"{n_facts} facts, judged by the rule {task.rule} ({task.protocol}); {summary['seconds']:.0f} s.",
    ]


def _quantised(summary: Mapping[str, Any]) -> str:
    was = summary["model"].get("quantisation")
    return f", dequantised from {was} (LASER may also remove noise of the quantisation)" if was else ""


def _which_truncation(context: StudyContext, summary: Mapping[str, Any]) -> list[str]:
    test, selected = summary["test"], summary["selected"]
    chosen = selected["validation"]["laser"]["score"] - selected["validation"]["base"]["score"]
    looked_at = f", after {summary['search']['in_words']}" if summary["search"] else ""
    no_better = "" if selected["improves_validation"] else ", which is **no better than no edit** there"
    lines = [
        "## Which truncation helps",
        "",
        f"Validation chose `{selected['cell']}`{no_better}{looked_at}. It changes the score by {100 * chosen:+.1f} "
        f"points on the validation facts and accuracy by {100 * summary['change']['change']:+.1f} points on test.",
        "",
        "| on test | accuracy | loss | top-10 | generic words masked |",
        "|---|---|---|---|---|",
    ]
    rows = {"as trained": test["base"], "LASER": test["laser"]}
    if "discarded" in test:
        rows["discarded part alone"] = test["discarded"]
    for name, row in (rows | test["controls"]).items():
        spread = f" ({row['accuracy_lowest']:.3f}–{row['accuracy_highest']:.3f})" if "accuracy_lowest" in row else ""
        lines.append(
            f"| {name} | {row['accuracy']:.3f}{spread} | {row['loss']:.3f} | {row['top10']:.3f} | "
            f"{row['generic_masked_top1']:.3f} |"
        )
    editing = {name: row["accuracy"] for name, row in test["controls"].items() if name in _EDITING}
    best = max(editing, key=editing.__getitem__)
    text = (
        f"Compared with the model as trained, {summary['change']['in_words']}. The best control that edits a weight "
        f"({best}) reaches an accuracy of {editing[best]:.3f}."
    )
    if "without_giveaways" in summary:
        others = summary["without_giveaways"]
        text += f" Without the {others['n_giveaways']} facts whose subject gives the answer away, {others['in_words']}."
    if "control_model" in summary:
        other = summary["control_model"]
        text += (
            f" The control model changes by {100 * other['own_edit_change']:+.1f} points under its own best edit "
            f"({other['own_edit']['site']}) and by {100 * other['same_edit_change']:+.1f} under this one."
        )
    return [*lines, "", text]


def _why(summary: Mapping[str, Any]) -> list[str]:
    """Three explanations of the change."""
    if "mechanism" not in summary:
        return []
    *numbers, verdict = summary["mechanism"]["in_words"]
    return ["## Why it changes", "", *(f"- {line}" for line in numbers), "", f"**{verdict}**"]


def _relations(summary: Mapping[str, Any]) -> list[str]:
    """Whether it is the same edit for all relations."""
    found = summary.get("relations")
    if not found:
        return []
    same = found["choose_the_same"]
    largest = f"; the largest gain is on {found['largest_gain']}" if found["gain"] else ""
    return [
        "## Is it the same edit for all relations?",
        "",
        f"Of {found['n']} relations, {found['gain']} gain under the edit on test and {found['lose']} lose"
        f"{largest}. If each relation chooses for itself among the best edits of the search "
        f"and no edit, on its validation facts, {same} {'relation chooses' if same == 1 else 'relations choose'} this "
        f"edit and {found['choose_no_edit']} no edit. If all other relations choose for one, they choose this edit for "
        f"{found['others_choose_the_same']} relations. With the choice of the others, accuracy on test changes by "
        f"{100 * found['change_held_out']:+.1f} points.",
    ]


def _answers(context: StudyContext, summary: Mapping[str, Any]) -> list[str]:
    """What stands beside accuracy, where answers are chosen from labels or generated."""
    metrics, rule = summary["metrics"], context.task.rule
    if rule == "next_token":
        return []
    lines = [
        "## Beside accuracy",
        "",
        "| test | accuracy | balanced | loss | commonest answer | p(candidates) | calibration error |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in metrics.items():
        lines.append(
            f"| {name} | {_rate(row, 'accuracy')} | "
            f"{row['balanced_accuracy']:.3f} | {row['loss']:.3f} | {row['commonest_prediction']!r} "
            f"({row['share_commonest']:.0%}) | {_number(row['p_candidates'])} | {_number(row['calibration_error'])} |"
        )
    base, laser = metrics["base"], metrics["laser"]
    lines += [
        "",
        f"Always giving the commonest right answer would score {base['majority_baseline']:.3f}. The edit fixes "
        f"{laser['n_fixed']:.0f} answers and breaks {laser['n_broken']:.0f} (p = {laser['p_change']:.2g}, from a "
        "sign-flip test over subjects).",
    ]
    if rule == "truths":
        lines.append(f"The mc2 score is {base['score']:.3f} before and {laser['score']:.3f} after.")
    for name, row in metrics.items():
        if row["degenerate"]:
            lines += [
                "",
                f"**Degenerate classifier:** under {name} {row['share_commonest']:.0%} of the answers are "
                f"{row['commonest_prediction']!r}. Its accuracy only shows how common that label is.",
            ]
    return lines


def _rare_facts(context: StudyContext, tables: Tables, summary: Mapping[str, Any]) -> list[str]:
    if "by_frequency" not in summary:
        return []
    lines = [
        "## Do the gains fall on rare facts?",
        "",
        context.association.paragraph,
        "",
        "| frequency | prompts | as trained | LASER | P(fixed given wrong) | P(broken given right) |",
        "|---|---|---|---|---|---|",
    ]
    for row in tables["rare_facts_bins"].to_dict("records"):
        columns = ("base_top1", "edit_top1", "p_fixed_given_wrong", "p_broken_given_right")
        rates = " | ".join(_rate(row, column, 2) for column in columns)
        lines.append(f"| {row['lo']:.0f}–{row['hi']:.0f} | {row['n']} | {rates} |")
    permuted = summary["spearman_permuted"]["top1"]
    text = ""
    if _known(permuted["rho"]):
        text = f"With permuted frequencies, the gain in top-1 correlates with frequency at {_interval(permuted)}."
    counts = summary["counts"]
    if counts["matched"] + counts["mismatched"]:
        text += (
            f" The counts equal the frequencies in the fact file for {counts['matched']} facts and differ for "
            f"{counts['mismatched']}."
        )
    return [*lines, "", text]


def _discarded(summary: Mapping[str, Any]) -> list[str]:
    part = summary.get("discarded")
    if not part:
        return []
    if not part["n"]:
        return ["## What do the discarded components say?", "", "LASER fixed no prompt, so nothing can be compared."]
    return [
        "## What do the discarded components say?",
        "",
        f"On the {part['n']} prompts that LASER fixed, the discarded part alone gives a generic word in "
        f"{part['generic']:.0%} of cases, the right answer in {part['correct']:.0%}, a wrong answer of the same type "
        f"in {part['same_type']:.0%}, and something else in {part['other']:.0%}.",
    ]


def _paraphrases(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    if "paraphrases" in summary:
        before, after = (summary["paraphrases"][name] for name in ("base", "laser"))
        lines.append(
            f"The share of facts that are right on all of their prompts is {_rate(before, 'all_right')} as trained and "
            f"{_rate(after, 'all_right')} under LASER. The share of pairs of a fact's prompts with the same answer is "
            f"{before['agreement']:.3f} as trained and {after['agreement']:.3f} under LASER."
        )
    composed = summary.get("composed")
    if composed and composed["edit"] is None:
        lines.append("Composition keeps no edit, because none improves validation.")
    elif composed:
        lines.append(
            f"Composition, chosen on validation, keeps `{composed['edit']}` and reaches {composed['top1']:.3f} "
            f"on test, where the single edit reaches {summary['test']['laser']['top1']:.3f}. Compared with the single "
            f"edit, {composed['over_one']['in_words']}."
        )
    return ["## Paraphrases and composition", "", " ".join(lines)] if lines else []


def _side_effects(summary: Mapping[str, Any]) -> list[str]:
    if "perplexity" not in summary:
        return []
    before, after = (row["perplexity"] for row in summary["perplexity"])
    return ["## Side effects", "", f"Perplexity of running text: {before:.2f} before, {after:.2f} after."]


def _limits(summary: Mapping[str, Any]) -> list[str]:
    """What a reader might conclude from the numbers although they do not show it."""
    if summary["task"]["rule"] != "next_token":
        return []
    test = summary["test"]
    base, laser = test["base"], test["laser"]
    masked = test["controls"]["generic_masked"]["top1"]
    lines = [
        "## What this model does not show",
        "",
        f"- *Whether anything is learned by the edit.* Masking generic words in the **unedited** model gives "
        f"{masked:.3f}, {'more' if masked > laser['top1'] else 'not more'} than LASER's {laser['top1']:.3f}. The right "
        f"answer ranks first among its relation's answers on a share of {base['candidate_top1']:.3f} of prompts before "
        f"and {laser['candidate_top1']:.3f} after.",
    ]
    spearman = summary.get("spearman", {})
    if all(_known(spearman.get(name, {}).get("rho")) for name in ("logprob", "top1")):
        lines.append(
            f"- *Whether rare facts gain probability.* The gain in log-probability correlates with frequency at "
            f"{_interval(spearman['logprob'])}, the gain in top-1 at {_interval(spearman['top1'])}. "
            f"{_threshold(spearman['logprob'], spearman['top1'])}"
        )
    part = summary.get("discarded")
    if part and part["n"]:
        rarely = "less" if part["same_type"] < part["generic"] else "not less"
        lines.append(
            "- *Answers of the same type.* The paper finds that the discarded part answers with generic words or with "
            f"wrong answers of the right type. Here it gives such wrong answers {rarely} often than generic words: "
            f"{part['same_type']:.0%} and {part['generic']:.0%}."
        )
    lines.append(f"- *Top-10* is {base['top10']:.3f} before and {laser['top10']:.3f} after.")
    return lines


def _threshold(logprob: Mapping[str, float | None], top1: Mapping[str, float | None]) -> str:
    """What two correlations with frequency show together: that of the gain in log-probability and that in top-1."""

    def sign(values: Mapping[str, float | None]) -> int:
        lo, hi = values["lo"], values["hi"]
        if lo is None or hi is None or not (lo > 0 or hi < 0):
            return 0
        return 1 if lo > 0 else -1

    whose = {1: "Frequent", -1: "Rare"}
    if sign(logprob) == sign(top1) == 0:
        return "The sample shows no trend in either of them."
    if not sign(logprob):
        return (
            f"Only top-1 shows a trend, which is a threshold effect: {whose[sign(top1)].lower()} facts do not gain "
            "more probability, but they are closer to the point at which a wrong answer becomes right."
        )
    if not sign(top1):
        return (
            f"Only log-probability shows a trend: {whose[sign(logprob)].lower()} facts gain more of it, but this does "
            "not make more of them right."
        )
    if sign(logprob) != sign(top1):
        return (
            f"The trends are opposite: {whose[sign(logprob)].lower()} facts gain more probability, but more of the "
            f"{whose[sign(top1)].lower()} facts become right."
        )
    return f"{whose[sign(top1)]} facts gain more in both."


def _notes(summary: Mapping[str, Any]) -> list[str]:
    notes = summary["notes"]
    if not notes:
        return []
    shown = [f"- {note}" for note in notes[:5]]
    more = [f"- … and {len(notes) - 5} more in summary.json"] if len(notes) > 5 else []
    return ["## Notes", "", *shown, *more]


def _rate(row: Mapping[Any, Any], name: str, digits: int = 3) -> str:
    """A rate with its interval, where there is one; "–" where there is no rate."""
    ends = [row[name], row[f"{name}_lo"], row[f"{name}_hi"]]
    rate, lo, hi = (f"{end:.{digits}f}" if _known(end) else "" for end in ends)
    return f"{rate} [{lo}, {hi}]" if lo else rate or "–"


def _known(value: float | None) -> bool:
    return value is not None and value == value


def _interval(values: Mapping[str, float | None]) -> str:
    """A rank correlation with its interval, where there is one."""
    rho, lo, hi = (f"{end:+.2f}" if _known(end) else "" for end in (values["rho"], values["lo"], values["hi"]))
    return f"{rho} [{lo}, {hi}]" if lo else rho


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"
