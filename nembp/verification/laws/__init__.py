"""The laws of the engine: one function each, which says how far a random case is from it.

Importing this fills :data:`LAWS`, in the order in which ``nembp verify`` tries them.
"""

from __future__ import annotations

from nembp.verification.laws import networks, parts, training
from nembp.verification.laws.law import LAWS, Law

__all__ = ["LAWS", "Law", "networks", "parts", "training"]
