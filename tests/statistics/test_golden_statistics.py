"""Golden numbers of every statistic, and the sentences that are made of them; see `golden_numbers`."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from golden_numbers import check_golden

import laser_interp as li
from laser_interp.statistics.classification import metrics
from laser_interp.statistics.mechanism import explain
from laser_interp.statistics.through_training import in_words, training_tables

MOVES = {  # nats by which each edit moves generic words, the kind, and the rivals; the last follows frequency
    "nothing": {"laser": (0.0, 0.0, 0.0, 0.0), "zeroed": (0.1, 0.0, 0.0, 0.0)},
    "suppression": {"laser": (1.2, 0.3, -0.1, 0.0), "zeroed": (1.0, 0.1, -0.1, 0.0)},
    "rare facts": {"laser": (0.2, 0.1, 0.9, -0.6), "zeroed": (0.2, 0.0, 0.0, 0.0)},
    "frequent facts": {"laser": (0.1, 0.8, 0.3, 0.6), "random_kept/0": (0.0, 0.0, 0.0, 0.0)},
    "parts alone": {"laser": (0.04, 0.0, -0.05, 0.0), "zeroed": (0.0, 0.0, 0.0, 0.0)},
    "a loss": {"laser": (-0.8, -0.3, -0.2, -0.4), "zeroed": (-0.1, 0.0, 0.0, 0.3)},
}


def scores_of(moves, seed=0, *, n_subjects=60, facts_each=2, prompts=2, shift=0.0):
    """Scores of facts that differ in frequency, by subject and relation; each edit moves the log-odds of the parts."""
    rng = np.random.default_rng(seed)
    n = n_subjects * facts_each
    subject = np.repeat(np.arange(n_subjects), facts_each)
    n_both = np.round(10 ** np.clip(rng.uniform(0, 3, n_subjects)[subject] + rng.normal(0, 0.4, n), 0, 4)) - 1
    fact, prompt = np.repeat(np.arange(n), prompts), np.tile(np.arange(prompts), n)
    x = np.log10(1 + n_both)[fact]
    logit = [rng.normal(m, 1, n)[fact] + rng.normal(0, 0.3, n * prompts) for m in (0.2, 0.4, -0.3)]
    logit[2] = logit[2] + 0.6 * (x - x.mean()) + shift
    relation = rng.choice(["p", "q", "r"], n)[fact]
    answer = rng.choice(["red", "blue", "green"], n)[fact]
    frames = []
    for label, (*by, slope) in {"base": (0.0, 0.0, 0.0, 0.0), **moves}.items():
        moved = [
            one + m + 0.05 * (label != "base") * rng.normal(0, 1, n * prompts) for one, m in zip(logit, by, strict=True)
        ]
        moved[2] = moved[2] + slope * (x - x.mean())
        not_generic, of_kind, right = (1 / (1 + np.exp(-one)) for one in moved)
        first = not_generic * of_kind * right
        rivals, other = not_generic * of_kind * (1 - right) / 2, not_generic * (1 - of_kind) / 3
        correct = (first > 1 - not_generic) & (first > rivals) & (first > other)
        masked = (first > rivals) & (first > other)
        rank = 1 + 2 * (first <= rivals) + 3 * (first <= other) + (first <= 1 - not_generic)
        frames.append(
            pd.DataFrame(
                {
                    "fact_id": [f"f{i}" for i in fact], "prompt_id": prompt,
                    "subject": [f"s{s}" for s in subject[fact]], "relation": relation, "object": answer,
                    "split": "test", "edit": label,
                    "frequency": n_both[fact], "correct": correct, "top1": correct, "top5": rank <= 5,
                    "top10": rank <= 6, "score": correct.astype(float), "rank": rank, "logprob": np.log(first) - 0.1,
                    "first_logprob": np.log(first), "kind_logprob": np.log(not_generic * of_kind),
                    "generic_masked_logprob": np.log(of_kind * right) - 0.1, "first_is_generic": False,
                    "generic_masked_top1": masked, "generic_masked_rank": rank - (first <= 1 - not_generic),
                    "candidate_top1": (right > 0.5).astype(float), "candidate_rank": np.where(right > 0.5, 1.0, 2.0),
                    "p_generic": 1 - not_generic, "generic_logprob": np.log((1 - not_generic) * 0.7),
                    "margin": np.log(first) - np.log(np.maximum(np.maximum(rivals, other), 1 - not_generic)),
                    "prediction": np.where(correct, answer, "the"), "top_prob": np.maximum(first, 1 - not_generic),
                    "category": np.where(correct, "correct", np.where(first <= 1 - not_generic, "generic", "other")),
                }
            )
        )  # fmt: skip
    counts = pd.DataFrame({"fact_id": [f"f{i}" for i in range(n)], "n_both": n_both})
    counts["n_subject"] = n_both + np.round(10 ** rng.uniform(1, 3, n))
    counts["n_object"] = n_both + np.round(10 ** rng.uniform(1, 4, n)) * (n_both > 2)  # of some, never seen
    return pd.concat(frames, ignore_index=True), counts


@pytest.mark.parametrize("kind", MOVES)
def test_golden_statistics_of_an_edit(kind):
    scores, counts = scores_of(MOVES[kind])
    found = li.associate(scores, counts, n_permutations=199)
    parts, why = li.decompose(scores), explain(scores)
    placebos = [label for label in MOVES[kind] if label.startswith("random")]
    compared = li.compare(scores, counts, placebos=placebos, n_permutations=199)
    tables = ("bins", "cumulative", "paper_ratio", "effects", "slopes", "relations", "sensitivity")
    reasons = ("chance", "suppression", "rivals", "kind", "low_rank_matters", "dose_nats", "overlap", "p_generic")
    numbers = {name: getattr(found, name) for name in tables} | {
        "spearman": found.spearman.reset_index(),
        "blind": found.blind,
        "association": found.paragraph,
        "parts": parts.table,
        "parts in words": parts.paragraph,
        "reasons": {name: getattr(why, name) for name in reasons},
        "reasons in words": why.sentences(),
        "dose": str(why.dose),
        "over_zeroed": None if why.over_zeroed is None else why.over_zeroed[["change", "lo", "hi"]],
        "compared": compared.table,
        "compared in words": compared.paragraph,
        "change": str(li.change(scores)),
        "paraphrases": li.robustness(scores),
        "metrics": metrics(scores, "candidates"),
    }
    check_golden(f"statistics {kind}", numbers)


@pytest.mark.parametrize("n_subjects", [4, 9, 25])
def test_golden_statistics_of_few_subjects(n_subjects):
    scores, counts = scores_of(MOVES["suppression"], 3, n_subjects=n_subjects, facts_each=3, prompts=1)
    found = li.associate(scores, counts, n_permutations=199)
    numbers = {"effects": found.effects, "slopes": found.slopes, "words": found.paragraph, "blind": found.blind}
    check_golden(f"statistics of {n_subjects} subjects", numbers | {"change": str(li.change(scores))})


def test_golden_statistics_of_many_edits():
    """More than three edits, and several placebos: some in words each, the others counted."""
    moves = {f"edit {i}": (0.3 * i, 0.1, 0.2, 0.25 * i - 0.5) for i in range(5)}
    moves |= {f"random_kept/{i}": (0.05, 0.0, 0.0, 0.0) for i in range(3)}
    scores, counts = scores_of(moves, 1, prompts=1)
    placebos = [label for label in moves if label.startswith("random")]
    found = li.compare(scores, counts, placebos=placebos, n_permutations=1999)
    check_golden("statistics of many edits", {"table": found.table, "words": found.paragraph})


def test_golden_statistics_of_scores_from_elsewhere():
    """A column before, or one before and one after: right or wrong, or log-probabilities."""
    scores, counts = scores_of(MOVES["rare facts"], 2)
    base, after = (scores[scores["edit"] == label].reset_index(drop=True) for label in ("base", "laser"))
    given = base[["fact_id", "subject", "relation"]].merge(counts, on="fact_id")
    numbers = {}
    for column in ("top1", "logprob"):
        before = given.assign(before=base[column].astype(float))
        for name, frame in {"before": before, "both": before.assign(after=after[column].astype(float))}.items():
            found = li.frequency_report(frame, n_permutations=199)
            tables = {"effects": found.effects, "slopes": found.slopes, "spearman": found.spearman.reset_index()}
            numbers[f"{column} {name}"] = tables | {"words": found.paragraph, "bins": found.bins}
    check_golden("statistics from elsewhere", numbers)


@pytest.mark.parametrize("steps", [(10, 20, 40, 80), (1, 2)], ids=len)
def test_golden_statistics_through_training(steps):
    scored, read = {}, {}
    for i, step in enumerate(steps):
        moves = {
            "laser": (0.5 * i, 0.2, -0.1, 0.1 * i),
            "discarded": (-1.0, 0.0, -0.5, 0.0),
            "each": (0.1, 0.1, 0.0, 0.0),
        }
        scores, counts = scores_of(moves, 5, prompts=1, shift=0.8 * i - 1.5)
        spectra = pd.DataFrame({"site": ["3.in", "2.out"], "rank_kept": [3, 2], "stable_rank": [4.0 + i, 2.0]})
        spectra["overlap_in"] = [0.3 + 0.1 * i, np.nan]
        scored[step], read[step] = (scores, spectra), counts.assign(n_both=np.round(counts["n_both"] * step / 80))
    tables = training_tables(scored, read)
    assert set(tables) == {f"trajectory{name}" for name in ("", "_changes", "_slopes", "_spectra", "_recall")}
    numbers = {name: table for name, table in tables.items() if name != "trajectory_recall"}
    recall = tables["trajectory_recall"].drop(columns=["fact_id", "subject", "relation"]).mean()
    check_golden(
        f"statistics through {len(steps)} steps", numbers | {"recall": recall, "words": in_words(tables, "3.in:0.05")}
    )


def test_other_rules_have_no_degenerate_classifier():
    scores, _ = scores_of({"laser": (0.1, 0.0, 0.0, 0.0)}, prompts=1)
    scores["prediction"] = "red"
    assert metrics(scores, "candidates")["degenerate"].all()
    for rule in ("generation", "next_token"):
        assert not metrics(scores, rule)["degenerate"].any()
    assert not metrics(scores.assign(object="red"), "candidates")["degenerate"].any()  # there is one answer only


def test_a_gain_is_not_chance_where_no_part_is_shown_to_move():
    found = explain(scores_of(MOVES["suppression"])[0])
    still = found.parts.table.assign(lo=-1.0, hi=1.0)
    assert not replace(found, parts=replace(found.parts, table=still)).chance
    quiet = explain(scores_of(MOVES["nothing"])[0])
    assert replace(quiet, parts=replace(quiet.parts, table=quiet.parts.table.assign(lo=-1.0, hi=1.0))).chance


def test_without_ranks_under_one_of_the_edits_answers_are_not_compared_among_themselves():
    scores, _ = scores_of(MOVES["suppression"])
    for label in ("base", "laser"):
        unranked = scores.copy()
        unranked.loc[unranked["edit"] == label, "candidate_rank"] = np.nan
        assert explain(unranked).among_answers is None
    assert explain(scores).among_answers is not None
