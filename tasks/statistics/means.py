"""95 % confidence intervals of means of skewed values, such as log losses."""

import numpy as np

from tasks.statistics.shares import Floats


def find_mean_interval(values: Floats) -> tuple[float, float]:
    """Return the interval of the mean of values [n], none of them negative.

    Student's t corrected for skewness by Hall's cubic transformation (On the removal of skewness by transformation,
    1992): a few large losses make the mean's own distribution skewed, and a symmetric interval too short above.
    """
    from scipy.stats import t as student  # late: its import takes a second

    count, mean = len(values), float(values.mean())
    deviation = float(values.std(ddof=1)) if count > 1 else 0.0
    if deviation == 0:
        return mean, mean
    quantile = float(student.ppf(0.975, count - 1))
    bend = float((((values - mean) / deviation) ** 3).mean()) / np.sqrt(count)
    low, high = (_undo(bend, end) for end in (quantile, -quantile))
    scale = deviation / np.sqrt(count)
    return max(mean - scale * low, 0.0), mean - scale * high


def _undo(bend: float, quantile: float) -> float:
    """Transform a quantile of the symmetric distribution to one of the skewed distribution."""
    if abs(bend) < FLAT:
        return quantile
    return 3 / bend * (float(np.cbrt(1 + bend * (quantile - bend / 6))) - 1)


FLAT = 1e-6
