"""Whether something changed at all: flipping the signs of the subjects' net changes.

If an edit does nothing, each subject's net change (prompts fixed minus prompts broken) is as likely to be its negative.
With one prompt a subject this is McNemar's exact test; with more it still holds, because a subject is flipped as a
whole.
"""

from itertools import product

import numpy as np

from laser_interp.choices import check_seed

_EXACT = 12  # subjects that changed, up to which all sign patterns are looked at
_DRAWS = 9999


def sign_flip_p(net: np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p-value of the sum of the subjects' net changes; 1 where no subject changed.

    Exact where few subjects changed, or all by as much; from draws otherwise.
    """
    from scipy.stats import binomtest

    check_seed("seed", seed)
    changed = net[net != 0]
    observed = abs(changed.sum()) - 1e-9
    if len(changed) == 0:
        return 1.0
    if np.ptp(np.abs(changed)) == 0:
        return float(binomtest(int((changed > 0).sum()), len(changed)).pvalue)
    if len(changed) <= _EXACT:
        signs = np.array(list(product((-1, 1), repeat=len(changed))))
        return float((np.abs(signs @ changed) >= observed).mean())
    rng = np.random.default_rng(seed)
    sizes, n = np.unique(np.abs(changed), return_counts=True)  # of n equal changes, a binomial number keeps its sign
    hits = 0
    for _ in range(_DRAWS // 333):  # in blocks, so that memory does not grow with the subjects
        sums = (2.0 * rng.binomial(n, 0.5, size=(333, len(n))) - n) @ sizes
        hits += int((np.abs(sums) >= observed).sum())
    return (1 + hits) / (1 + 333 * (_DRAWS // 333))
