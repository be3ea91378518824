"""Experiments: published claims as declared protocols, run with controls and judged by rule.

    from nembp.experiments import get, run_experiment, read_experiment, summarize

    run_experiment(get("output-noise-digits"), "runs/experiments", jobs=2)
    summarize(read_experiment("runs/experiments", "output-noise-digits"))

``nembp experiment run`` and ``show`` are these behind a command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from nembp.experiments.claims import available, get
from nembp.experiments.protocol import Arm, Comparison, Metric, Protocol, Rule, Tuning

if TYPE_CHECKING:
    from nembp.experiments.running import run_experiment
    from nembp.experiments.summary import read_experiment, summarize

__all__ = ["Arm", "Comparison", "Metric", "Protocol", "Rule", "Tuning", "available", "get",
           "read_experiment", "run_experiment", "summarize"]  # fmt: skip
_LAZY = {"run_experiment": "running", "read_experiment": "summary", "summarize": "summary"}


def __getattr__(name: str) -> object:
    """Import what needs NumPy when it is first used, so that ``nembp --help`` stays instant."""
    if name in _LAZY:
        return getattr(import_module(f"nembp.experiments.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
