"""The declared claims, about networks and about adversarial networks."""

from __future__ import annotations

import difflib

from nembp.errors import ArchitectureError
from nembp.experiments.claims import adversarial, networks
from nembp.experiments.protocol import Protocol


def available() -> dict[str, Protocol]:
    """Return every declared experiment by name."""
    return {protocol.name: protocol for protocol in (*networks.PROTOCOLS, *adversarial.PROTOCOLS)}


def get(name: str) -> Protocol:
    """Return an experiment by name; ArchitectureError with similar names if there is none."""
    table = available()
    if name not in table:
        close = difflib.get_close_matches(name, table, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see `nembp experiment list`"
        raise ArchitectureError(f"no experiment is called {name!r}; {hint}")
    return table[name]
