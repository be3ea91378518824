"""The spaces that `nembp experiment search` knows."""

from __future__ import annotations

from typing import Any, Final

from nembp.errors import ArchitectureError
from nembp.experiments.search_space import Rung, Space

__all__ = ["SPACES", "space"]

_TIME: Final[dict[str, Any]] = {
    "noise_decay": (0.0, 0.5, 1.0),
    "noise_clock": ("epoch", "epoch", "iteration"),
    "noise_law": ("gaussian", "uniform"),
    "noise_rejected": ("reflect", "zero"),
    "noise_screening": ("auto", "auto", "expectation"),
    "noise_draws": (1, 1, 3),
    "noise_target": ("forward", "both"),
}
_HIDDEN: Final[dict[str, Any]] = _TIME | {"noise_std": (0.3, 1.0, 2.0)}

SPACES: Final = {
    "mnist": Space(
        name="mnist",
        title="NEM noise anywhere in dense networks of any units, 300 or 1000 images of MNIST",
        base={
            "dataset": "mnist",
            "augment": "none",
            "backward_weight": 0.01,
            "dtype": "float32",
            "epochs": 15,
            "forward": "multinomial",
            "scaling": "unit",
            "schedule": "constant",
            "validation_fraction": 0.5,  # so half of each limit is trained on
            "weight_decay": 0.0,
        },
        regimes={
            "activation": ("logistic", "tanh", "relu"),
            "layers": ("128", "256,128", "128,128,128", "64,64,64,64,64"),
            "optimizer": ("sgd", "momentum", "adam"),
            "limit": (600, 2000),
            "batch_size": (25, 100),
            "backward": ("none", "none", "gaussian"),
        },
        noises={
            "hidden": _HIDDEN,
            "last-hidden": _HIDDEN,
            "input": _TIME | {"noise_std": (0.03, 0.1, 0.3)},
            "target": _TIME
            | {
                "noise_std": (0.03, 0.1, 0.3),
                "noise_decay": (0.5, 1.0),
                "noise_update": ("exact", "zero-sum"),
            },
        },
        rates={
            "sgd": (0.05, 0.15, 0.45),
            "momentum": (0.01, 0.03, 0.09),
            "adam": (0.001, 0.003, 0.009),
            "logistic sgd": (0.3, 0.9, 2.7),
            "logistic momentum": (0.05, 0.15, 0.45),
            "logistic adam": (0.003, 0.009, 0.027),
        },
        count=18,
        candidates={"hidden": 5, "last-hidden": 3, "input": 2, "target": 3},
        rungs=(Rung(1, 30), Rung(3, 10), Rung(7, 4)),
    ),
}


def space(name: str) -> Space:
    """Return a space by name.

    Raises
    ------
    ArchitectureError
        If none is called so.
    """
    if name not in SPACES:
        raise ArchitectureError(f"no search is called {name!r}; there is {', '.join(SPACES)}")
    return SPACES[name]
