"""What the bits of a training depend on besides its settings."""

from __future__ import annotations

import platform
import sys
from typing import Any

import numpy as np

import nembp
from nembp.network import Network

__all__ = ["environment"]


def environment(net: Network) -> dict[str, Any]:
    """Describe what the bits of a training depend on besides its settings.

    Float products differ in their last bits between builds and between 1 and 2 BLAS threads, so
    repeating or resuming a run bit for bit is promised only where this is the same.

    Returns
    -------
    dict
        JSON values: versions, ``device``, ``platform``, and ``blas`` with its ``threads``; None
        where the BLAS is unknown.

    >>> from nembp.network import dense_network
    >>> environment(dense_network([4, 3]))["device"]
    'cpu'
    """
    import threadpoolctl

    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    pools.sort(key=lambda pool: "numpy" not in pool["filepath"])  # SciPy may bring its own
    blas = None
    if pools:
        names = {"internal_api": "library", "num_threads": "threads"}
        keys = ("internal_api", "version", "architecture", "num_threads")
        blas = {names.get(key, key): pools[0].get(key) for key in keys}
    cupy = sys.modules.get("cupy") if net.backend.name == "gpu" else None
    return {
        "nembp": nembp.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cupy": None if cupy is None else cupy.__version__,
        "platform": platform.platform(),
        "device": net.backend.describe(),
        "blas": blas,
    }
