"""Adversarial networks: a generator and a discriminator, either of them bidirectional."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nembp.adversarial.settings import AdversarialSettings

if TYPE_CHECKING:
    from nembp.adversarial.objectives import Score
    from nembp.adversarial.trainer import AdversarialTrainer

__all__ = ["AdversarialSettings", "AdversarialTrainer", "Score"]

_LAZY = {
    "AdversarialTrainer": "nembp.adversarial.trainer",
    "Score": "nembp.adversarial.objectives",
}


def __getattr__(name: str) -> object:
    """Import what needs NumPy when it is used, so that ``nembp --help`` is instant."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
