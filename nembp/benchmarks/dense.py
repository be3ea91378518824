"""The dense suite: training steps of fully connected classifiers beside their peers."""

from __future__ import annotations

from typing import Any

from nembp.backend import Backend
from nembp.benchmarks import Progress, Settings
from nembp.benchmarks.cases import DenseCase, measure_cases
from nembp.benchmarks.notation import parse_network
from nembp.benchmarks.steps import measure_step
from nembp.benchmarks.tables import dense_table as table

__all__ = ["DEFAULTS", "QUICK", "STEP", "check_network", "measure", "table"]

DEFAULTS = Settings(
    networks=("784-256-128-10", "784-512-512-10", "784-1024-1024-1024-10"),
    batches=(32, 128, 512),
    threads=(1, 2),
)
QUICK = Settings(
    networks=("784-512-512-10",), batches=(32, 128), threads=(1, 2), budget=8.0, memory=False
)
STEP = (
    "A step is the gradient and Adam's update of every parameter, on a batch that already lies in "
    "the step's buffers: reading and scaling data is not part of it. PyTorch runs eagerly with "
    "fused Adam, and its bidirectional step is the plain one, one backward row a sample. Before "
    "the timing its gradients are checked against nembp's."
)


def check_network(text: str) -> None:
    """Raise ArchitectureError, naming ``text``, if it is no dense network."""
    parse_network(text)


def measure(settings: Settings, backend: Backend, progress: Progress) -> list[dict[str, Any]]:
    """Time every case of the settings."""
    return measure_cases(settings, backend, progress, DenseCase, measure_step)
