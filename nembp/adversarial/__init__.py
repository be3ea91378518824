"""Adversarial networks: a generator and a discriminator, either of them bidirectional."""

from __future__ import annotations

from nembp.adversarial.settings import AdversarialSettings

__all__ = ["AdversarialSettings"]
