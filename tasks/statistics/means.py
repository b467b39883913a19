"""95 % confidence intervals of means of skewed values, such as log losses."""

import math

from tasks.statistics.shares import Floats, find_quantile

FLAT = 1e-6
"""Below this skewness the transformation is the identity but for rounding errors."""


def find_mean_interval(values: Floats) -> tuple[float, float]:
    """Return the interval of the mean of values [n], none of them negative.

    Student's t after Hall's cubic transformation (On the removal of skewness by transformation, 1992): a few large
    losses make the distribution of the mean skewed, so that a symmetric interval ends too early above.
    """
    count, mean = len(values), float(values.mean())
    deviation = float(values.std(ddof=1)) if count > 1 else 0.0
    if deviation == 0:
        return mean, mean
    bend = float((((values - mean) / deviation) ** 3).mean()) / math.sqrt(count)
    quantile, scale = find_quantile(count - 1), deviation / math.sqrt(count)
    low, high = (mean - scale * _skew(end, bend) for end in (quantile, -quantile))
    return max(low, 0.0), high


def _skew(quantile: float, bend: float) -> float:
    """Transform a quantile of the symmetric distribution to one of the skewed distribution."""
    return 3 / bend * (math.cbrt(1 + bend * (quantile - bend / 6)) - 1) if abs(bend) > FLAT else quantile
