"""Contenders that are compared must compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.errors import VerificationError

__all__ = ["check_agreement"]

# relative to the largest entry: far above rounding, over sums of up to a million terms and units
# that rounding puts on the other side of a ReLU's kink, and far below another computation's results
TOLERANCES = {"float32": 5e-3, "float64": 1e-7, "tf32": 5e-2}


def check_agreement(
    what: str,
    ours: np.ndarray[Any, Any],
    theirs: np.ndarray[Any, Any],
    *,
    precision: str = "float32",
) -> float:
    """Return max |ours − theirs| / max |ours|.

    Raises
    ------
    VerificationError
        If it is larger than rounding explains.

    >>> check_agreement("y", np.array([4.0, 2.0]), np.array([4.0, 2.0]))
    0.0
    """
    scale = float(np.max(np.abs(ours)))
    off = float(np.max(np.abs(ours - theirs))) / scale if scale > 0 else float("inf")
    tolerance = TOLERANCES["tf32" if precision == "tf32" else str(ours.dtype)]
    if not off <= tolerance:
        raise VerificationError(
            f"nembp and PyTorch disagree on {what}: off by {off:.1e} of its largest entry, "
            f"expected at most {tolerance:.0e}; a comparison of their times would mean nothing. "
            "Please report this with the versions of both"
        )
    return off
