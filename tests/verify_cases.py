"""What the tests of verification share."""

from __future__ import annotations

from planted.engine import BUGS


def plant(monkeypatch, name):
    (bug,) = {key: bug for key, bug in BUGS.items() if key.startswith(f"{name}:")}.values()
    monkeypatch.setattr(bug.owner, bug.method, bug.planted)
    return bug.law
