"""Adversarial networks: a generator and a discriminator, either of them bidirectional."""

from __future__ import annotations

from nembp.adversarial.objectives import Score
from nembp.adversarial.settings import AdversarialSettings
from nembp.adversarial.trainer import AdversarialTrainer

__all__ = ["AdversarialSettings", "AdversarialTrainer", "Score"]
