"""Where little was fixed, counts are zero, subjects are few or relations small."""

import time
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, fisher_exact

import laser_interp as li
from analyses.frequency_simulation import Simulated, data_set, simulate
from laser_interp.cluster_intervals import Clusters
from laser_interp.statistics.accuracy_change import sign_flip_p
from laser_interp.statistics.conditional_logistic import ConditionalLogistic, separation
from laser_interp.statistics.frequency_bins import bin_numbers, paper_ratio
from laser_interp.statistics.frequency_effect import _unexplained, frequency_effects
from laser_interp.statistics.frequency_slope import frequency_slopes
from laser_interp.statistics.paired_scores import known_counts
from laser_interp.statistics.rank_correlation import spearman, spearman_over_facts
from laser_interp.statistics.subject_permutation import Permutations, comparable


def data_sets(few, many):
    """The number of simulated data sets: few in each run of the tests, many each night."""
    return pytest.mark.parametrize("n", [few, pytest.param(many, marks=pytest.mark.nightly)])


def frame(before, after, n_both, subject=None, relation="r"):
    n = len(n_both)
    subject = [f"s{i}" for i in range(n)] if subject is None else subject
    columns = {"fact_id": [f"f{i}" for i in range(n)], "subject": subject, "relation": relation}
    return pd.DataFrame(columns | {"before": before, "after": after, "n_both": n_both})


def first_fixed(n, k):
    return (np.arange(n) < k).astype(int)


# --- few events


def test_two_fixed_of_forty():
    """The case that gave p = 1e-26; Fisher's exact test gives .49."""
    report = li.frequency_report(frame(0, first_fixed(40, 2), [0] * 20 + [100] * 20))
    assert fisher_exact([[2, 18], [0, 20]]).pvalue == pytest.approx(0.49, abs=0.01)
    assert report.p_value is None
    row = report.effect("frequency")
    assert np.isnan(row["odds_ratio"])
    assert "2 of 40 prompts wrong before were fixed, and even the most extreme arrangement" in row["problem"]
    assert "cannot be told, because 2 of 40" in report.paragraph


@pytest.mark.parametrize("rare_are_fixed", [False, True])
def test_the_interval_of_a_separated_outcome_has_an_open_end(rare_are_fixed):
    """Every fixed fact is rarer than every other: the odds ratio is 0, and so is the lower end of its interval."""
    n_both = np.array([0] * 20 + [100] * 20)
    row = li.frequency_report(frame(0, (n_both < 50) == rare_are_fixed, n_both)).effect("frequency")
    assert row["p"] < 0.01
    assert "at least as" in row["problem"]
    assert np.isnan(row["odds_ratio"])
    if rare_are_fixed:
        assert row["odds_lo"] == 0 < row["odds_hi"] < 1
    else:
        assert 1 < row["odds_lo"] < row["odds_hi"] == np.inf


def test_right_and_wrong_may_be_written_as_words():
    words = frame(["True", "FALSE", "false", "true"] * 10, ["true", "True", "False", "TRUE"] * 10, range(40))
    numbers = frame([1, 0, 0, 1] * 10, [1, 1, 0, 1] * 10, range(40))
    found, expected = (li.frequency_report(one, n_permutations=99) for one in (words, numbers))
    assert found.paragraph == expected.paragraph
    assert found.change.n_fixed == 10


def test_the_papers_bins_end_where_the_paper_says():
    rows = pd.DataFrame({"n_both": [0, 49, 50, 1000, 1001, 9999], "fixed": True, "top1_before": [1, 0, 1, 1, 0, 1]})
    assert paper_ratio(rows)["n"].tolist() == [2, 2, 2]


def test_counts_that_nobody_knows_are_left_out_and_others_are_numbers():
    assert known_counts({"a": 1, "b": np.nan})["fact_id"].tolist() == ["a"]
    for bad in (np.inf, -1, -np.inf):
        with pytest.raises(ValueError, match="the counts hold .* for n_both"):
            known_counts({"a": 1, "b": bad})
    with pytest.raises(ValueError, match="the counts hold 'many' for n_both"):
        known_counts(pd.DataFrame({"fact_id": ["a", "b"], "n_both": ["1", "many"]}))
    assert known_counts(pd.DataFrame({"fact_id": [7], "n_both": [1]}))["fact_id"].tolist() == ["7"]


def test_counts_that_are_all_missing_are_asked_for():
    scores = pd.DataFrame({"fact_id": "7", "prompt_id": 0, "edit": ["base", "laser"], "subject": "s", "relation": "r"})
    scores = scores.assign(frequency=1.0, split="test", top1=True)
    with pytest.raises(ValueError, match="no frequency for 1 facts, '7' among them"):
        li.associate(scores, {"7": np.nan})
    with pytest.raises(ValueError, match="no frequency for 1 facts, '7' among them"):
        li.associate(scores, {"7": "many"})


def test_a_rank_correlation_needs_three_values_and_a_spread_on_both_sides():
    assert spearman(np.array([1, 2, 3]), np.array([1, 2, 2])) == pytest.approx(0.866, abs=1e-3)
    assert spearman(np.array([1, 1, 2]), np.array([5, 7, 9])) == pytest.approx(0.866, abs=1e-3)
    for x, y in (([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])):
        assert np.isnan(spearman(np.array(x), np.array(y)))


@pytest.mark.parametrize(("a", "b"), [(6, 2), (9, 2), (12, 1), (5, 5)])
def test_one_fact_a_subject_and_two_frequencies_is_fishers_test(a, b):
    """Doubled tails of the permutation are those of the hypergeometric distribution."""
    after = np.concatenate([first_fixed(30, a), first_fixed(30, b)])
    report = li.frequency_report(frame(0, after, [0] * 30 + [100] * 30), n_permutations=9999)
    more = fisher_exact([[a, 30 - a], [b, 30 - b]], alternative="greater").pvalue
    less = fisher_exact([[a, 30 - a], [b, 30 - b]], alternative="less").pvalue
    assert report.p_value == pytest.approx(min(1.0, 2 * min(more, less)), abs=0.02)


@pytest.mark.slow
@data_sets(40, 150)
@pytest.mark.parametrize("events", [1, 2, 3, 5, 10])
def test_no_finding_where_there_is_none(events, n):
    rate = simulate(Simulated("few", events, zeros=0.7), n, 7)
    assert rate["rejected"] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)


@pytest.mark.slow
@data_sets(50, 200)
def test_hundred_facts_mostly_never_seen(n):
    """70 % zero counts and 5 % fixed: 26 % of null data sets were "significant"."""
    rate = simulate(Simulated("few", 5, zeros=0.7, n_facts=100, in_relation=100), n, 3)
    assert rate["rejected"] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)


@pytest.mark.slow
@data_sets(50, 150)
def test_frequency_shared_within_a_subject_makes_no_finding(n):
    kind = Simulated("clusters", 60, zeros=0.3, facts_each=10, shared=True, subject_sd=1.5)
    rate = simulate(kind, n, 11)
    assert rate["rejected"] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)
    assert rate["rejected_facts"] > 0.15  # what permuting facts would have found


def test_separation_has_no_ratio():
    """It printed "6406.77 [13.50, 3040728.22]: an association"."""
    n_both = np.round(10 ** np.linspace(0, 3, 60))
    report = li.frequency_report(frame(0, (n_both > 200).astype(int), n_both))
    row = report.effect("frequency")
    assert np.isnan(row["odds_ratio"])
    assert row["odds_lo"] > 1
    assert np.isinf(row["odds_hi"])
    assert report.p_value == 0.001
    assert "at least as frequent as every other of its relation" in row["problem"]
    assert "That alone is no finding, because frequent facts are wrong by less" in report.paragraph
    assert "nan" not in report.paragraph


def test_everything_frequent_was_fixed():
    """It printed "[nan, nan]: no association"."""
    n_both = np.array([0] * 30 + [500] * 30)
    after = np.where(n_both > 0, 1, np.arange(60) % 3 == 0).astype(int)
    report = li.frequency_report(frame(0, after, n_both))
    assert report.p_value <= 0.01
    assert "nan" not in report.paragraph


@pytest.mark.slow
@pytest.mark.parametrize(("n_families", "most"), [(12, 3), pytest.param(30, 5, marks=pytest.mark.nightly)])
def test_placebos_make_no_findings_where_little_is_fixed(n_families, most):
    """77 % of families had a Holm p below .05."""
    families = 0
    for seed in range(n_families):
        rng = np.random.default_rng(seed)
        n = 300
        n_both = np.where(rng.random(n) < 0.7, 0, np.round(10 ** rng.uniform(0, 4, n)))
        facts = pd.DataFrame({"fact_id": [f"f{i}" for i in range(n)], "prompt_id": 0, "split": "", "frequency": n_both})
        facts["subject"], facts["relation"] = facts["fact_id"], "r"
        base = facts.assign(edit="base", top1=False, top10=False, logprob=-1.0)
        edits = [base.assign(edit=f"p{i}", top1=rng.random(n) < 0.015) for i in range(6)]
        table = li.compare(pd.concat([base, *edits]), n_permutations=199).table
        families += bool((table["p_holm"] < 0.05).any())
    assert families <= most  # expected 1.5 of 30, and 0.6 of 12


# --- few subjects


@pytest.mark.parametrize(("k", "p"), [(3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_a_gain_needs_six_subjects(k, p):
    n = max(k, 8)
    scores = frame(0, first_fixed(n, k), np.arange(n))
    changed = li.frequency_report(scores).change
    assert changed.p == pytest.approx(p)
    assert changed.is_shown == (k >= 6)
    assert ("too few to show anything" in str(changed)) == (k < 6)
    assert changed.lo <= 0


def test_three_of_three_and_four_of_four_hundred():
    three = li.frequency_report(frame(0, 1, [1, 2, 3])).change
    assert (three.lo, three.hi) == (pytest.approx(-0.72, abs=0.01), pytest.approx(1.0))
    four = li.frequency_report(frame(0, first_fixed(400, 4), np.arange(400))).change
    assert four.p == pytest.approx(0.125)
    assert four.lo == 0.0
    assert four.verdict == "only 4 subjects changed, too few to show anything"
    one = li.frequency_report(frame(0, first_fixed(30, 17), np.arange(30), subject="s"))
    assert np.isnan(one.change.lo)
    assert one.p_value is None


def test_one_prompt_a_subject_is_mcnemars_exact_test():
    net = np.concatenate([np.ones(19), -np.ones(6), np.zeros(40)])
    assert sign_flip_p(net) == pytest.approx(binomtest(6, 25).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [3, 10])
def test_prompts_that_agree_do_not_make_a_change(prompts):
    """McNemar's test over prompts was significant in .17 and .42 of null data sets."""
    hits, naive = 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        change = rng.choice([-1, 0, 1], 60, p=[0.2, 0.6, 0.2])
        net = change * prompts
        hits += sign_flip_p(net.astype(float)) <= 0.05
        up, down = (net[net > 0].sum(), -net[net < 0].sum())
        naive += binomtest(int(up), int(up + down)).pvalue <= 0.05 if up + down else 0
    assert hits <= 300 * 0.05 + 2 * np.sqrt(300 * 0.05 * 0.95)
    assert naive > 300 * 0.1


@pytest.mark.slow
@pytest.mark.parametrize("n_subjects", [5, 8, 12, 30])
def test_intervals_and_correlations_with_few_subjects(n_subjects):
    """Bootstrap sentences claimed an association in 33, 15 and 8.5 % of null data sets with 5, 8 and 12 subjects."""
    claims = covered = rate_covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        subject = np.repeat(np.arange(n_subjects), 20)
        own = rng.normal(0, 1, n_subjects)[subject]
        x = np.round(10 ** rng.uniform(0, 3, n_subjects)[subject])
        y = (rng.random(len(x)) < 1 / (1 + np.exp(1 - own))).astype(float)
        row = spearman_over_facts(x, y, subject, np.zeros(len(x)), n_permutations=199, seed=seed)
        claims += row["p"] <= 0.05
        if np.isfinite(row["lo"]):
            assert (row["lo"] <= 0 <= row["hi"]) or row["p"] <= 0.05
        clusters = Clusters(pd.Series(subject))
        _, lo, hi = clusters.rate(y.astype(bool), np.ones(len(y), bool))
        rate_covered += lo <= 0.3033 <= hi  # the mean over the subjects' own log odds
        after = np.where(rng.random(len(y)) < 0.1, 1 - y, y)
        _, lo, hi = clusters.change(y, after)
        covered += lo <= 0.1 * (1 - 2 * 0.3033) <= hi
    most = 200 * 0.05 + 2 * np.sqrt(200 * 0.05 * 0.95)
    assert claims <= most
    assert covered >= 0.9 * 200
    assert rate_covered >= 0.9 * 200


def test_rates_by_hand():
    """Twenty subjects with one prompt each: Wilson's interval with Student's quantile."""
    hit = np.arange(20) < 6
    rate, lo, hi = Clusters(pd.Series(range(20))).rate(hit, np.ones(20, bool))
    z, n, p = 2.0930, 19, 0.3  # a variance over subjects has one fewer
    centre, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * np.sqrt(p * 0.7 / n + z * z / 4 / n / n)
    assert (rate, lo, hi) == (0.3, pytest.approx(centre - half, abs=1e-4), pytest.approx(centre + half, abs=1e-4))
    # The same prompts, asked five times each with the same answer, say no more.
    again = Clusters(pd.Series(np.repeat(range(20), 5))).rate(np.repeat(hit, 5), np.ones(100, bool))
    assert again == (0.3, pytest.approx(lo, rel=0.05), pytest.approx(hi, rel=0.05))
    nothing = Clusters(pd.Series(np.repeat(range(20), 5))).rate(np.zeros(100, bool), np.ones(100, bool))
    assert nothing[0] == 0.0
    assert nothing[2] == pytest.approx(z * z / (20 + z * z), abs=1e-3)


# --- relations


def conditional_likelihood(beta, x, y):
    """By enumeration of all ways to have as many events: the slow, obvious one."""
    from itertools import combinations

    own = np.exp(beta * x[y == 1].sum())
    return own / sum(np.exp(beta * x[list(c)].sum()) for c in combinations(range(len(x)), int(y.sum())))


def test_the_estimate_is_the_conditional_likelihoods():
    from scipy.optimize import minimize_scalar

    rng = np.random.default_rng(0)
    relation = np.repeat(np.arange(12), 6)
    x = np.round(rng.uniform(0, 3, 72), 1)
    y = (rng.random(72) < 1 / (1 + np.exp(1 - 0.7 * x))).astype(int)
    facts = comparable(relation, np.arange(72), x, np.ones(72), y)
    groups = [(x[relation == r], y[relation == r]) for r in range(12) if 0 < y[relation == r].sum() < 6]
    best = minimize_scalar(
        lambda b: -sum(np.log(conditional_likelihood(b, *g)) for g in groups), bounds=(-5, 5), method="bounded"
    )
    assert ConditionalLogistic(facts).estimate() == pytest.approx(best.x, abs=1e-4)
    from statsmodels.discrete.conditional_models import ConditionalLogit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = ConditionalLogit(y, x[:, None], groups=relation).fit(disp=0)
    assert ConditionalLogistic(facts).estimate() == pytest.approx(float(fit.params[0]), abs=1e-4)


def test_large_relations_are_fitted_alike():
    """Above 40 events the relation's rate is fitted; the exact condition gives the same within 2 %."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 3, 400)
    y = (rng.random(400) < 1 / (1 + np.exp(2 - 0.7 * x))).astype(int)
    facts = comparable(np.zeros(400, int), np.arange(400), x, np.ones(400), y)
    fitted = ConditionalLogistic(facts).estimate()
    assert ConditionalLogistic(facts).probabilities(0.7).sum() == pytest.approx(y.sum(), abs=1e-6)  # its rate is fitted
    others = comparable(np.zeros(400, int), np.arange(400), x, np.ones(400), 1 - y)
    both = ConditionalLogistic(facts).probabilities(0.7) + ConditionalLogistic(others).probabilities(-0.7)
    assert both == pytest.approx(np.ones(400))
    from laser_interp.statistics import conditional_logistic

    exact_up_to = conditional_logistic._EXACT
    try:
        conditional_logistic._EXACT = 1000
        assert ConditionalLogistic(facts).estimate() == pytest.approx(fitted, rel=0.02)
    finally:
        conditional_logistic._EXACT = exact_up_to


@pytest.mark.slow
@data_sets(40, 120)
@pytest.mark.parametrize("in_relation", [3, 5, 10])
def test_small_relations_do_not_bias_the_odds_ratio(in_relation, n):
    """A true log odds ratio of .70 was estimated as 1.08, .93 and .80."""
    found = simulate(Simulated("bias", 100, zeros=0.5, slope=0.7, in_relation=in_relation), n, 5)
    assert found["coefficient"] == pytest.approx(0.70, abs=0.08)
    assert found["coverage"] >= 0.93 - 2 * np.sqrt(0.05 * 0.95 / n)


def test_prompts_of_a_fact_count_once_where_they_agree():
    rows = data_set(Simulated("prompts", 40, zeros=0.3), 0)
    again = pd.concat([rows] * 5, ignore_index=True)
    one, five = (frequency_effects(r, ["frequency"], n_permutations=399).iloc[0] for r in (rows, again))
    for column in ("odds_ratio", "odds_lo", "odds_hi", "p"):
        assert five[column] == pytest.approx(one[column], rel=0.02)


def test_separation_and_nothing_to_compare():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    facts = comparable(np.zeros(4, int), np.arange(4), x, np.ones(4), np.array([0, 0, 1, 1]))
    assert separation(facts) == 1
    assert ConditionalLogistic(facts).estimate() == np.inf
    assert comparable(np.zeros(4, int), np.arange(4), np.ones(4), np.ones(4), np.array([0, 0, 1, 1])) is None
    assert comparable(np.arange(4), np.arange(4), x, np.ones(4), np.array([0, 0, 1, 1])) is None
    same = comparable(np.zeros(40, int), np.zeros(40, int), np.repeat([1.0, 2.0], 20), np.ones(40), first_fixed(40, 9))
    assert Permutations.of(same, 199, 0).p <= 1.0


# --- sentences


def spearmans(report):
    return report.spearman.loc["top1"]


def test_the_papers_pattern_is_named_only_where_it_is_there():
    n_both = np.round(10 ** np.linspace(0, 3, 300))
    rng = np.random.default_rng(0)
    rare = li.frequency_report(frame(0, (rng.random(300) < 0.8 - 0.25 * np.log10(n_both)).astype(int), n_both))
    frequent = li.frequency_report(frame(0, (rng.random(300) < 0.05 + 0.25 * np.log10(n_both)).astype(int), n_both))
    nothing = li.frequency_report(frame(0, (rng.random(300) < 0.3).astype(int), n_both))
    assert rare.slope("top1")["hi"] < 0 < frequent.slope("top1")["lo"]
    assert nothing.slope("top1")["lo"] < 0 < nothing.slope("top1")["hi"]
    for report in (rare, frequent, nothing):
        assert "nan" not in report.paragraph
        assert "for, for" not in report.paragraph
        assert "That alone is no finding" in report.paragraph  # nothing is known of margins
    assert "fixed more often" not in nothing.paragraph


def test_a_constant_has_no_correlation():
    """It printed "Spearman +nan [+nan, +nan]: no association that this sample can show"."""
    report = li.frequency_report(frame(1, 1, np.arange(20)))
    assert "nan" not in report.paragraph
    assert "Spearman" not in report.paragraph
    alone = li.frequency_report(frame(1, 1, np.arange(20)).drop(columns="after"))
    assert "is not defined, because one of them is always the same" in alone.paragraph


def test_infinite_log_probabilities_keep_their_rank():
    rng = np.random.default_rng(0)
    scores = frame(-rng.exponential(3, 40), -rng.exponential(2, 40), np.arange(40))
    scores.loc[:9, "after"] = -np.inf
    report = li.frequency_report(scores)
    assert report.spearman.loc["logprob", "n"] == 40
    assert report.spearman.loc["logprob", "rho"] > 0.4


# --- bins, units, size


def test_edges_can_be_given():
    n = pd.Series([0, 3, 49, 50, 999, 1000, 5000])
    assert bin_numbers(n, 8, (0, 50, 1000)).tolist() == [1, 1, 1, 2, 2, 3, 3]
    scores = frame(0, [1, 0, 1, 0, 1, 0, 1], n)
    bins = li.frequency_report(scores, edges=(0, 50, 1000)).bins
    assert bins[["lo", "hi", "n"]].to_numpy().tolist() == [[0, 49, 3], [50, 999, 2], [1000, 5000, 2]]
    for bad in ((), (5, 5), (5, 1), (0, np.inf)):
        with pytest.raises(ValueError, match="expected growing numbers"):
            li.frequency_report(scores, edges=bad)
    paper = li.frequency_report(scores).paper_ratio
    assert paper.set_index("frequency")["n"].to_dict() == {"< 50": 3, "50-1000": 3, "> 1000": 1}


def test_the_table_says_what_was_counted():
    scores = frame(0, first_fixed(40, 20), np.arange(40)).assign(unit="sentence", corpus="English Wikipedia")
    table = li.frequency_report(scores).table
    assert set(table["unit"]) == {"sentence"}
    assert set(table["source"]) == {"English Wikipedia"}


@pytest.mark.slow
def test_twenty_thousand_facts_are_quick_and_small():
    """A bound that only a mistake would pass; benchmarks measure."""
    import tracemalloc

    rng = np.random.default_rng(0)
    n = 20_000
    n_both = np.where(rng.random(n) < 0.6, 0, np.round(10 ** rng.uniform(0, 4, n)))
    scores = frame(rng.random(n) < 0.2, rng.random(n) < 0.1, n_both, [f"s{i // 3}" for i in range(n)])
    scores["relation"] = [f"r{i % 35}" for i in range(n)]
    began = time.perf_counter()
    tracemalloc.start()
    report = li.frequency_report(scores.assign(n_subject=n_both + 10, n_object=2 * n_both + 50))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.p_value is not None
    assert peak < 300e6
    assert time.perf_counter() - began < 300


def test_where_no_slope_is_known_it_says_why():
    rows = pd.DataFrame({"fact_id": list("abcd"), "subject": list("abcd"), "relation": "r", "n_both": [0, 1, 10, 100]})
    found = frequency_slopes(rows, {"log_odds": np.full(4, np.nan)}, n_permutations=9, seed=0)
    assert found["problem"][0].startswith("the model gives no fact a probability")
    alike = frequency_slopes(rows.assign(n_both=5), {"log_odds": np.arange(4.0)}, n_permutations=9, seed=0)
    assert alike["problem"][0] == "no relation has facts of several frequencies"


def test_what_the_margin_does_not_predict():
    """Within relations; margins that are all alike predict nothing."""
    x, margin = pd.Series([1.0, 2.0, 3.0, 7.0]), pd.Series([0.0, 1.0, 2.0, 5.0])
    facts = pd.DataFrame({"relation": list("aaab"), "margin": margin})
    assert _unexplained(x, facts).tolist() == [1.0, 1.0, 1.0, 2.0]
    assert _unexplained(x, facts.assign(margin=4.0)).tolist() == x.tolist()


def test_facts_of_subjects_with_one_each_agree_in_nothing():
    from laser_interp.statistics.subject_permutation import _agreement_of_facts

    relation, prompts = np.zeros(4, int), np.ones(4)
    assert _agreement_of_facts(relation, np.arange(4), prompts, np.array([0.0, 1, 0, 1])) == 0.0
