"""The statistics: silent where there is nothing, not where there is something."""

import numpy as np
import pandas as pd
import pytest

import laser_interp as li
from laser_interp.association import frequency_bins


def simulate(seed, slope, n_subjects=120, facts_each=4):
    """Scores where base accuracy rises with frequency, and wrong answers are fixed at a rate of their own.

    `slope` is the log-odds of being fixed per tenfold frequency; 0 is an edit that ignores frequency.
    """
    rng = np.random.default_rng(seed)
    n = n_subjects * facts_each
    subject = np.repeat(np.arange(n_subjects), facts_each)
    n_both = np.round(10 ** rng.uniform(0, 3, n))
    logit = lambda p: 1 / (1 + np.exp(-p))  # noqa: E731
    before = rng.random(n) < logit(np.log10(n_both) - 1.5 + rng.normal(0, 0.5, n_subjects)[subject])
    fixed = rng.random(n) < logit(-0.5 + slope * (np.log10(n_both) - 1.5))
    broken = rng.random(n) < 0.05
    after = np.where(before, ~broken, fixed)
    common = {
        "fact_id": [f"f{i}" for i in range(n)],
        "prompt_id": 0,
        "subject": [f"s{s}" for s in subject],
        "relation": rng.choice(["p", "q"], n),
        "split": "test",
        "frequency": n_both,
    }
    frames = [
        pd.DataFrame(
            common | {"edit": name, "top1": right, "top10": right, "logprob": -2.0 + right + rng.normal(0, 1, n)}
        )
        for name, right in (("base", before), ("laser", after))
    ]
    counts = pd.DataFrame({"fact_id": common["fact_id"], "n_both": n_both})
    counts["n_subject"] = n_both + np.round(10 ** rng.uniform(1, 4, n))
    counts["n_object"] = n_both + np.round(10 ** rng.uniform(1, 4, n))
    return pd.concat(frames, ignore_index=True), counts


def test_an_edit_that_ignores_frequency_is_said_to_while_the_papers_plot_slopes():
    p, adjusted, conditional_covers, marginal = [], [], [], []
    for seed in range(200):
        found = li.associate(*simulate(seed, slope=0), n_boot=60)
        p.append(found.p_value)
        adjusted.append(float(found.regression.query("model == 'confounders' and term == 'log10_n_both'")["p"].iloc[0]))
        row = found.spearman.loc["fixed"]
        conditional_covers.append(row["lo"] <= 0 <= row["hi"])
        marginal.append(found.spearman.loc["top1", "rho"])
    # 5 % of 200 is 10; a binomial exceeds 20 or falls below 2 about once in 500 times
    assert 2 <= np.sum(np.array(p) < 0.05) <= 20
    assert 2 <= np.sum(np.array(adjusted) < 0.05) <= 20
    assert np.mean(conditional_covers) > 0.88
    assert np.mean(marginal) < -0.1  # the gains seem to fall on rare facts all the same


def test_an_edit_that_prefers_rare_facts_is_found():
    p, signs = [], []
    for seed in range(40):
        found = li.associate(*simulate(seed, slope=-1.5), n_boot=60)
        p.append(found.p_value)
        signs.append(found.spearman.loc["fixed", "rho"] < 0)
    assert np.mean(np.array(p) < 0.05) > 0.8
    assert all(signs)


def test_the_paragraph_says_which():
    nothing = li.associate(*simulate(0, slope=0), n_boot=100).paragraph
    assert "fixed correlates with frequency at" in nothing
    assert nothing.count("no association that this sample can show") >= 3
    something = li.associate(*simulate(0, slope=-2.5), n_boot=100).paragraph
    assert "rare ones are fixed more often" in something
    assert "): an association." in something


def test_tables_by_hand():
    """Four facts, everything countable on fingers."""
    facts = pd.DataFrame(
        {
            "fact_id": list("abcd"),
            "prompt_id": 0,
            "subject": list("ABCD"),
            "relation": "r",
            "split": "test",
            "frequency": [0.0, 10.0, 60.0, 2000.0],
        }
    )
    base = facts.assign(edit="base", top1=[False, False, True, True], top10=True, logprob=-1.0)
    laser = facts.assign(edit="laser", top1=[True, False, False, True], top10=True, logprob=-0.5)
    found = li.associate(pd.concat([base, laser]), n_bins=3, n_boot=50)
    assert found.bins[["lo", "hi", "n", "n_wrong"]].values.tolist() == [
        [0, 0, 1, 1],
        [10, 10, 1, 1],
        [60, 60, 1, 0],
        [2000, 2000, 1, 0],
    ]
    assert found.bins["p_fixed_given_wrong"].tolist()[:2] == [1.0, 0.0]
    assert found.bins["p_fixed_given_wrong"].isna().tolist() == [False, False, True, True]
    assert found.bins["p_broken_given_right"].tolist()[2:] == [1.0, 0.0]
    # one subject, all or nothing: the exact bound, not an interval without width
    assert found.bins["p_broken_given_right_hi"].tolist()[3] == pytest.approx(0.975)
    assert found.cumulative["top1_before"].tolist() == [0, 0, pytest.approx(1 / 3), 0.5]
    assert found.cumulative["top1_after"].tolist() == [1, 0.5, pytest.approx(1 / 3), 0.5]
    assert found.paper_ratio["n_corrected"].tolist() == [1, 0, 0]
    assert found.paper_ratio["n_originally_correct"].tolist() == [0, 1, 1]
    assert found.paper_ratio["ratio"].isna().tolist() == [True, False, False]


def test_bins():
    n = pd.Series([0, 0, 1, 1, 1, 2, 3, 5, 8, 13])
    bins = frequency_bins(n, 4)
    assert (bins[n == 0] == 0).all()
    assert (bins[n > 0] > 0).all()
    assert bins.groupby(n).nunique().max() == 1  # equal counts share a bin
    assert bins.is_monotonic_increasing
    assert (frequency_bins(pd.Series([0, 0]), 4) == 0).all()


def test_only_the_test_half_is_reported(organism, facts, laser):
    some = facts.keep(facts.facts[:80])
    scores = li.score(organism, some, {"base": None, "laser": laser})
    found = li.associate(scores, n_boot=50)
    assert found.n_facts == len(some.split("test"))
    assert set(found.rows["fact_id"]) == {f.fact_id for f in some.split("test")}


def test_where_nothing_can_be_estimated():
    scores, counts = simulate(1, 0)
    scores.loc[scores["edit"] == "laser", "top1"] = True
    found = li.associate(scores, counts, n_boot=20)
    assert "all were fixed" in found.paragraph
    assert np.isnan(found.p_value)
    same = counts.assign(n_both=7)
    found = li.associate(simulate(1, 0)[0], same, n_boot=20)
    assert "have the same frequency" in found.paragraph


def test_the_same_seed_gives_the_same_report():
    a, b = (li.associate(*simulate(3, 0), n_boot=50, seed=9) for _ in range(2))
    pd.testing.assert_frame_equal(a.bins, b.bins)
    pd.testing.assert_frame_equal(a.spearman, b.spearman)


def test_refusals():
    scores, counts = simulate(0, 0)
    with pytest.raises(ValueError, match=r"no scores of the edit 'other': the table has \['base', 'laser'\]"):
        li.associate(scores, counts, edit="other")
    with pytest.raises(ValueError, match="no frequency for 2 facts, 'f0' among them"):
        li.associate(scores, counts.iloc[2:])
    with pytest.raises(ValueError, match="no column 'n_both'"):
        li.associate(scores, counts.drop(columns="n_both"))
    with pytest.raises(ValueError, match="a fact more than once"):
        li.associate(scores, pd.concat([counts, counts]))
    with pytest.raises(ValueError, match="a prompt more than once"):
        li.associate(pd.concat([scores, scores]), counts)
    with pytest.raises(ValueError, match="1 prompts were scored under one of"):
        li.associate(scores.iloc[:-1], counts)
    with pytest.raises(ValueError, match="negative"):
        li.associate(scores, counts.assign(n_both=-1))
