"""The checker is checked: `nembp verify` finds every planted bug, by the name of its law."""

from __future__ import annotations

import pytest
from planted import Bug
from planted.engine import BUGS

from nembp.errors import VerificationError
from nembp.verification.laws import LAWS
from nembp.verification.runner import CASES, verify

CPU_LAWS = [law.name for law in LAWS.values() if law.on_host]


@pytest.mark.parametrize("law", CPU_LAWS)
def test_every_law_holds_without_a_bug(law):
    found = verify([law], cases=45)
    assert found.passed, found.failures
    assert found[law].cases >= 5


def assert_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a bug's law fails, on a counterexample that is none without the bug."""
    with monkeypatch.context() as patched:
        patched.setattr(bug.owner, bug.method, bug.planted)
        found = verify([bug.law], cases=CASES)
        assert [outcome.law.name for outcome in found.failures] == [bug.law]
        assert "TypeError" not in str(found[bug.law].worst), "the engine's method has changed"
        code = found[bug.law].code
        assert code is not None
        with pytest.raises(VerificationError, match=bug.law):
            exec(code, {})
    exec(code, {})


ELSEWHERE = ("planted.images", "planted.adversarial")  # in test modules of their own
HERE = [name for name, bug in BUGS.items() if bug.body.__module__ not in ELSEWHERE]


@pytest.mark.parametrize("name", HERE)
def test_every_planted_bug_is_found(name, monkeypatch):
    assert_found(BUGS[name], monkeypatch)


def test_every_law_has_a_bug_that_it_finds():
    assert {bug.law for bug in BUGS.values()} == set(CPU_LAWS)


def test_bugs_are_many():
    assert len({(bug.owner, bug.method, bug.body) for bug in BUGS.values()}) >= 50
