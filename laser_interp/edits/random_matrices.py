"""The singular values that random-matrix theory expects of a matrix of noise."""


def median_of_noise(d_in: int, d_out: int) -> float:
    """Median singular value of a `[d_in, d_out]` matrix of independent entries of variance 1, for large sizes."""
    import numpy as np

    n, beta = max(d_in, d_out), min(d_in, d_out) / max(d_in, d_out)
    lo, hi = (1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2
    # x = lo + (hi − lo) sin²: the density's ends are square roots, which this makes smooth
    angle = np.linspace(0, np.pi / 2, 20001)
    x = lo + (hi - lo) * np.sin(angle) ** 2
    density = np.sqrt(np.maximum((hi - x) * (x - lo), 0)) / np.maximum(x, 1e-300)
    mass = np.cumsum(density * np.sin(2 * angle))
    return float(np.sqrt(n * np.interp(0.5, mass / mass[-1], x)))
