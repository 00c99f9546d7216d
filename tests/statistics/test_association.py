"""The statistics: silent where there is nothing, not where there is something."""

import numpy as np
import pandas as pd
import pytest

import laser_interp as li
from laser_interp.statistics.comparison import holm
from laser_interp.statistics.frequency_bins import bin_numbers


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


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, pytest.param(25, marks=pytest.mark.nightly)])
def test_an_edit_that_prefers_rare_facts_is_found(n):
    p, signs = [], []
    for seed in range(n):
        found = li.associate(*simulate(seed, slope=-1.5), n_permutations=199)
        p.append(found.p_value)
        signs.append(found.spearman.loc["fixed", "rho"] < 0)
    assert np.mean(np.array(p) < 0.05) > 0.8
    assert all(signs)


def test_the_paragraph_says_which():
    nothing = li.associate(*several_gains(0, 0.0), n_permutations=399).paragraph
    assert "Tenfold frequency multiplies the odds of a wrong answer being fixed by" in nothing
    assert "no trend that this sample can show; it rules out slopes below" in nothing
    assert "in about 80 % of cases" in nothing
    something = li.associate(*several_gains(0, -0.5), n_permutations=399).paragraph
    assert "rare facts gain more" in something
    assert "rules out" not in something
    assert "That alone is no finding" in li.associate(*simulate(0, slope=-2.5), n_permutations=399).paragraph


def several_gains(seed, slope):
    """Scores whose log-probability changes by a slope of frequency, and whose rights and wrongs do not."""
    scores, counts = simulate(seed, 0.0)
    x = np.log10(1 + counts["n_both"].to_numpy())
    after = scores["edit"] == "laser"
    scores.loc[after, "logprob"] = scores.loc[~after, "logprob"].to_numpy() + slope * (x - x.mean())
    scores.loc[after, "logprob"] += np.random.default_rng(seed).normal(0, 0.3, len(x))
    return scores, counts


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
    found = li.associate(pd.concat([base, laser]), n_bins=3, n_permutations=199)
    assert found.bins[["lo", "hi", "n", "n_wrong"]].values.tolist() == [
        [0, 0, 1, 1],
        [10, 10, 1, 1],
        [60, 60, 1, 0],
        [2000, 2000, 1, 0],
    ]
    assert found.bins["p_fixed_given_wrong"].tolist()[:2] == [1.0, 0.0]
    assert found.bins["p_fixed_given_wrong"].isna().tolist() == [False, False, True, True]
    assert found.bins["p_broken_given_right"].tolist()[2:] == [1.0, 0.0]
    # one subject: no interval at all, and none without width
    assert found.bins["p_broken_given_right_hi"].isna().all()
    assert found.cumulative["top1_before"].tolist() == [0, 0, pytest.approx(1 / 3), 0.5]
    assert found.cumulative["top1_after"].tolist() == [1, 0.5, pytest.approx(1 / 3), 0.5]
    assert found.paper_ratio["n_corrected"].tolist() == [1, 0, 0]
    assert found.paper_ratio["n_originally_correct"].tolist() == [0, 1, 1]
    assert found.paper_ratio["ratio"].isna().tolist() == [True, False, False]


def test_bins():
    n = pd.Series([0, 0, 1, 1, 1, 2, 3, 5, 8, 13])
    bins = bin_numbers(n, 4)
    assert (bins[n == 0] == 0).all()
    assert (bins[n > 0] > 0).all()
    assert bins.groupby(n).nunique().max() == 1  # equal counts share a bin
    assert bins.is_monotonic_increasing
    assert (bin_numbers(pd.Series([0, 0]), 4) == 0).all()


def test_only_the_test_half_is_reported(organism, facts, laser):
    some = facts.keep(facts.facts[:80])
    scores = li.score(organism, some, {"base": None, "laser": laser})
    found = li.associate(scores, n_permutations=199)
    assert found.n_facts == len(some.split("test"))
    assert set(found.rows["fact_id"]) == {f.fact_id for f in some.split("test")}


def test_where_nothing_can_be_estimated():
    scores, counts = simulate(1, 0)
    scores.loc[scores["edit"] == "laser", "top1"] = True
    found = li.associate(scores, counts, n_permutations=199)
    assert "all were fixed" in found.paragraph
    assert found.p_value is None
    same = counts.assign(n_both=7)
    found = li.associate(simulate(1, 0)[0], same, n_permutations=199)
    assert "have the same frequency" in found.paragraph


def test_the_same_seed_gives_the_same_report():
    a, b = (li.associate(*simulate(3, 0), n_permutations=199, seed=9) for _ in range(2))
    pd.testing.assert_frame_equal(a.bins, b.bins)
    pd.testing.assert_frame_equal(a.spearman, b.spearman)


def test_refusals():
    scores, counts = simulate(0, 0)
    with pytest.raises(ValueError, match=r"no scores of edit='other': the table's edits are \['base', 'laser'\]"):
        li.associate(scores, counts, edit="other")
    with pytest.raises(ValueError, match="no frequency for 2 facts, 'f0' among them"):
        li.associate(scores, counts.iloc[2:])
    with pytest.raises(ValueError, match="no column 'n_both'"):
        li.associate(scores, counts.drop(columns="n_both"))
    with pytest.raises(ValueError, match="n_permutations is 0: expected 1 or more"):
        li.associate(scores, counts, n_permutations=0)
    with pytest.raises(ValueError, match="a fact more than once"):
        li.associate(scores, pd.concat([counts, counts]))
    with pytest.raises(ValueError, match="a prompt more than once"):
        li.associate(pd.concat([scores, scores]), counts)
    with pytest.raises(ValueError, match="1 prompts were scored under one of"):
        li.associate(scores.iloc[:-1], counts)
    with pytest.raises(ValueError, match="negative"):
        li.associate(scores, counts.assign(n_both=-1))


# --- scores that are not ours


def frame(seed=0, slope=0.0, *, n_subjects=120, facts_each=4):
    """For `li.frequency_report`: accuracy rises with frequency, and a rate set by `slope` fixes wrong answers."""
    rng = np.random.default_rng(seed)
    n = n_subjects * facts_each
    subject = np.repeat(np.arange(n_subjects), facts_each)
    n_both = np.round(10 ** np.clip(rng.uniform(0, 3, n_subjects)[subject] + rng.normal(0, 0.3, n), 0, 3))
    known = np.log10(n_both) - 1.5 + rng.normal(0, 0.5, n_subjects)[subject]
    before = rng.random(n) < _share(known)
    luck = 0.7 * rng.normal(0, 1, n_subjects)[subject]
    fixed = rng.random(n) < _share(-0.5 + luck + slope * (np.log10(1 + n_both) - 1.5))
    after = np.where(before, rng.random(n) >= 0.05, fixed)
    return pd.DataFrame(
        {
            "fact_id": [f"f{i}" for i in range(n)],
            "subject": [f"s{s}" for s in subject],
            "relation": rng.choice(["p", "q", "r"], n),
            "before": before.astype(int),
            "after": after.astype(int),
            "n_both": n_both,
            "n_subject": n_both + np.round(10 ** rng.uniform(1, 4, n)),
            "n_object": n_both + np.round(10 ** rng.uniform(1, 4, n)),
        }
    )


def _share(logit):
    return 1 / (1 + np.exp(-logit))


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, pytest.param(30, marks=pytest.mark.nightly)])
def test_no_threshold_fakes_a_slope_in_nats(n):
    """An edit that moves every margin alike: the odds ratio of being fixed finds frequency, and the others do not."""
    from analyses.frequency_trap import KINDS, study

    null = [kind for kind in KINDS if kind.slope == 0 and not kind.skewed]
    found = study(n, kinds=null).set_index("name")
    within = 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)
    assert (found["forbidden"] <= within).all(), found["forbidden"]
    trap = found.index.str.startswith("only a generic word loses")
    for column in ("log odds", "blind edit"):
        assert (found.loc[~trap, column] <= within).all(), found[column]
    assert (found.loc[trap, "log odds"] > 0.7).all()  # what the slope with generic words forbidden is for
    assert found["coverage"].min() >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / n)
    assert found.loc["uniform shift, margins rise by .9", "odds ratio above 1"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, pytest.param(30, marks=pytest.mark.nightly)])
def test_slopes_of_both_signs_are_found(n):
    from analyses.frequency_trap import KINDS, study

    found = study(n, kinds=[kind for kind in KINDS if kind.slope and not kind.count_error]).set_index("name")
    assert (found.loc[["rare facts gain .2 more", "frequent facts gain .2 more"], "log odds"] > 0.9).all()
    assert (
        abs(found.loc["rare facts gain .1 more", "log odds"] - found.loc["frequent facts gain .1 more", "log odds"])
        < 0.25
    )


def test_a_slope_is_that_of_least_squares_with_an_intercept_for_each_relation():
    from laser_interp.statistics.frequency_slope import frequency_slopes, sensitivity

    given = frame(7).assign(prompt_id=0)
    rng = np.random.default_rng(1)
    y = 0.3 * np.log10(1 + given["n_both"]) + rng.normal(0, 1, len(given)) + (given["relation"] == "q")
    row = frequency_slopes(given, {"whole": y.to_numpy()}, n_permutations=499, seed=0).iloc[0]
    design = np.column_stack([np.log10(1 + given["n_both"]), pd.get_dummies(given["relation"], dtype=float)])
    expected = np.linalg.lstsq(design, y.to_numpy(), rcond=None)[0][0]
    assert row["slope"] == pytest.approx(expected)
    assert row["lo"] < 0.3 < row["hi"]
    assert row["least_down"] < 0 < row["least_up"]
    table = sensitivity(given, row["slope"]).set_index("size")["slope"]
    assert table[0.1] > row["slope"]
    assert table[0.4] > table[0.2] > table[0.1]


def test_what_a_slope_shows_in_80_percent_is_shown_in_80_percent():
    """Planted at the least slopes that the sample says it shows, above and below 0."""
    from laser_interp.statistics.frequency_slope import frequency_slopes

    def p(given, slope, seed):
        x = np.log10(1 + given["n_both"])
        noise = np.random.default_rng(seed).normal(0, 1, len(given))
        how = {"n_permutations": 199, "seed": seed}
        return frequency_slopes(given, {"whole": (slope * x + noise).to_numpy()}, **how).iloc[0]

    given = frame(8, n_subjects=60)
    first = p(given, 0.0, 0)
    for end in ("least_up", "least_down"):
        shown = [p(given, first[end], seed)["p"] <= 0.05 for seed in range(1, 61)]
        assert 0.6 <= np.mean(shown) <= 0.95


def test_correlations_are_within_relations():
    """Relations that differ in frequency and in gain, and nothing within them: no correlation."""
    from laser_interp.statistics.rank_correlation import spearman_over_facts

    rng = np.random.default_rng(0)
    relation = np.repeat([0, 1], 100)
    x, y = 5 * relation + rng.normal(0, 1, 200), 5 * relation + rng.normal(0, 1, 200)
    how = {"n_permutations": 499, "seed": 0}
    assert abs(spearman_over_facts(x, y, np.arange(200), relation, **how)["rho"]) < 0.2
    assert spearman_over_facts(x, y, np.arange(200), np.zeros(200), **how)["rho"] > 0.6


def test_the_interval_of_a_correlation_agrees_with_its_p_value():
    from laser_interp.statistics.rank_correlation import spearman_over_facts

    told = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=24)
        found = spearman_over_facts(
            x, 0.45 * x + rng.normal(size=24), np.arange(24) // 2, np.zeros(24), n_permutations=499, seed=seed
        )
        assert found["lo"] <= found["rho"] <= found["hi"]
        shown = found["p"] <= 0.05
        assert not found["lo"] < 0 < found["hi"] if shown else found["lo"] <= 0 <= found["hi"]
        told.add(shown)
    assert told == {True, False}


def test_a_blind_edit_is_dealt_in_blocks_that_fit_into_memory(monkeypatch):
    from analyses.frequency_trap import Kind, simulate
    from laser_interp.statistics import blind_edit

    rows = simulate(Kind("x", rising=0.9, n_subjects=100), 3)
    found = []
    for at_once in (10**6, 2000):
        monkeypatch.setattr(blind_edit, "_AT_ONCE", at_once)
        found.append(blind_edit.against_blind_edit(rows, n_permutations=199, seed=0))
    assert found[1] == pytest.approx(found[0], nan_ok=True)


def test_a_blind_edit_is_what_it_says():
    """Margins that rise with frequency, and gains that do not: far from 1, and so is the blind edit; gains that do."""
    from analyses.frequency_trap import Kind, simulate
    from laser_interp.statistics.blind_edit import against_blind_edit

    how = {"n_permutations": 199, "seed": 0}
    found = against_blind_edit(simulate(Kind("x", rising=0.9, n_subjects=600), 3), **how)
    assert found["odds_ratio"] > 1.4
    assert found["blind_lo"] < found["odds_ratio"] < found["blind_hi"]
    assert found["p"] > 0.05
    frequent = against_blind_edit(simulate(Kind("x", rising=0.9, slope=0.4, n_subjects=600), 3), **how)
    assert frequent["odds_ratio"] > frequent["blind_hi"]
    assert frequent["p"] <= 0.05
    rows = simulate(Kind("x"), 0).drop(columns="margin_after")
    assert against_blind_edit(rows, **how)["problem"] == "the scores have no margins"


def test_the_report_is_a_table_a_figure_and_a_paragraph():
    report = li.frequency_report(frame(1, slope=-1.5), n_permutations=1999)
    assert report.p_value == 0.001
    table = report.table.set_index("quantity")
    odds = table.loc["odds ratio of fixed per tenfold frequency"]
    assert odds["adjusted_for"] == "relation"
    assert odds["hi"] < 1
    assert report.p_value == odds["p"]
    assert {"change in accuracy", "odds ratio of fixed per unit of PMI"} <= set(table.index)
    assert set(table["unit"]) == set(table["source"]) == {"as given"}
    assert len(report.figure.axes) == 4
    assert "That alone is no finding" in report.paragraph
    assert report.paragraph.endswith("facts that differ in frequency differ in other things too.")
    assert "<table" in report._repr_html_()
    nothing = li.frequency_report(frame(2), n_permutations=399)
    assert nothing.p_value > 0.05
    assert len(report.relations) == 3
    assert report.relations["n_fixed"].sum() == report.rows["fixed"].sum()


def test_the_report_equals_that_on_our_own_scores():
    scores, counts = simulate(5, -0.7)
    ours = li.associate(scores, counts, n_permutations=199)
    wide = scores.pivot(index="fact_id", columns="edit", values="top1").reset_index()
    given = wide.rename(columns={"base": "before", "laser": "after"}).merge(counts, on="fact_id")
    given = given.merge(scores[["fact_id", "subject", "relation"]].drop_duplicates(), on="fact_id")
    found = li.frequency_report(given.astype({"before": int, "after": float}), n_permutations=199)
    assert found.p_value == pytest.approx(ours.p_value, rel=1e-9)
    pd.testing.assert_frame_equal(
        found.bins.drop(columns=[c for c in found.bins if c.endswith(("lo", "hi"))]),
        ours.bins.drop(columns=[c for c in ours.bins if c.endswith(("lo", "hi"))]),
        check_dtype=False,
    )


def test_log_probabilities():
    given = frame(3)
    rng = np.random.default_rng(0)
    for column in ("before", "after"):
        right = given[column].to_numpy(bool)
        given[column] = np.log(
            np.where(right, rng.uniform(0.51, 0.99, len(given)), rng.uniform(0.001, 0.49, len(given)))
        )
    found = li.frequency_report(given, n_permutations=199)
    plain = li.frequency_report(frame(3), n_permutations=199)
    assert found.p_value == plain.p_value
    assert "probability is above one half" in found.paragraph
    assert "logprob" not in plain.spearman.index


def test_accuracy_alone():
    given = frame(4).drop(columns="after")
    found = li.frequency_report(given)
    assert found.p_value == 0.001
    assert "frequent facts are known better" in found.paragraph
    assert "fixed" not in found.paragraph
    assert found.table["quantity"].iloc[0] == "Spearman, accuracy with frequency"
    assert len(found.figure.axes) == 1
    shuffled = given.assign(n_both=np.random.default_rng(0).permutation(given["n_both"]))
    assert li.frequency_report(shuffled, n_permutations=199).p_value > 0.01


def test_without_subject_and_object_counts_and_with_relations_that_say_nothing():
    given = frame(6).drop(columns=["n_subject", "n_object"])
    given["relation"] = np.where(np.arange(len(given)) < 40, "all wrong", given["relation"])
    given.loc[:39, "after"] = 0
    found = li.frequency_report(given, n_permutations=199)
    assert set(found.effects["effect"]) == {"frequency", "broken"}
    row = found.effect("frequency")
    assert row["n_left_out"] == (given.loc[:39, "before"] == 0).sum()
    assert found.p_value is not None


def test_reports_refuse_with_reasons():
    good = frame(0)
    with pytest.raises(ValueError, match="no column before, n_both: it has fact_id"):
        li.frequency_report(good.drop(columns=["before", "n_both"]))
    with pytest.raises(ValueError, match=r"before and after hold \[0.5\]: expected 0/1"):
        li.frequency_report(good.assign(before=0.5))
    with pytest.raises(ValueError, match="after is missing in row 3"):
        li.frequency_report(good.assign(after=good["after"].where(good.index != 2)))
    with pytest.raises(ValueError, match="no frequency for 1 facts, 'f7' among them"):
        li.frequency_report(good.assign(n_both=good["n_both"].where(good.index != 7)))
    with pytest.raises(ValueError, match="a frequency is negative"):
        li.frequency_report(good.assign(n_subject=-1))
    with pytest.raises(ValueError, match="the rows of a fact differ in n_both"):
        li.frequency_report(good.assign(fact_id="f0"))
    with pytest.raises(ValueError, match="the frame is empty"):
        li.frequency_report(good.iloc[:0])


def test_only_the_test_rows_of_a_given_frame():
    given = frame(0)
    given["split"] = np.where(np.arange(len(given)) < 100, "validation", "test")
    assert li.frequency_report(given, n_permutations=199).n_facts == len(given) - 100


# --- several edits


def several(seed, slopes):
    """Scores of several edits on the same facts."""
    parts = []
    for i, (name, slope) in enumerate(slopes.items()):
        scores, counts = simulate(seed, slope) if i == 0 else (simulate(seed, slope)[0], counts)
        parts.append(scores if i == 0 else scores[scores["edit"] == "laser"])
        parts[-1] = parts[-1].replace({"edit": {"laser": name}})
    return pd.concat(parts, ignore_index=True), counts


@pytest.mark.slow
def test_several_edits_are_compared_with_corrected_intervals():
    scores, counts = several(0, {"a": -2.0, "b": 0.0, "random": 0.0})
    found = li.compare(scores, counts, placebos=["random"])
    table = found.table.set_index("edit")
    assert list(table["placebo"]) == [False, False, True]
    assert table.loc["a", "p_holm"] == pytest.approx(0.003)
    assert table.loc["a", "odds_hi"] < 1
    alone = li.associate(scores, counts, edit="a").effect("frequency")
    assert table.loc["a", "odds_ratio"] == pytest.approx(alone["odds_ratio"])
    assert table.loc["a", "odds_hi"] > alone["odds_hi"]  # wider, because three were looked at
    assert (table["p_holm"] >= table["p"]).all()
    of_a = li.associate(scores, counts, edit="a").slope("log_odds")
    assert table.loc["a", "slope"] == pytest.approx(of_a["slope"])
    assert table.loc["a", "slope_lo"] < of_a["lo"]
    assert table.loc["a", "p_slope_holm"] >= table.loc["a", "p_slope"]
    assert "Of 1 placebo, 1 changed accuracy, and the log-odds of 0 depended on frequency" in found.paragraph
    assert len(found.figure.axes) == 2
    with pytest.raises(ValueError, match="no scores of the placebo 'other'"):
        li.compare(scores, counts, placebos=["other"])
    with pytest.raises(ValueError, match="no edit to compare"):
        li.compare(scores[scores["edit"] == "base"], counts)


@pytest.mark.slow
def test_p_values_are_corrected_as_statsmodels_does():
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for p in ([0.2], [0.5, 0.01, 0.01, 1.0], *(rng.random(n) ** 3 for n in (2, 6, 50))):
        assert holm(pd.Series(p)).tolist() == pytest.approx(multipletests(p, method="holm")[1], abs=1e-15)


@pytest.mark.slow
def test_many_edits_make_no_finding():
    """Five edits that ignore frequency: some p-value is below .05 in a fifth of cases, a Holm p in a twentieth."""
    any_plain = any_holm = 0
    for seed in range(24):
        rng = np.random.default_rng(10_000 + seed)  # not the stream that made the frequencies
        scores, counts = simulate(seed, 0)
        base = scores[scores["edit"] == "base"]
        edits = [
            base.assign(edit=f"e{i}", top1=np.where(base["top1"], True, rng.random(len(base)) < 0.4)) for i in range(5)
        ]
        table = li.compare(pd.concat([base, *edits]), counts, n_permutations=199).table
        any_plain += (table["p"] < 0.05).any()
        any_holm += (table["p_holm"] < 0.05).any()
    assert any_plain > any_holm
    assert any_holm <= 5  # expected 1.2 of 24; more than 5 about once in 1000 times


def test_more_than_can_be_permuted_at_once_is_said(monkeypatch):
    """Three numbers are sorted as one of 64 bits, so that there is a largest sample."""
    from laser_interp.statistics import blind_edit, subject_permutation
    from laser_interp.statistics.frequency_slope import frequency_slopes

    given = frame(7).assign(prompt_id=0)
    monkeypatch.setattr(subject_permutation, "MOST", 10)
    with pytest.raises(ValueError, match="more than can be compared at once"):
        frequency_slopes(given, {"whole": np.arange(float(len(given)))}, n_permutations=9, seed=0)
    monkeypatch.setattr(blind_edit, "MOST", 3)
    rng = np.random.default_rng(0)
    before = rng.normal(-1, 1, len(given))
    after = before + 1
    rows = given.assign(margin_before=before, margin_after=after, top1_before=before > 0)
    rows["fixed"] = (before <= 0) & (after > 0)
    found = blind_edit.against_blind_edit(rows, n_permutations=9, seed=0)
    assert "more than can be dealt at once (3)" in found["problem"]
    assert np.isnan(found["blind"])


def test_a_ceiling_fakes_no_finding():
    """Every answer gains the same log-odds: log p rises less where it is high, and the paragraph says so."""
    rng = np.random.default_rng(0)
    n = 600
    x = rng.uniform(0, 4, n)
    margin = 1.5 * (x - 2) + rng.normal(0, 0.3, n)
    logprobs = {"base": -np.logaddexp(0, -margin), "laser": -np.logaddexp(0, -(margin + 0.8))}
    about = {"fact_id": [f"f{i}" for i in range(n)], "prompt_id": 0, "subject": range(n), "split": "test"}
    about |= {"relation": rng.choice(["p", "q"], n), "frequency": None}
    frames = [
        pd.DataFrame(about | {"edit": label, "logprob": of, "top1": of > np.log(0.5), "top10": True})
        for label, of in logprobs.items()
    ]
    counts = pd.DataFrame({"fact_id": about["fact_id"], "n_both": np.round(10**x - 1)})
    found = li.associate(pd.concat(frames, ignore_index=True), counts, n_permutations=199)
    assert found.slope("whole")["p"] <= 0.05
    assert found.slope("whole")["slope"] < -0.1
    assert abs(found.slope("log_odds")["slope"]) < 1e-6
    assert "The ceiling may explain the slope of log-probability" in found.paragraph


def test_a_blind_edit_deals_one_prompt_of_one_fact_of_each_subject():
    """Prompts of one fact have gains alike: dealt one by one, they would find frequency where there is none."""
    from laser_interp.statistics.blind_edit import against_blind_edit

    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        fact = np.repeat(np.arange(100), 3)
        x = rng.uniform(0, 3, 100)[fact]
        before = 0.6 * (x - 1.5) - 0.7 + rng.normal(0, 1, 300)
        after = before + 0.5 + rng.normal(0, 1.0, 100)[fact]
        rows = {"fact_id": fact, "subject": fact, "prompt_id": np.tile(range(3), 100), "relation": fact % 4}
        rows = pd.DataFrame(rows | {"n_both": np.round(10**x), "margin_before": before, "margin_after": after})
        rows["top1_before"], rows["fixed"] = before > 0, (before <= 0) & (after > 0)
        result = against_blind_edit(rows, n_permutations=199, seed=seed)
        assert result["n"] <= 100
        found.append(result["p"] <= 0.05)
    assert np.mean(found) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)


def test_facts_without_a_finite_logprob_take_part_in_no_slope():
    from laser_interp.statistics.association import _outcomes

    rows = pd.DataFrame({"logprob_before": [-1.0, -np.inf, -2.0], "logprob_after": [-0.5, -np.inf, -np.inf]})
    found = _outcomes(rows)
    assert found["whole"][0] == 0.5
    assert np.isnan(found["whole"][1:]).all()
    assert np.isnan(found["log_odds"][1:]).all()


def test_so_few_subjects_that_no_slope_can_be_shown():
    from laser_interp.statistics.frequency_slope import frequency_slopes

    rows = pd.DataFrame({"fact_id": range(4), "subject": range(4), "relation": "r", "n_both": [1, 10, 100, 1000]})
    row = frequency_slopes(rows, {"whole": np.array([0.1, 0.4, 0.2, 0.9])}, n_permutations=199, seed=0).iloc[0]
    assert np.isnan(row["p"])
    assert np.isnan(row["least_up"])
    assert "even the most extreme arrangement" in row["problem"]


def test_a_slope_without_a_p_value_is_not_told():
    from laser_interp.statistics.sentences import _in_nats

    for slope in (0.1, np.nan):
        (told,) = _in_nats({"whole": {"slope": slope, "p": np.nan, "problem": "too few subjects"}}, pd.DataFrame())
        assert told.endswith("depends on frequency cannot be told: too few subjects.")
