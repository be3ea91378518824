"""Adversarial networks: a generator and a discriminator, either of them bidirectional."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nembp.adversarial.settings import AdversarialSettings as AdversarialSettings

if TYPE_CHECKING:
    from nembp.adversarial.trainer import AdversarialTrainer as AdversarialTrainer
    from nembp.engine.likelihoods import Score as Score


def __getattr__(name: str) -> object:
    """Import what needs NumPy when it is used, so that ``nembp --help`` is instant."""
    import importlib

    modules = {"AdversarialTrainer": "adversarial.trainer", "Score": "engine.likelihoods"}
    if name in modules:
        return getattr(importlib.import_module(f"nembp.{modules[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
