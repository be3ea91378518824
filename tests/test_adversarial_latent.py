"""z of fair coins: its draws, the likelihood that fits them, and runs that use them."""

from __future__ import annotations

import numpy as np
import pytest

from nembp.adversarial import AdversarialSettings, AdversarialTrainer
from nembp.adversarial.data import draw_latent, ring
from nembp.datasets.reading import BatchReader
from nembp.engine.backprop import CycleBackpropagation
from nembp.engine.likelihoods import Bernoulli
from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError
from nembp.runs.gan import prepare_gan
from nembp.runs.gan_config import GanConfig

CODES = AdversarialSettings(bidirectional="generator", backward_flow=True, latent_law="binary")


def trainer(backward, settings=CODES, **options):
    data = ring(2000)
    g = dense_network([5, 16, 2], forward="gaussian", backward=backward, seed=0)
    d = dense_network([2, 16, 1], forward=Bernoulli(), seed=1)
    reader = BatchReader(data.train, data.x_scaling, data.y_scaling, 8, g.backend, g.dtype)
    return AdversarialTrainer(g, d, reader, settings, batch_size=32, **options)


def test_a_trainer_sees_codes_and_samples_by_them():
    training = trainer("bernoulli", iterations=3)
    training.run()
    assert set(np.unique(training.turns.g.z)) == {0.0, 1.0}
    assert len(np.unique(training.sample(400), axis=0)) <= 2**5


def test_a_gaussian_way_back_does_not_fit_codes():
    with pytest.raises(ArchitectureError, match="does not fit a binary z; expected bernoulli"):
        trainer("gaussian")


def test_a_law_that_is_none():
    with pytest.raises(ArchitectureError, match="latent law must be one of gaussian, binary"):
        AdversarialSettings(latent_law="coins")


@pytest.mark.parametrize("flow", [False, True])
def test_the_gradient_of_a_code_goes_through_its_sample(flow):
    """Central differences of −w log p(z | G(z)) − ⟨r, G(z)⟩, with flow and without."""
    net = dense_network([4, 6, 5, 3], activation="tanh", forward="gaussian", backward="bernoulli",
                        dtype="float64", seed=2)  # fmt: skip
    draw = np.random.default_rng(0)
    net.parameters[...] += 0.3 * draw.standard_normal(net.parameters.shape)
    z, r = draw_latent(7, 4, seed=1, law="binary"), draw.standard_normal((7, 3))
    cycle = CycleBackpropagation(net, 7, flow=flow)
    cycle.z[...] = z
    held = cycle.run().copy()
    cycle.input.weight = 0.7
    gradient = np.empty_like(net.parameters)
    cycle(gradient, r)

    def value():
        x = net.predict(z)
        back = x if flow else held
        return -0.7 * np.mean(net.reversed.log_likelihood(back, z)) + np.sum(r * x)

    step, expected = 1e-6, np.empty_like(gradient)
    for i in range(gradient.size):
        net.parameters[i] += step
        up = value()
        net.parameters[i] -= 2 * step
        expected[i] = (up - value()) / (2 * step)
        net.parameters[i] += step
    np.testing.assert_allclose(gradient, expected, atol=1e-8 * np.abs(expected).max() * 10)


def test_the_recipe_of_the_plane_takes_codes_and_a_generator_that_names_them():
    prepared = prepare_gan(
        GanConfig(dataset="ring", samples=500, bidirectional="generator", device="cpu"),
        lambda text: None,
    )
    assert prepared.config.latent_law == "binary"
    assert isinstance(prepared.generator.reversed.likelihood, Bernoulli)
