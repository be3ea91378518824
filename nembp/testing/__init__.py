"""For tests of your own: Hypothesis strategies, and checks of what you add to nembp.

:func:`check_extension` puts a likelihood, linear map, activation or optimizer of yours to every law
that applies to it, by itself and inside whole bidirectional networks. The strategies draw random
networks, batches, noise and kinds for property tests; they need Hypothesis (the extra
``nembp[testing]``), and nothing else in nembp does.

A test of a likelihood, in full::

    from nembp.testing import check_extension

    def test_poisson():
        check_extension(Poisson())

A property of a network, in full::

    from hypothesis import given
    from hypothesis import strategies as st
    from nembp.testing import batches_for, networks

    @given(data=st.data())
    def test_probabilities_sum_to_one(data):
        net = data.draw(networks(pair=("multinomial", "gaussian")))
        x, _ = data.draw(batches_for(net))
        np.testing.assert_allclose(net.predict(x).sum(axis=1), 1.0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nembp.testing.extensions import check_extension

if TYPE_CHECKING:
    from nembp.testing.strategies import (
        activations,
        batches_for,
        cases,
        likelihoods,
        maps,
        networks,
        noise_for,
        targets,
    )

STRATEGIES = (
    "activations",
    "batches_for",
    "cases",
    "likelihoods",
    "networks",
    "noise_for",
    "synapses",
    "targets",
)

__all__ = [
    "activations",
    "batches_for",
    "cases",
    "check_extension",
    "likelihoods",
    "maps",
    "networks",
    "noise_for",
    "targets",
]


def __getattr__(name: str) -> Any:
    """Import the strategies, and Hypothesis with them, when one is asked for."""
    if name not in STRATEGIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"nembp.testing.{name} needs Hypothesis, which is not installed; "
            "pip install 'nembp[testing]'"
        ) from error
    from nembp.testing import strategies

    return getattr(strategies, name)
