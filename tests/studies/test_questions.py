"""The answers of a study: read from its folder they say the same, and controls that are drawn show their spread."""

import numpy as np
import pandas as pd
import pytest

import laser_interp as li
from laser_interp.storage.checksums import read_checked_json
from laser_interp.storage.run_folder import SUMMARY, read_tables
from laser_interp.studies.questions import QUESTIONS
from laser_interp.studies.questions.controls import among_draws, control_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(organism, facts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    some = facts.keep(facts.facts[::3])
    counts = li.count(some, "organism", progress=False).iloc[:-20]  # of some test facts nobody knows anything
    study = li.study(
        organism, some, counts, matrices="in", layers=[3], rhos=[0.02], n_draws=4, n_permutations=99, shares=(1.0,),
        strengths=(), compose=False, attribute=False, out=folder, progress=False,
    )  # fmt: skip
    return folder, study


def test_answers_read_from_a_folder_say_the_same(run):
    folder, study = run
    tables, summary = read_tables(folder), read_checked_json(folder / SUMMARY)
    read = [question(tables, summary) for question in QUESTIONS if question.key in summary]
    asked = [answer for answer in study.answers if answer.key]
    assert [type(answer) for answer in read] == [type(answer) for answer in asked]
    for one, other in zip(read, asked, strict=True):
        assert list(one.lines()) == list(other.lines())
        shown = [table and table.as_json() for table in (one.page_table(), other.page_table())]
        assert shown[0] == shown[1]
        assert one.finding() == other.finding()
        for line in one.lines():
            assert line in study.report
    found = study.report.partition("## What was found\n\n")[2].partition("\n\n")[0].splitlines()
    assert found == [f"- {answer.finding()}" for answer in asked if answer.finding()]
    subjects = [line[2:].partition(":")[0] for line in found]
    assert subjects[:-1] == ["Beside its controls", "Beside a better prompt", "Where the gain comes from", "Rare facts"]


def test_draws_stand_beside_the_edit(run):
    _, study = run
    table = study.tables["controls"].set_index("control")
    assert len(table.loc["random_kept", "draws"]) == 4
    assert table.loc["random_kept", "accuracy"] == pytest.approx(np.mean(table.loc["random_kept", "draws"]))
    draws = study.summary["draws"]
    assert draws["n"] == 16
    assert draws["p_by_accuracy"] == (1 + draws["as_good_by_accuracy"]) / 17
    assert f"of {draws['n']} random draws" in study.report or "none of 16 random draws" in study.report


def test_the_interval_of_draws_holds_their_spread():
    """Draws that differ by more than their subjects do: the interval is wider than that of one draw, and no narrower
    than their spread asks for."""
    rng = np.random.default_rng(0)
    base = pd.DataFrame({"fact_id": [f"f{i}" for i in range(200)], "prompt_id": 0, "subject": range(200)})

    def rows(edit, share):
        right = rng.random(200) < share
        columns = {"correct": right, "score": right * 1.0, "top1": right, "top5": right, "top10": right, "rank": 1}
        columns |= {"logprob": np.where(right, -0.1, -2.0), "p_generic": 0.1, "generic_masked_top1": right}
        columns |= {"generic_masked_rank": 1, "generic_masked_logprob": -0.1, "candidate_top1": right * 1.0}
        return base.assign(edit=edit, **columns)

    shares = (0.2, 0.4, 0.6, 0.8)
    parts = [rows("base", 0.5), rows("laser", 0.7), *(rows(f"random_kept/{i}", s) for i, s in enumerate(shares))]
    scores = pd.concat(parts, ignore_index=True)
    table = control_table(scores).set_index("control")
    row = table.loc["random_kept"]
    width = row["accuracy_hi"] - row["accuracy_lo"]
    assert width > 2 * 3.18 * np.std(row["draws"], ddof=1) / 2 - 1e-9  # Student's quantile of three degrees of freedom
    assert row["accuracy_lo"] < row["accuracy"] < row["accuracy_hi"]
    found = among_draws(scores)
    assert (found["n"], found["as_good_by_accuracy"]) == (4, 1)
    assert found["p_by_accuracy"] == pytest.approx(2 / 5)


def test_what_is_said_of_the_discarded_part_stands_beside_the_unedited_model(run):
    _, study = run
    part, base = study.summary["discarded"], study.summary["as_trained_on_fixed"]
    assert part["n"] == base["n"] > 0
    assert base["correct"] == 0  # fixed prompts were wrong before
    assert f"a generic word in {part['generic']:.0%} (the model as trained {base['generic']:.0%})" in study.report


def test_facts_without_a_count_are_read_both_ways(run):
    _, study = run
    zeros = study.summary["missing_as_zero"]
    assert zeros["n_missing"] > 0
    assert zeros["slope"] != study.summary["slopes"]["whole"]["slope"]
    assert f"If the {zeros['n_missing']} test facts without a count were zeros, the slope" in study.report


def test_the_decomposition_is_a_figure_and_a_table(run):
    _, study = run
    table = study.tables["decomposition"].set_index("part")["change"]
    assert table.drop(index="whole").sum() == pytest.approx(table["whole"])
    for name in ("decomposition", "frequency_slopes"):
        assert li.plots.FIGURES[name].can_draw(study.tables)
