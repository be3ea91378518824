"""Bidirectional backpropagation with noise-boosted (NEM) training."""

from __future__ import annotations

__version__ = "0.1.0"
