"""Training runs: from a configuration to a folder with the model, its scores and its picture.

    from nembp.runs import RunConfig, train_run

    summary = train_run(RunConfig(dataset="digits", noise="nem"), "runs/nem")

`nembp train` is `train_run` behind a command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nembp.runs.config import RunConfig
from nembp.runs.config_file import from_toml, to_toml
from nembp.runs.recipes import recipe

if TYPE_CHECKING:
    from nembp.runs.scoring import evaluate_run
    from nembp.runs.training import train_run

__all__ = ["RunConfig", "evaluate_run", "from_toml", "recipe", "to_toml", "train_run"]

_LAZY = {"train_run": "nembp.runs.training", "evaluate_run": "nembp.runs.scoring"}


def __getattr__(name: str) -> object:
    """Import what needs NumPy when it is used, so that ``nembp --help`` is instant."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
