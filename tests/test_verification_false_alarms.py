"""No false alarm: thousands of functions whose gradients are right, at awkward points too.

Every family, by every way of measuring, with budgets that allow all coordinates and that do not.
"""

from __future__ import annotations

import pytest
from gradient_functions import FAMILIES, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from nembp.verification import check_gradient

many = settings(max_examples=4 * settings.default.max_examples)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@many
@given(seed=seeds, budget=st.sampled_from([250, 2000, 10_000]), method=st.booleans())
def test_a_right_gradient_passes(family, seed, budget, method):
    f, point = draw(family, seed)
    way = "central" if method else "auto"
    report = check_gradient(f, point, max_evaluations=budget, seed=seed, method=way, raises=False)
    assert report.passed, str(report)
