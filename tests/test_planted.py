"""Every planted bug is caught by the law that it breaks."""

from __future__ import annotations

import numpy as np
import pytest
from planted import BUGS

from nembp.verification import LAWS, generate
from nembp.verification.checks import CASES


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name, monkeypatch):
    bug, law = BUGS[name], LAWS[BUGS[name].law]
    bug.plant(monkeypatch)
    results = (law.result(generate(0, index)) for index in range(0, CASES, law.every))
    failed = next((r for r in results if r is not None and not r.passed), None)
    assert failed is not None, f"{law.name} holds with {name}"
    assert np.isinf(failed.error) or failed.error > 10.0 * failed.tolerance


def test_the_laws_that_no_bug_breaks():
    covered = {bug.law for bug in BUGS.values()}
    assert set(LAWS) == covered
    assert len(BUGS) >= 60
