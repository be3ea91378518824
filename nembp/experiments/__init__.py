"""Experiments: published claims as declared protocols, run with controls and judged by rule.

    from nembp.experiments import get, run_experiment, read_experiment, summarize

    run_experiment(get("output-noise-digits"), "runs/experiments", jobs=2)
    summarize(read_experiment("runs/experiments", "output-noise-digits"))

``nembp experiment run`` and ``show`` are these behind a command line.
"""

from nembp.experiments.claims import available, get
from nembp.experiments.protocol import Arm, Comparison, Metric, Protocol, Rule, Tuning
from nembp.experiments.running import run_experiment
from nembp.experiments.summary import read_experiment, summarize

__all__ = ["Arm", "Comparison", "Metric", "Protocol", "Rule", "Tuning", "available", "get",
           "read_experiment", "run_experiment", "summarize"]  # fmt: skip
