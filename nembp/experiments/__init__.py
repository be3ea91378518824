"""Experiments: published claims as declared protocols, run with controls and judged by rule.

    from nembp.experiments import get, run_experiment, summarize

    folder = run_experiment(get("digits-output-noise"), "runs/experiments", jobs=2)

`nembp experiment run` is `run_experiment` behind a command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nembp.experiments.protocol import Arm, Comparison, Metric, Protocol, Rule, Tuning
from nembp.experiments.registry import available, get, register

if TYPE_CHECKING:
    from nembp.experiments.reading import read_experiment
    from nembp.experiments.runner import run_experiment
    from nembp.experiments.summary import summarize

__all__ = [
    "Arm",
    "Comparison",
    "Metric",
    "Protocol",
    "Rule",
    "Tuning",
    "available",
    "get",
    "read_experiment",
    "register",
    "run_experiment",
    "summarize",
]

_LAZY = {
    "run_experiment": "nembp.experiments.runner",
    "read_experiment": "nembp.experiments.reading",
    "summarize": "nembp.experiments.summary",
}


def __getattr__(name: str) -> object:
    """Import what needs NumPy when it is used, so that ``nembp --help`` is instant."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
