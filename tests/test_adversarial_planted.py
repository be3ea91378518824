"""`nembp verify` finds every bug planted in adversarial training."""

from __future__ import annotations

import pytest
from planted.engine import BUGS
from test_verify_planted_bugs import assert_found

PLANTED = [name for name, bug in BUGS.items() if bug.body.__module__ == "planted.adversarial"]


@pytest.mark.parametrize("name", PLANTED)
def test_every_planted_bug_is_found(name, monkeypatch):
    assert_found(BUGS[name], monkeypatch)


def test_bugs_are_many():
    assert len({BUGS[name].body for name in PLANTED}) >= 25
