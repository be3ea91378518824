"""What else used the CPUs during a run: other processes, and the host of a virtual machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

__all__ = ["Meter", "note", "shares"]

NOTEWORTHY = 0.03  # share of the CPUs' time
# fields of /proc/stat's first line, in ticks; guests' time is in user and nice already
_IDLE, _STEAL = (3, 4), 7


@dataclass(frozen=True)
class Meter:
    """Seconds so far: of all CPUs, of work on them, taken by the host, and of this process."""

    total: float
    busy: float
    stolen: float
    own: float

    @classmethod
    def read(cls) -> Meter | None:
        """Return the seconds until now; None where the system does not tell them."""
        try:
            with open("/proc/stat", encoding="ascii") as lines:
                ticks = [int(field) for field in next(lines).split()[1:9]]
        except (OSError, StopIteration):
            return None
        second = os.sysconf("SC_CLK_TCK")
        idle = sum(ticks[field] for field in _IDLE)
        children = os.times()
        own = time.process_time() + children.children_user + children.children_system
        total, stolen = sum(ticks), ticks[_STEAL]
        return cls(total / second, (total - idle - stolen) / second, stolen / second, own)


def shares(before: Meter | None, after: Meter | None) -> dict[str, float] | None:
    """Return the shares of the CPUs' time that other processes and the host took in between.

    >>> shares(Meter(10, 1, 0, 1), Meter(20, 7, 1, 4))
    {'processes': 0.3, 'host': 0.1}
    """
    if before is None or after is None or after.total <= before.total:
        return None
    total = after.total - before.total
    others = (after.busy - before.busy) - (after.own - before.own)
    return {
        "processes": round(max(0.0, others / total), 4),
        "host": round((after.stolen - before.stolen) / total, 4),
    }


def note(taken: dict[str, float] | None) -> str | None:
    """Return a note if other work took a noteworthy share of the CPUs' time."""
    if taken is None or sum(taken.values()) < NOTEWORTHY:
        return None
    return (
        f"during the run other processes took {100 * taken['processes']:.0f}% of the CPUs' time "
        f"and the host of this virtual machine {100 * taken['host']:.0f}%: that distorts the "
        "timings, above all with several threads"
    )
