"""`nembp verify` finds every bug planted in convolutions, maps without weights, and links."""

from __future__ import annotations

import pytest
from planted.engine import BUGS
from test_verify_planted_bugs import assert_found


@pytest.mark.parametrize("name", [name for name in BUGS if BUGS[name].of_images])
def test_every_planted_bug_is_found(name, monkeypatch):
    assert_found(BUGS[name], monkeypatch)


def test_bugs_are_many():
    kinds = {bug.owner for bug in BUGS.values() if bug.of_images}
    assert len(kinds) >= 9
