"""Adversarial networks: a generator and a discriminator, either of them bidirectional."""

from typing import TYPE_CHECKING

from nembp.adversarial.settings import AdversarialSettings as AdversarialSettings

if TYPE_CHECKING:
    from nembp.adversarial.trainer import AdversarialTrainer as AdversarialTrainer


def __getattr__(name: str) -> object:
    """Import what needs NumPy when it is used, so that ``nembp --help`` is instant."""
    if name != "AdversarialTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nembp.adversarial.trainer import AdversarialTrainer

    return AdversarialTrainer
