"""Training runs: from a configuration to a folder with the model, its scores and its picture.

    from nembp.runs import RunConfig, train_run

    summary = train_run(RunConfig(dataset="digits", noise="nem"), "runs/nem")

`nembp train` is `train_run` behind a command line; `nembp gan` is `nembp.runs.gan.run_gan` of a
`nembp.runs.gan_config.GanConfig`.
"""

from __future__ import annotations

import importlib
from typing import Any

from nembp.runs.config import RunConfig as RunConfig
from nembp.runs.config import from_toml as from_toml
from nembp.runs.config import recipe as recipe
from nembp.runs.options import to_toml as to_toml

_LATER = {"train_run": "training", "evaluate_run": "predicting"}  # which need NumPy


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"nembp.runs.{_LATER[name]}"), name)
