"""95% interval of a share of cases (Wilson 1927); unlike the normal one, it does not collapse where all or none pass.

(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)        z = 1.96
"""

from math import sqrt

Z = 1.959963984540054  # 97.5% quantile of the standard normal distribution


def wilson(passed: int, count: int) -> tuple[float, float]:
    """Compute the interval of the share passed / count. Raises ValueError without cases."""
    if not 0 <= passed <= count or not count:
        raise ValueError(f"{passed} of {count}: a share of one case or more wanted")
    share, over = passed / count, Z * Z / count
    middle, half = share + over / 2, Z * sqrt(share * (1 - share) / count + over / (4 * count))
    return max((middle - half) / (1 + over), 0.0), min((middle + half) / (1 + over), 1.0)
