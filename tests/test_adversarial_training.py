"""Adversarial training: it learns, it is reproducible, it stops, it allocates nothing."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from nembp.adversarial import AdversarialSettings, AdversarialTrainer, Score
from nembp.adversarial.averaging import ParameterAverage
from nembp.adversarial.initial import spread_first_layer
from nembp.adversarial.mixtures_2d import ring
from nembp.adversarial.players import DiscriminatorPlayer
from nembp.backend import stream
from nembp.batches import BatchReader
from nembp.datasets import Scaling, Split
from nembp.errors import ArchitectureError, DivergenceError, ShapeError
from nembp.kinds import decode, encode
from nembp.likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Likelihood
from nembp.network import dense_network
from nembp.noise import Noise
from nembp.normalization import BatchNormalization
from nembp.optimizers import SGD, Adam, learning_rate_schedule

RING = ring(4000, scale=1.0)
KINDS = ("vanilla", "minimax", "wasserstein", "wasserstein-gp")


def trainer_of(settings=None, *, data=RING, hidden=(32, 32), seed=0, dtype="float32", **options):
    """Return a trainer on a ring, of small networks."""
    settings = settings or AdversarialSettings()
    features = int(np.prod(data.train.x.shape[1:]))
    normalization = options.pop("normalization", None)
    g = dense_network(
        [2, *hidden, features],
        forward="gaussian",
        normalization=normalization,
        dtype=dtype,
        seed=2 * seed,
    )
    outputs = settings.classes + 1
    forward = "multinomial" if settings.classes else Bernoulli()
    d = dense_network(
        [features, *hidden, outputs],
        forward=Score() if settings.has_critic else forward,
        dtype=dtype,
        seed=2 * seed + 1,
    )
    reader = BatchReader(
        data.train, data.x_scaling, data.y_scaling, settings.classes or 8, g.backend, dtype
    )
    options = {"batch_size": 32, "iterations": 20, "seed": seed, "report_every": 10} | options
    return AdversarialTrainer(g, d, reader, settings, **options)


def parameters(trainer):
    return [net.parameters.copy() for net in (trainer.generator, trainer.discriminator)]


# -- it learns ---------------------------------------------------------------------------------
def test_a_ring_is_learned_better_than_chance():
    # before training, under 1 % of samples lie within 3 deviations of a mode (area 3σ: 8·9σ² of
    # about 4); no draw of the seed decides: the threshold is 20 times that
    data = ring(4000, std=0.03)
    found = []
    for seed in range(2):
        options = {"optimizers": (Adam(1e-3, beta1=0.5), Adam(1e-3, beta1=0.5))}
        trainer = trainer_of(
            AdversarialSettings(bidirectional="generator", generator_weight=0.1),
            data=data,
            hidden=(64, 64),
            seed=seed,
            batch_size=64,
            iterations=1500,
            **options,
        )
        before = data.modes.score(trainer.sample(1000) / data.x_scaling.factor)
        trainer.run()
        after = data.modes.score(trainer.sample(1000) / data.x_scaling.factor)
        assert before["high_quality"] < 0.05
        found.append((after["high_quality"], after["modes"]))
    assert min(quality for quality, _ in found) > 0.2, found
    assert min(modes for _, modes in found) >= 4, found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", ["none", "discriminator", "generator", "both"])
def test_every_kind_records_what_it_trains(kind, bidirectional):
    settings = AdversarialSettings(kind, bidirectional=bidirectional, clip=0.1)
    trainer = trainer_of(settings)
    before = parameters(trainer)
    history = trainer.run()
    critic = kind.startswith("wasserstein")
    keys = {"iteration", "generator/nll", "iterations_per_second"}
    keys |= {"critic/objective"} if critic else {"discriminator/nll"}
    keys |= {"critic/penalty"} if kind == "wasserstein-gp" else set()
    for name in ("discriminator", "generator"):
        keys |= {f"{name}/backward_nll"} if bidirectional in (name, "both") else set()
    assert [row["iteration"] for row in history.rows] == [10.0, 20.0]
    assert all(set(row) == keys for row in history.rows)
    assert all(np.isfinite(list(row.values())).all() for row in history.rows)
    assert all(np.any(a != b) for a, b in zip(parameters(trainer), before, strict=True))
    if kind == "wasserstein":
        d = trainer.discriminator
        assert max(float(np.abs(w).max()) for w in (*d.weights, *d.biases[1:])) <= np.float32(0.1)


def test_objectives_at_the_start_are_what_they_should_be():
    # a D of zeros says 1/2: −2 log ½, and G's two objectives are −log ½ and log ½
    for kind, value in (("vanilla", np.log(2.0)), ("minimax", -np.log(2.0))):
        trainer = trainer_of(
            AdversarialSettings(kind), optimizers=(SGD(1e-9), SGD(1e-9)), iterations=1
        )
        trainer.discriminator.parameters[...] = 0.0
        (row,) = trainer.run().rows
        assert row["discriminator/nll"] == pytest.approx(2.0 * np.log(2.0), rel=1e-5)
        assert row["generator/nll"] == pytest.approx(value, rel=1e-5)


def test_a_critic_climbs_its_objective():
    trainer = trainer_of(
        AdversarialSettings("wasserstein", clip=0.2),
        optimizers=(SGD(1e-6), Adam(1e-3)),
        iterations=60,
        report_every=20,
    )
    objective = trainer.run()["critic/objective"]
    assert objective[-1] > objective[0]


def test_classes_are_learned():
    settings = AdversarialSettings(classes=8, bidirectional="both", backward_labels="both")
    trainer = trainer_of(settings, iterations=300, optimizers=(Adam(1e-4), Adam(2e-3)))
    trainer.run()
    x = RING.train.x[:500] * RING.x_scaling.factor
    guessed = trainer.discriminator.predict(x)[:, :-1].argmax(axis=1)
    assert np.mean(guessed == RING.train.y[:500]) > 0.8  # 1/8 by chance


def test_a_normalized_generator_is_trained_and_sampled():
    trainer = trainer_of(
        AdversarialSettings(bidirectional="both", averaging=0.9),
        normalization=BatchNormalization(),
    )
    before = trainer.generator.statistics.copy()
    trainer.run()
    assert np.any(trainer.generator.statistics != before)
    assert np.array_equal(trainer.sampler.statistics, trainer.generator.statistics)
    assert np.isfinite(trainer.sample(5)).all()


# -- it is reproducible --------------------------------------------------------------------------
NOISY = ("discriminator/forward", "discriminator/backward", "generator/backward")


@pytest.mark.parametrize("kind", ["nem", "blind", "anti"])
def test_noise_of_deviation_zero_changes_no_bit(kind):
    settings = AdversarialSettings(bidirectional="both", backward_labels="both")
    silent = dict.fromkeys([*NOISY, "discriminator/input"], Noise(kind, std=0.0))
    plain, noisy = trainer_of(settings), trainer_of(settings, noise=silent)
    rows = [trainer.run().rows for trainer in (plain, noisy)]
    for a, b in zip(parameters(plain), parameters(noisy), strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(*rows, strict=True):
        assert all(a[key] == b[key] for key in a if key != "iterations_per_second")


def test_silent_noise_on_a_critics_input_changes_no_bit():
    settings = AdversarialSettings("wasserstein", bidirectional="both")
    silent = {"critic/input": Noise("nem", std=0.0)}
    plain, noisy = trainer_of(settings), trainer_of(settings, noise=silent)
    for trainer in (plain, noisy):
        trainer.run()
    for a, b in zip(parameters(plain), parameters(noisy), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("kind", ["nem", "blind", "anti", "drift"])
def test_noise_is_recorded_and_leaves_batches_and_latent_samples_alone(kind):
    settings = AdversarialSettings(bidirectional="both")
    noise = dict.fromkeys(NOISY, Noise(kind, std=0.3, decay=0.0))
    plain, noisy = trainer_of(settings), trainer_of(settings, noise=noise)
    for trainer in (plain, noisy):
        trainer.run()
        trainer.step()
    assert np.array_equal(plain.turns.g.z, noisy.turns.g.z)
    assert np.array_equal(plain.turns.d.real, noisy.turns.d.real)
    assert not np.array_equal(plain.generator.parameters, noisy.generator.parameters)
    row = noisy.history.rows[-1]
    for key in NOISY:
        gain = row[f"noise/{key}/gain"]
        assert {"nem": gain >= -1e-6, "anti": gain <= 1e-6}.get(kind, True)
        assert 0.0 <= row[f"noise/{key}/accepted"] <= 1.0


def test_nem_noise_on_a_critics_input_raises_its_objective():
    gains = {}
    for kind in ("nem", "anti", "blind"):
        trainer = trainer_of(
            AdversarialSettings("wasserstein"),
            noise={"critic/input": Noise(kind, std=0.3, decay=0.0)},
        )
        gains[kind] = trainer.run().rows[-1]["noise/critic/input/gain"]
    assert gains["nem"] > 0.0 > gains["anti"]
    assert gains["anti"] < gains["blind"] < gains["nem"]


def test_the_same_seed_gives_the_same_run_and_another_another():
    runs = []
    for seed in (3, 3, 4):
        trainer = trainer_of(seed=seed)
        trainer.generator.parameters[...] = trainer_of(seed=0).generator.parameters
        trainer.run()
        runs.append(trainer)
    assert np.array_equal(*(run.generator.parameters for run in runs[:2]))
    assert not np.array_equal(*(run.generator.parameters for run in runs[1:]))
    assert np.array_equal(runs[0].sample(7, seed=5), runs[1].sample(7, seed=5))
    assert not np.array_equal(runs[0].sample(7, seed=5), runs[0].sample(7, seed=6))


def test_samples_are_the_generators():
    trainer = trainer_of()
    z = stream(9, "samples").standard_normal((1500, 2))
    assert np.allclose(trainer.sample(1500, seed=9), trainer.generator.predict(z), atol=1e-6)


def test_latent_samples_have_the_deviation_asked_for():
    trainer, wide = (trainer_of(AdversarialSettings(latent_std=s), batch_size=512) for s in (1, 8))
    for each in (trainer, wide):
        each.step()
    assert np.array_equal(wide.turns.g.z, 8.0 * trainer.turns.g.z)
    z = 8.0 * stream(2, "samples").standard_normal((10, 2))
    assert np.array_equal(wide.sample(10, seed=2), wide.generator.predict(z))


def test_the_learning_rate_follows_its_schedule():
    factors = [learning_rate_schedule("late-cosine")(s) for s in (0.0, 0.5, 0.75, 1.0)]
    assert factors == pytest.approx([1.0, 1.0, 0.5, 0.0])


def test_a_first_layer_is_spread_over_points():
    net = dense_network([2, 16, 1], activation="tanh", seed=3)
    before = net.weights[0].copy()
    points = np.random.default_rng(0).normal(size=(16, 2)) * 5.0
    spread_first_layer(net, points, gain=2.0)
    assert np.array_equal(net.weights[0], 2.0 * before)
    z = points @ net.weights[0] + net.biases[1]
    assert np.allclose(np.diag(z), 0.0, atol=1e-5)
    assert np.any(net.biases[1])
    with pytest.raises(ShapeError, match=r"expected one a neuron, \(16, 2\)"):
        spread_first_layer(net, points[:3])


def test_steps_of_the_discriminator():
    settings = AdversarialSettings("wasserstein", critic_steps=3)
    trainer = trainer_of(settings)
    trainer.step()
    assert [optimizer.steps for optimizer in trainer.optimizers] == [1, 3]


# -- moving averages -------------------------------------------------------------------------------
def test_samples_come_from_the_moving_average():
    trainer = trainer_of(AdversarialSettings(averaging=0.8), iterations=5)
    assert np.array_equal(trainer.sampler.parameters, trainer.generator.parameters)
    seen = []
    for _ in range(5):
        trainer.step()
        seen.append(trainer.generator.parameters.astype(float))
    weights = 0.8 ** np.arange(5)[::-1]
    expected = np.tensordot(weights / weights.sum(), seen, 1)
    assert np.allclose(trainer.sampler.parameters, expected, rtol=1e-5, atol=1e-6)
    assert trainer.sampler is not trainer.generator


def test_without_averaging_the_sampler_is_the_generator():
    average = ParameterAverage(net := dense_network([2, 3]), 0.0)
    average.add()
    assert average.network() is net


# -- it stops --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_divergence_restores_the_last_good_parameters(kind):
    options = {"iterations": 400, "report_every": 5}
    settings = AdversarialSettings(kind, clip=1e30, averaging=0.5, bidirectional="both")
    trainer = trainer_of(settings, **options)
    for _ in range(20):
        trainer.step()
    trainer._check_finite()
    good = parameters(trainer)
    trainer.generator.parameters[0] = np.nan
    with pytest.raises(DivergenceError, match=r"of iteration 20 were restored\. Lower") as raised:
        trainer.run()
    assert raised.value.exit_code == 5
    assert all(np.array_equal(a, b) for a, b in zip(parameters(trainer), good, strict=True))
    assert np.isfinite(trainer.sample(3)).all()


def test_a_learning_rate_that_is_too_high_diverges():
    trainer = trainer_of(
        AdversarialSettings("wasserstein", clip=1e38),
        optimizers=(SGD(1e12), SGD(1e12)),
        iterations=500,
    )
    with pytest.raises(DivergenceError, match="1e\\+12"):
        trainer.run()
    assert all(np.isfinite(values).all() for values in parameters(trainer))


def test_a_callback_ends_the_training():
    rows = []

    def stop(row):
        rows.append(row)
        return row["iteration"] >= 20

    trainer = trainer_of(iterations=100, callbacks=[stop, lambda row: None])
    assert trainer.run().rows == rows
    assert trainer.iteration == 20


def test_a_run_goes_on_where_a_callback_stopped_it():
    whole = trainer_of(iterations=40)
    whole.run()
    parted = trainer_of(iterations=40, callbacks=[lambda row: row["iteration"] == 20])
    parted.run()
    parted.callbacks.clear()
    parted.run()
    assert np.array_equal(whole.generator.parameters, parted.generator.parameters)
    assert [row["iteration"] for row in parted.history.rows] == [10, 20, 30, 40]


# -- it allocates nothing --------------------------------------------------------------------------
@pytest.fixture
def _small_ufunc_buffers():
    before = np.setbufsize(16)
    yield
    np.setbufsize(before)


ARMS = {
    "vanilla": (AdversarialSettings(), ()),
    "both": (AdversarialSettings(bidirectional="both", averaging=0.9), NOISY),
    "flow": (AdversarialSettings(bidirectional="both", backward_flow=True), ()),
    "classes": (AdversarialSettings(bidirectional="both", classes=8), ()),
    "permuted": (AdversarialSettings(bidirectional="both", backward_permuted=True), ()),
    "critic": (AdversarialSettings("wasserstein", critic_steps=1), ("critic/input",)),
    "penalty": (AdversarialSettings("wasserstein-gp", bidirectional="both", critic_steps=1), ()),
}


@pytest.mark.usefixtures("_small_ufunc_buffers")
@pytest.mark.parametrize("arm", list(ARMS))
def test_a_step_allocates_nothing(arm):
    settings, places = ARMS[arm]
    noise = dict.fromkeys(places, Noise("nem", std=0.1))
    wide = Split(np.zeros((4096, 64), np.float32), np.arange(4096) % 8)
    data = type("Data", (), {"train": wide, "x_scaling": Scaling(), "y_scaling": Scaling()})
    trainer = trainer_of(settings, data=data, hidden=(64, 64), batch_size=1024, noise=noise)
    for _ in range(2):
        trainer.step()
    tracemalloc.start()
    try:
        trainer.step()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        trainer.step()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # the smallest array of a layer has 1024 rows of 64 neurons: 262144 bytes; weights 16384.
    # Python's objects of a step, and the views of a batch of indices, stay below 15000
    assert peak < 15000


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
