"""For tests of your own: Hypothesis strategies, and a check of what you add to nembp.

:func:`check_extension` puts a likelihood, linear map, activation or optimizer of yours to every law
that applies to it, by itself and inside whole bidirectional networks. The strategies draw random
networks, batches, noise and parts for property tests; they need Hypothesis (the extra
``nembp[testing]``), and nothing else in nembp does::

    from hypothesis import given
    from hypothesis import strategies as st
    from nembp.testing import batches_for, check_extension, networks

    def test_poisson():
        check_extension(Poisson())

    @given(data=st.data())
    def test_probabilities_sum_to_one(data):
        net = data.draw(networks(pair=("multinomial", "gaussian")))
        x, _ = data.draw(batches_for(net))
        np.testing.assert_allclose(net.predict(x).sum(axis=1), 1.0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nembp.verification.checks import check_extension

if TYPE_CHECKING:
    from nembp.testing.strategies import (
        activations,
        batches_for,
        cases,
        likelihoods,
        linear_maps,
        networks,
        noise_for,
        targets,
    )

__all__ = [
    "activations",
    "batches_for",
    "cases",
    "check_extension",
    "likelihoods",
    "linear_maps",
    "networks",
    "noise_for",
    "targets",
]


def __getattr__(name: str) -> Any:
    """Import the strategies, and Hypothesis with them, when one is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from nembp.testing import strategies
    except ImportError as error:
        raise ImportError(
            f"nembp.testing.{name} needs Hypothesis, which is not installed; "
            "pip install 'nembp[testing]'"
        ) from error
    return getattr(strategies, name)
