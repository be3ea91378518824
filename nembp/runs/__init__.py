"""Training runs: from a configuration to a folder with the model, its scores and its picture.

    from nembp.runs import RunConfig, train_run

    summary = train_run(RunConfig(dataset="digits", noise="nem"), "runs/nem")

`nembp train` is `train_run` behind a command line; `nembp gan` is `run_gan` of a `GanConfig`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nembp.runs.config import RunConfig as RunConfig
from nembp.runs.config import from_toml as from_toml
from nembp.runs.config import recipe as recipe
from nembp.runs.options import to_toml as to_toml

if TYPE_CHECKING:
    from nembp.runs.gan import gan_replicate as gan_replicate
    from nembp.runs.gan import run_gan as run_gan
    from nembp.runs.gan_config import GanConfig as GanConfig
    from nembp.runs.predicting import evaluate_run as evaluate_run
    from nembp.runs.training import train_run as train_run

_LAZY = {
    "GanConfig": "gan_config",
    "train_run": "training",
    "evaluate_run": "predicting",
    "run_gan": "gan",
    "gan_replicate": "gan",
}


def __getattr__(name: str) -> object:
    """Import what needs NumPy, or only `nembp gan` needs, when it is used."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(f"nembp.runs.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
