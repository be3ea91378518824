"""Experiments: published claims as declared protocols, run with controls and judged by rule.

    from nembp.experiments import get, run_experiment, read_experiment, summarize

    run_experiment(get("output-noise-digits"), "runs/experiments", jobs=2)
    summarize(read_experiment("runs/experiments", "output-noise-digits"))

``nembp experiment run`` and ``show`` are these behind a command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nembp.experiments.claims import available as available
from nembp.experiments.claims import get as get
from nembp.experiments.protocol import Arm as Arm
from nembp.experiments.protocol import Comparison as Comparison
from nembp.experiments.protocol import Metric as Metric
from nembp.experiments.protocol import Protocol as Protocol
from nembp.experiments.protocol import Rule as Rule
from nembp.experiments.protocol import Tuning as Tuning

if TYPE_CHECKING:
    from nembp.experiments.running import run_experiment as run_experiment
    from nembp.experiments.summary import read_experiment as read_experiment
    from nembp.experiments.summary import summarize as summarize

_LAZY = {"run_experiment": "running", "read_experiment": "summary", "summarize": "summary"}


def __getattr__(name: str) -> object:
    """Import what needs NumPy when it is first used, so that ``nembp --help`` stays instant."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(f"nembp.experiments.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
