"""What does not fit an adversarial training, its courses, and its parts by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from adversarial_cases import RING, trainer_of

from nembp.adversarial import AdversarialSettings, AdversarialTrainer, Score
from nembp.adversarial.players import DiscriminatorPlayer
from nembp.checkpoints import decode, encode
from nembp.datasets import Scaling
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Likelihood
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Adam
from nembp.errors import ArchitectureError

# -- what does not fit -------------------------------------------------------------------------
WRONG = [
    ({"g": [2, 8, 3]}, {}, "generator has 3 outputs, the discriminator 2 inputs and a sample 2"),
    ({"d": [2, 8, 2]}, {}, "has 2 outputs of likelihood Bernoulli"),
    ({"forward": Gaussian()}, {}, "needs 1 of likelihood Bernoulli"),
    ({"settings": AdversarialSettings("wasserstein")}, {}, "needs 1 of likelihood Score"),
    ({"settings": AdversarialSettings(classes=3)}, {}, "needs 4 of likelihood Multinomial"),
    (
        {"backward": Gaussian(0.5), "settings": AdversarialSettings(bidirectional="both")},
        {},
        "the discriminator's backward likelihood .* has weight 2; expected 1",
    ),
    ({}, {"noise": {"critic/input": Noise("nem")}}, "critic/input needs kind wasserstein"),
    ({}, {"noise": {"generator/backward": Noise("nem")}}, "needs bidirectional generator or both"),
    ({}, {"noise": {"forward": Noise("nem")}}, "noise must be for one of discriminator/forward"),
    ({}, {"batch_size": 0}, "batch size must be at least 1"),
    ({}, {"iterations": 0}, "iterations must be at least 1"),
    ({}, {"schedule": "wrong"}, "schedule must be one of"),
]


@pytest.mark.parametrize(("parts", "options", "message"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_what_does_not_fit_is_said(parts, options, message):
    settings = parts.get("settings", AdversarialSettings())
    g = dense_network(parts.get("g", [2, 8, 2]), forward="gaussian", seed=0)
    d = dense_network(
        parts.get("d", [2, 8, 1]),
        forward=parts.get("forward", Bernoulli()),
        backward=parts.get("backward", Gaussian()),
        seed=1,
    )
    reader = BatchReader(RING.train, Scaling(), Scaling(), 8, g.backend, g.dtype)
    with pytest.raises(ArchitectureError, match=message):
        AdversarialTrainer(g, d, reader, settings, **options)


def test_one_optimizer_does_not_serve_two():
    shared = Adam()
    with pytest.raises(ArchitectureError, match="an optimizer each"):
        trainer_of(optimizers=(shared, shared))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "wgan"}, "kind must be one of vanilla, minimax"),
        ({"bidirectional": "yes"}, "bidirectional must be one of"),
        ({"weight_schedule": "step"}, "weight schedule must be one of"),
        ({"discriminator_weight": 0.0}, "discriminator weight must be a positive"),
        ({"clip": np.inf}, "clip must be a positive, finite"),
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
        ("constant", [1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.5, 0.25]),
        ("cosine", [1.0, 0.5, 0.146447]),
        ("geometric", [1.0, 0.2 ** (4 / 7), 0.2 ** (6 / 7)]),
        ("rise", [0.0, 1.0, 1.0]),
    ],
)
def test_schedules_of_the_weights(schedule, values):
    # and of the noise, but for where it begins
    settings = AdversarialSettings(weight_schedule=schedule)
    assert [settings.weight_factor(s) for s in (0.0, 0.5, 0.75)] == pytest.approx(values, rel=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "geometric"])
def test_a_course_that_falls_ends_where_it_should(schedule):
    settings = AdversarialSettings(weight_schedule=schedule, weight_until=0.4)
    values = [settings.weight_factor(s) for s in (0.0, 0.1, 0.2, 0.3, 0.4, 1.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.0
    assert values[-2:] == [0.0, 0.0]


def test_scheduled_noise_is_that_of_the_course():
    settings = AdversarialSettings(noise_schedule="linear", noise_until=0.5)
    noise = {"discriminator/input": Noise("blind", std=2.0)}
    trainer = trainer_of(settings, noise=noise, iterations=8)
    of_g = next(iter(trainer.turns.g._through.sources.values()))
    deviations = []
    for _ in range(8):
        trainer.step()
        both = trainer.sources["discriminator/input"], of_g
        deviations.append([float(source.n.std()) for source in both])
    assert deviations[4:] == [[0.0, 0.0]] * 4
    expected = np.repeat([[2.0], [1.5], [1.0], [0.5]], 2, axis=1)
    assert np.allclose(deviations[:4], expected, rtol=0.35)


def test_noise_on_what_the_discriminator_sees_is_also_there_in_the_generators_step():
    noise = {"discriminator/input": Noise("nem", std=0.5, decay=0.0)}
    trainer = trainer_of(noise=noise)
    trainer.step()
    through = trainer.turns.g._through
    (source,) = through.sources.values()
    assert np.any(source.n)
    assert np.array_equal(through.x, trainer.turns.g.output)  # given back as it came
    score = (
        trainer.discriminator.readout(through.x).z,
        trainer.discriminator.readout(through.x + source.n).z,
    )
    assert np.all(score[1] >= score[0] - 1e-5)


# -- files and parts ---------------------------------------------------------------------------
def test_a_critics_objective_is_kept_in_files_and_is_no_option():
    written = encode(Score())
    assert written == {"kind": "score"}
    assert decode(Likelihood, written) == Score()
    assert "score" not in LIKELIHOODS


def test_permuted_targets_are_the_samples_neurons_in_another_order():
    d = dense_network([3, 4, 1], forward=Bernoulli(), seed=1)
    order = np.array([2, 0, 1])
    settings = AdversarialSettings(bidirectional="discriminator", backward_labels="both")
    player = DiscriminatorPlayer(d, 2, settings, permutation=order)
    player.real[...] = [[1, 2, 3], [4, 5, 6]]
    player.generated[...] = 7.0
    player(np.zeros(d.parameter_count, np.float32))
    assert np.array_equal(player._permuted[:2], [[3, 1, 2], [6, 4, 5]])
