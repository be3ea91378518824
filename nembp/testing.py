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

Array values come from a NumPy generator whose seed Hypothesis draws: shrinking goes for sizes and
kinds, which people can read, not for matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nembp.backend import Backend
from nembp.engine.activations import ACTIVATIONS, Activation, LeakyReLU
from nembp.engine.likelihoods import Likelihood
from nembp.engine.linear import LinearMap
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.verification import cases as at_random
from nembp.verification import checks
from nembp.verification.cases import Case, Pick
from nembp.verification.definitions import Array

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

check_extension = checks.check_extension


def _strategy(make: Callable[[Pick], Any]) -> SearchStrategy[Any]:
    """Return the strategy of what ``make`` returns, whose whole numbers Hypothesis picks."""
    try:
        from hypothesis import strategies as st
    except ImportError as error:
        raise ImportError(
            "the strategies of nembp.testing need Hypothesis, which is not installed; "
            "pip install 'nembp[testing]'"
        ) from error

    @st.composite
    def drawn(draw: Any) -> Any:
        return make(lambda low, high: draw(st.integers(low, high)))

    return drawn()


def likelihoods(name: str | None = None) -> SearchStrategy[Likelihood]:
    """Draw a likelihood, of a name or of any, with a weight or variance between 0.01 and 100."""
    return _strategy(lambda pick: at_random.random_likelihood(pick, name))


def activations(*, analytic: bool | None = None) -> SearchStrategy[Activation]:
    """Draw an activation; with ``analytic``, one to which complex steps do or do not apply."""
    kinds = [kind for _, kind in sorted(ACTIVATIONS.items()) if analytic in (None, kind.analytic)]

    def make(pick: Pick) -> Any:
        kind = kinds[pick(0, len(kinds) - 1)]
        return LeakyReLU(pick(1, 90) / 100.0) if kind is LeakyReLU else kind()

    return _strategy(make)


def linear_maps(kind: type[LinearMap] | None = None) -> SearchStrategy[LinearMap]:
    """Draw a small linear map, of a kind or of any, between layers or images of 1 to 5 pixels."""
    return _strategy(lambda pick: at_random.random_map(pick, kind))


def _targets(pick: Pick, likelihood: Likelihood, rows: int, width: int, hard: bool | None) -> Any:
    chosen = bool(pick(0, 1)) if hard is None else hard
    generator = np.random.default_rng(pick(0, 2**32 - 1))
    return at_random.random_targets(likelihood, generator, rows, width, hard=chosen)


def targets(
    likelihood: Likelihood, rows: int, width: int, *, hard: bool | None = None
) -> SearchStrategy[Array]:
    """Draw targets (rows, width) that a likelihood can have, in float64.

    Labels or bits if ``hard``, where it has them; either by default. A likelihood of yours says
    what it takes by a method ``random_targets(generator, rows, width)``.
    """
    return _strategy(lambda pick: _targets(pick, likelihood, rows, width, hard))


def cases(
    pair: tuple[str, str] | None = None,
    activation: str | None = None,
    *,
    dtype: str = "float64",
    images: bool | None = None,
    normalized: bool | None = None,
) -> SearchStrategy[Case]:
    """Draw a network of 1 to 4 linear maps and a batch of 1 to 9 rows, as a case.

    ``pair`` names the forward and the backward likelihood, ``activation`` that of the hidden
    layers, which are ``images`` or all dense, and ``normalized`` or not; any by default.
    """
    options: Any = {"images": images, "normalized": normalized, "dtype": dtype}
    return _strategy(lambda pick: at_random.random_case(pick, pair, activation, **options))


def networks(
    pair: tuple[str, str] | None = None,
    activation: str | None = None,
    *,
    device: str | Backend = "cpu",
    **options: Any,
) -> SearchStrategy[Network]:
    """Draw a bidirectional network with random weights and biases; options as :func:`cases`."""
    return cases(pair, activation, **options).map(lambda case: case.net(device=device))


def batches_for(
    net: Network, *, rows: int | None = None, hard: bool | None = None, labels: bool = False
) -> SearchStrategy[tuple[Array, Array]]:
    """Draw (x, y) on the host that fit a network seen from either direction.

    1 to 9 rows by default; with ``labels`` y is one-hot, whatever the likelihood: what the
    class-sum path takes.
    """

    def make(pick: Pick) -> Any:
        count = pick(1, 9) if rows is None else rows
        x = _targets(pick, net.reversed.likelihood, count, net.inputs, hard)
        if labels:
            return x, at_random.one_hot(
                np.random.default_rng(pick(0, 2**32 - 1)), count, net.outputs
            )
        return x, _targets(pick, net.likelihood, count, net.outputs, hard)

    return _strategy(make)


def noise_for(
    likelihood: Likelihood | None = None, kind: str | None = None, **fixed: Any
) -> SearchStrategy[Noise]:
    """Draw noise of any kind but none, with every option that a likelihood's target allows.

    ``fixed`` options of :class:`~nembp.engine.noise.Noise` are not drawn.
    """
    softmax = likelihood is None or likelihood.counts_are_target_sums
    given = fixed if kind is None else {"kind": kind, **fixed}
    return _strategy(lambda pick: at_random.random_noise(pick, softmax=softmax, **given))
