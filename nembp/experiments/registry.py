"""Experiments by name."""

from __future__ import annotations

import difflib
import importlib

from nembp.errors import ArchitectureError
from nembp.experiments.protocol import Protocol

__all__ = ["available", "get", "register"]

CLAIMS = (  # modules with a tuple PROTOCOLS
    "output_noise",
    "hidden_noise",
    "annealing",
    "set_size",
    "depth",
    "units",
    "bidirectional",
    "bidirectional_noise",
    "found",
    "curvature",
    "adversarial_images",
    "adversarial_plane",
    "adversarial_codes",
)
_REGISTRY: dict[str, Protocol] = {}
_OURS: dict[str, Protocol] = {}


def available() -> dict[str, Protocol]:
    """Return every registered experiment by name."""
    if not _OURS:
        for module in CLAIMS:
            for protocol in importlib.import_module(f"nembp.experiments.claims.{module}").PROTOCOLS:
                _OURS[protocol.name] = protocol
    return {**_OURS, **_REGISTRY}


def register(protocol: Protocol) -> None:
    """Add an experiment under its name.

    Raises
    ------
    ArchitectureError
        If another one has that name.
    """
    if available().get(protocol.name, protocol) != protocol:
        raise ArchitectureError(f"there is an experiment {protocol.name} already")
    _REGISTRY[protocol.name] = protocol


def get(name: str) -> Protocol:
    """Return an experiment by name.

    Raises
    ------
    ArchitectureError
        If there is none; the message names those that are spelled alike.
    """
    table = available()
    if name not in table:
        close = difflib.get_close_matches(name, table, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see `nembp experiment list`"
        raise ArchitectureError(f"no experiment is called {name!r}; {hint}")
    return table[name]
