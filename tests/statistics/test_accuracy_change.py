"""The change of accuracy: its interval and its p-value never contradict each other."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from laser_interp.statistics.accuracy_change import accuracy_change, sign_flip_p


def rows(n_fixed, n_broken, n=60, prompts=1):
    """Subjects with some prompts each, of which all are fixed, broken, or stay wrong."""
    change = np.repeat([1] * n_fixed + [-1] * n_broken + [0] * (n - n_fixed - n_broken), prompts)
    subject = np.repeat([f"s{i}" for i in range(n)], prompts)
    return pd.DataFrame({"subject": subject, "top1_before": change < 0, "top1_after": change > 0})


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize(("fixed", "broken"), [(12, 0), (20, 4), (30, 30), (4, 2), (5, 0), (1, 0), (0, 0)])
def test_the_interval_leaves_0_out_where_a_change_is_shown(fixed, broken, prompts):
    found = accuracy_change(rows(fixed, broken, prompts=prompts))
    assert found.change == pytest.approx((fixed - broken) / 60)
    assert (found.n_fixed, found.n_broken, found.n) == (prompts * fixed, prompts * broken, 60 * prompts)
    assert found.p == pytest.approx(binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0)
    assert (found.lo > 0) == (found.p <= 0.05)
    assert found.lo <= found.change <= found.hi
    mirrored = accuracy_change(rows(broken, fixed, prompts=prompts))
    assert (mirrored.lo, mirrored.hi) == pytest.approx((-found.hi, -found.lo))


def test_the_words_say_gain_loss_or_neither():
    found = [accuracy_change(rows(*changed)) for changed in ((20, 4), (4, 20), (4, 2))]
    assert [(one.is_shown, one.is_loss) for one in found] == [(True, False), (False, True), (False, False)]
    said = list(map(str, found))
    assert [words.partition("): ")[2] for words in said] == ["a gain", "a loss", "no change that this sample can show"]


def test_signs_are_flipped_exactly_where_few_subjects_changed_and_drawn_where_many():
    few = np.array([3.0, 1, 1, 2, -1])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1)
    assert sign_flip_p(few) == pytest.approx((abs(few @ signs) >= abs(few.sum())).mean())
    many = np.tile(few, 3)
    expected = sign_flip_p(np.concatenate([many, np.zeros(100)]))
    assert expected == sign_flip_p(many)
    signs = np.random.default_rng(1).choice([-1, 1], size=(20_000, 15))
    assert sign_flip_p(many) == pytest.approx((abs(signs @ many) >= many.sum() - 1e-9).mean(), abs=0.01)
    assert sign_flip_p(-many) == sign_flip_p(many)
    assert sign_flip_p(np.zeros(4)) == 1.0
