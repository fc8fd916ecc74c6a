"""Whether fresh episodes show that a target is reached: the rule that every system is held to.

It is run by a peer's own Python, so it knows nothing of this project; a test holds it to what
``evolve()`` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean, stdev

#: Fresh episodes that are needed, and those between looks at whether there is still hope.
EPISODES = 100
LOOK = 10
#: The mean of all episodes is this many standard errors too low in 1 of 50 cases.
HOPE = 2.05
#: Of the lower bound of the mean, which has to reach the target.
CONFIDENCE = 0.9
DOUBT = NormalDist().inv_cdf(CONFIDENCE)


def hopeful(returns: Sequence[float], target: float) -> bool:
    """Return whether 100 episodes that begin with these may show that the target is reached."""
    mean, count = fmean(returns), len(returns)
    deviation = stdev(returns)
    if not deviation > 0:  # all the same, or NaN
        return mean >= target
    needed = target + DOUBT * deviation / math.sqrt(EPISODES)
    left = deviation * math.sqrt(1 / count - 1 / EPISODES)
    return mean >= needed - HOPE * left or count >= EPISODES


def reached(returns: Sequence[float], target: float) -> bool:
    """Return whether the lower bound of the mean is at least the target."""
    error = stdev(returns) / math.sqrt(len(returns))
    return fmean(returns) - DOUBT * error >= target


def confirm(play: Callable[[int], Sequence[float]], target: float) -> tuple[bool, float]:
    """Return whether fresh episodes reach the target, and their mean.

    ``play`` gives the returns of so many of them. They are 100, or fewer where hope is small.
    """
    returns: list[float] = []
    while len(returns) < EPISODES:
        returns += play(LOOK)
        if not hopeful(returns, target):
            break
    return reached(returns, target), fmean(returns)
