"""Training runs: from a configuration to a folder with the model, its scores and its picture.

    from nembp.runs import RunConfig, train_run

    summary = train_run(RunConfig(dataset="digits", noise="nem"), "runs/nem")

`nembp train` is `train_run` behind a command line; `nembp gan` is `run_gan` of a `GanConfig`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nembp.runs.config import RunConfig
from nembp.runs.config_file import from_toml, to_toml
from nembp.runs.gan_config import GanConfig
from nembp.runs.recipes import recipe

if TYPE_CHECKING:
    from nembp.runs.gan_training import gan_replicate, run_gan
    from nembp.runs.scoring import evaluate_run
    from nembp.runs.training import train_run

__all__ = [
    "GanConfig",
    "RunConfig",
    "evaluate_run",
    "from_toml",
    "gan_replicate",
    "recipe",
    "run_gan",
    "to_toml",
    "train_run",
]

_LAZY = {
    "train_run": "nembp.runs.training",
    "evaluate_run": "nembp.runs.scoring",
    "run_gan": "nembp.runs.gan_training",
    "gan_replicate": "nembp.runs.gan_training",
}


def __getattr__(name: str) -> object:
    """Import what needs NumPy when it is used, so that ``nembp --help`` is instant."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
