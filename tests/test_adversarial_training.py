"""Adversarial training: it learns, samples, stops where it should, and says what is wrong.

What it computes and records is fixed by laws (``adversarial.*``) and facts (test_golden).
"""

from __future__ import annotations

import numpy as np
import pytest
from adversarial_cases import RING, parameters, trainer_of
from engines import peak_of

from nembp.adversarial import AdversarialSettings, AdversarialTrainer
from nembp.adversarial.data import mixture
from nembp.adversarial.scores import scorer_for
from nembp.adversarial.settings import schedule_factor
from nembp.backend import stream
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Adam
from nembp.errors import ArchitectureError, DivergenceError


# -- it learns ---------------------------------------------------------------------------------
def test_a_ring_is_learned_better_than_chance():
    # before training, under 1 % of samples lie within 3 deviations of a mode (area 3σ: 8·9σ² of
    # about 4); no draw of the seed decides: the threshold is 10 times that
    data = mixture("ring", 4000, std=0.03)
    settings = AdversarialSettings(bidirectional="generator", generator_weight=0.1)
    trainer = trainer_of(settings, data=data, hidden=(64, 64), batch_size=64, iterations=1000)
    scorer = scorer_for(data)
    assert scorer.score(trainer.sample(1000))["high_quality"] < 0.05
    trainer.run()
    after = scorer.score(trainer.sample(1000))
    assert after["high_quality"] > 0.1
    assert after["modes"] >= 4


def test_samples_are_those_of_the_moving_average_and_of_a_normalized_generator():
    z = stream(9, "samples").standard_normal((1500, 2))
    plain = trainer_of()
    assert np.allclose(plain.sample(1500, seed=9), plain.generator.predict(z), atol=1e-6)
    assert plain.sampler is plain.generator
    settings = AdversarialSettings(bidirectional="both", averaging=0.8)
    trainer = trainer_of(settings, normalization=BatchNormalization())
    before = trainer.generator.statistics.copy()
    assert np.array_equal(trainer.sampler.parameters, trainer.generator.parameters)
    seen = []
    for _ in range(5):
        trainer.step()
        seen.append(trainer.generator.parameters.astype(float))
    weights = 0.8 ** np.arange(5)[::-1]
    expected = np.tensordot(weights / weights.sum(), seen, 1)
    assert np.allclose(trainer.sampler.parameters, expected, rtol=1e-5, atol=1e-6)
    assert np.any(trainer.generator.statistics != before)
    assert np.array_equal(trainer.sampler.statistics, trainer.generator.statistics)


def test_latent_samples_have_the_law_and_deviation_asked_for():
    trainer, wide = (trainer_of(AdversarialSettings(latent_std=s), batch_size=512) for s in (1, 8))
    for each in (trainer, wide):
        each.step()
    assert np.array_equal(wide.of_g.z, 8.0 * trainer.of_g.z)
    z = 8.0 * stream(2, "samples").standard_normal((10, 2))
    assert np.array_equal(wide.sample(10, seed=2), wide.generator.predict(z))
    codes = AdversarialSettings(bidirectional="generator", backward_flow=True, latent_law="binary")
    with pytest.raises(ArchitectureError, match="does not fit a binary z; expected bernoulli"):
        trainer_of(codes, backward="gaussian")
    coded = trainer_of(codes)
    coded.run()
    assert set(np.unique(coded.of_g.z)) == {0.0, 1.0}
    assert len(np.unique(coded.sample(400).round(4), axis=0)) <= 2**2


# -- it is reproducible, stops and goes on -------------------------------------------------------
@pytest.mark.parametrize("kind", ["vanilla", "minimax", "wasserstein", "wasserstein-gp"])
def test_divergence_restores_the_last_good_parameters(kind):
    settings = AdversarialSettings(kind, clip=1e30, averaging=0.5, bidirectional="both")
    trainer = trainer_of(settings, iterations=20, report_every=5)
    trainer.run()
    good = parameters(trainer)
    trainer.iterations = 400
    trainer.generator.parameters[0] = np.nan
    with pytest.raises(DivergenceError, match=r"of iteration 20 were restored\. Lower") as raised:
        trainer.run()
    assert raised.value.exit_code == 5
    assert all(np.array_equal(a, b) for a, b in zip(parameters(trainer), good, strict=True))
    assert np.isfinite(trainer.sample(3)).all()


def test_a_run_goes_on_where_a_callback_stopped_it():
    whole = trainer_of(iterations=40)
    whole.run()
    seen = []
    stop = [lambda row: row["iteration"] == 20, seen.append]
    parted = trainer_of(iterations=40, callbacks=stop)
    assert parted.run() == seen
    assert parted.iteration == 20
    parted.callbacks.clear()
    parted.run()
    assert np.array_equal(whole.generator.parameters, parted.generator.parameters)
    assert [row["iteration"] for row in parted.rows] == [10, 20, 30, 40]


NOISY = ("discriminator/forward", "discriminator/backward", "generator/backward")
ARMS = {
    "both": (AdversarialSettings(bidirectional="both", averaging=0.9), NOISY),
    "flow": (AdversarialSettings(bidirectional="both", backward_flow=True), ()),
    "classes": (AdversarialSettings(bidirectional="both", classes=8), ()),
    "permuted": (AdversarialSettings(bidirectional="both", backward_permuted=True), ()),
    "critic": (AdversarialSettings("wasserstein", critic_steps=1), ("critic/input",)),
    "penalty": (AdversarialSettings("wasserstein-gp", bidirectional="both", critic_steps=1), ()),
}


@pytest.mark.parametrize("arm", list(ARMS))
def test_a_step_allocates_nothing(arm):
    settings, places = ARMS[arm]
    noise = dict.fromkeys(places, Noise("nem", std=0.1))
    wide = Split(np.zeros((4096, 64), np.float32), np.arange(4096) % 8)
    data = type("Data", (), {"train": wide, "x_scaling": Scaling(), "y_scaling": Scaling()})
    trainer = trainer_of(settings, data=data, hidden=(64, 64), batch_size=1024, noise=noise)
    for _ in range(2):
        trainer.step()
    # the smallest array of a layer has 1024 rows of 64 neurons: 262144 bytes; weights 16384.
    # Python's objects of a step, and the views of a batch of indices, stay below 15000
    assert peak_of(trainer.step) < 15000


# -- what does not fit -------------------------------------------------------------------------
BOTH, CRITIC = AdversarialSettings(bidirectional="both"), AdversarialSettings("wasserstein")
THREE = AdversarialSettings(classes=3)
WRONG = {  # message: networks, settings and options
    "3 outputs, the discriminator 2 inputs and a sample 2 values": {"g": [2, 8, 3]},
    "expected one device and dtype": {"dtype": "float64"},
    "classes 3 need samples with that many labels, got 8": {
        "d": [2, 8, 4], "forward": Multinomial(), "settings": THREE,
    },
    "has 2 outputs of likelihood Bernoulli": {"d": [2, 8, 2]},
    "needs 1 of likelihood Bernoulli": {"forward": Gaussian()},
    "needs 1 of likelihood Score": {"settings": CRITIC},
    "needs 4 of likelihood Multinomial": {"settings": THREE},
    "the discriminator's backward likelihood .* must have weight 1": {
        "backward": Gaussian(0.5), "settings": BOTH,
    },
    "critic/input needs kind wasserstein": {"noise": {"critic/input": Noise("nem")}},
    "needs bidirectional generator or both": {"noise": {"generator/backward": Noise("nem")}},
    "noise must be for one of discriminator/forward": {"noise": {"forward": Noise("nem")}},
    "batch size must be at least 1": {"batch_size": 0},
    "iterations must be at least 1": {"iterations": 0},
    "schedule must be one of": {"schedule": "wrong"},
    "an optimizer each": {"optimizers": (shared := Adam(), shared)},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit_is_said(message):
    options = {"g": [2, 8, 2], "d": [2, 8, 1], "settings": AdversarialSettings(),
               "optimizers": (Adam(), Adam())} | WRONG[message]  # fmt: skip
    g = dense_network(options.pop("g"), forward="gaussian", seed=0)
    ends = {"forward": Bernoulli(), "backward": Gaussian(), "dtype": "float32"}
    ends |= {key: options.pop(key) for key in ends if key in options}
    d = dense_network(options.pop("d"), **ends, seed=1)
    reader = BatchReader(RING.train, Scaling(), Scaling(), 8, g.backend, g.dtype)
    with pytest.raises(ArchitectureError, match=message):
        AdversarialTrainer(g, d, reader, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "wgan"}, "kind must be one of vanilla, minimax"),
        ({"bidirectional": "yes"}, "bidirectional must be one of"),
        ({"weight_schedule": "step"}, "weight schedule must be one of"),
        ({"latent_law": "coins"}, "latent law must be one of gaussian, binary"),
        ({"discriminator_weight": 0.0}, "discriminator weight must be a positive"),
        ({"clip": np.inf}, "clip must be a positive, finite"),
        ({"noise_until": 0.0}, "noise until must be above 0"),
        ({"critic_steps": 0}, "critic steps must be at least 1"),
        ({"averaging": 1.0}, "averaging must be at least 0 and less than 1"),
        ({"classes": 1}, "classes must be 0, for one output, or at least 2"),
        ({"classes": 3, "kind": "wasserstein"}, "critic has one output and no classes"),
    ],
)
def test_settings_say_what_is_wrong(options, message):
    with pytest.raises(ArchitectureError, match=message):
        AdversarialSettings(**options)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.5, 0.25, 0.0]),
        ("cosine", [1.0, 0.5, 0.146447, 0.0]),
        ("geometric", [1.0, 0.2 ** (4 / 7), 0.2 ** (6 / 7), 0.0]),
        ("rise", [0.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules_of_the_weights(schedule, values):
    for until in (1.0, 0.4):
        found = [schedule_factor(schedule, s * until, until) for s in (0.0, 0.5, 0.75, 1.0)]
        assert found == pytest.approx(values, rel=1e-5, abs=1e-12)
        assert schedule_factor(schedule, 1.0, until) == pytest.approx(values[-1], abs=1e-12)
