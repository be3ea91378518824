"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable

from nembp.errors import ArchitectureError

__all__ = ["SCHEDULES", "Schedule", "learning_rate_schedule"]

Schedule = Callable[[float], float]
SCHEDULES = ("cosine", "constant", "step", "late-cosine")


def learning_rate_schedule(
    name: str, *, step_every: float = 1 / 3, step_factor: float = 0.1
) -> Schedule:
    """Return a schedule: the factor of η at the share 0 ≤ s < 1 of training done.

    ``constant``: 1; ``cosine``: (1 + cos πs)/2; ``step``: ``step_factor`` to the power of
    ⌊s / ``step_every``⌋; ``late-cosine``: 1 in the first half, then a cosine's fall to 0.

    >>> learning_rate_schedule("cosine")(0.5)
    0.5
    """
    if name == "constant":
        return lambda share: 1.0
    if name == "cosine":
        return lambda share: 0.5 * (1.0 + math.cos(math.pi * share))
    if name == "late-cosine":
        return lambda share: 0.5 * (1.0 + math.cos(math.pi * max(0.0, 2.0 * share - 1.0)))
    if name == "step":
        return lambda share: step_factor ** math.floor(share / step_every + 1e-9)
    raise ArchitectureError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
