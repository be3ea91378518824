"""Every law of the engine holds on a GPU, or (in double precision) on the stand-in for one."""

from __future__ import annotations

import pytest
from devices import REAL, gpu, needs_kernels

from nembp.verification.checks import find_laws, try_law

pytestmark = needs_kernels


@pytest.mark.parametrize("dtype", ["float32", "float64"] if REAL else ["float64"])
@pytest.mark.parametrize("law", find_laws(), ids=lambda law: law.name)
def test_law(law, dtype):
    found = try_law(law, cases=3 if REAL else 2, device=gpu(), dtype=dtype)
    assert found.passed, found
