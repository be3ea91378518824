"""Perturbations of images: bounds, direction of attacks, pairing, and what they do to accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError
from nembp.experiments.protocol import perturbation
from nembp.experiments.robustness import attack, perturbed, robustness
from nembp.runs import RunConfig
from nembp.runs.preparation import prepare
from nembp.runs.training import trainer_of


def nll(net, x, labels):
    a = np.asarray(net.predict(x), dtype=np.float64)
    return -np.log(a[np.arange(len(x)), labels])


@pytest.fixture(scope="module")
def trained():
    prepared = prepare(
        RunConfig(layers="32", epochs=15, learning_rate=0.01, backward="none", device="cpu")
    )
    trainer_of(prepared).run()
    return prepared


@pytest.fixture(scope="module")
def images(trained):
    split = trained.data.test.subset(np.arange(200))
    return split.x[:].reshape(200, 64).astype(np.float32) / 16, np.asarray(split.y)


def test_one_step_moves_every_pixel_by_epsilon_where_it_can(trained, images):
    x, labels = images
    moved = attack(trained.net, x, labels, 0.1)
    assert moved.min() >= 0
    assert moved.max() <= 1
    step = np.abs(moved - x)
    assert step.max() <= 0.1 + 1e-6
    free = (x >= 0.1) & (x <= 0.9)
    assert np.mean(np.isclose(step[free], 0.1, atol=1e-6)) > 0.95
    assert np.array_equal(x, images[0])


def test_attacks_make_the_true_class_less_probable_and_several_steps_more_so(trained, images):
    x, labels = images
    clean, fgsm = nll(trained.net, x, labels), nll(trained.net, attack(
        trained.net, x, labels, 0.1), labels)  # fmt: skip
    assert np.mean(fgsm > clean) > 0.99
    towards = attack(trained.net, x, labels, 1e-3)
    away = 2 * x - towards  # the other way
    assert np.mean(nll(trained.net, away, labels) < clean) > 0.5
    pgd = perturbed(trained.net, x, labels, "pgd:0.1", seed=0)
    assert np.abs(pgd - x).max() <= 0.1 + 1e-6
    assert nll(trained.net, pgd, labels).mean() > fgsm.mean()


def test_the_direction_is_that_of_finite_differences():
    net = dense_network([3, 4, 2], dtype="float64", seed=1)
    x, labels = np.full((1, 3), 0.5, dtype=np.float32), np.array([1])
    moved = attack(net, x, labels, 0.01)
    for i in range(3):
        up, down = x.copy(), x.copy()
        up[0, i] += 1e-3
        down[0, i] -= 1e-3
        slope = (nll(net, up, labels) - nll(net, down, labels))[0]
        assert np.sign(moved - x)[0, i] == np.sign(slope) != 0


def test_noise_and_masks_are_as_strong_as_they_say(trained, images):
    x, labels = images
    n = perturbed(trained.net, x, labels, "gaussian:0.5", seed=3) - x
    assert abs(n.mean()) < 0.5 * 5 / np.sqrt(n.size)  # 5 standard errors
    assert abs(n.std() / 0.5 - 1) < 5 / np.sqrt(2 * n.size)
    ones = np.ones_like(x)
    kept = perturbed(trained.net, ones, labels, "mask:0.3", seed=3)
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / x.size)


def test_arms_of_a_seed_see_the_same_draws(trained, images):
    x, labels = images
    other = dense_network([64, 5, 10], seed=9)
    for text in ("gaussian:0.5", "mask:0.5"):
        ours = perturbed(trained.net, x, labels, text, seed=3)
        assert np.array_equal(ours, perturbed(other, x, labels, text, seed=3))
        assert not np.array_equal(ours, perturbed(other, x, labels, text, seed=4))


def test_accuracy_falls_with_strength(trained):
    texts = ("gaussian:0.01", "gaussian:1", "mask:0.5", "fgsm:0.1", "pgd:0.1", "pgd:0.001")
    scores = robustness(trained, texts, seed=0)
    assert set(scores) == {f"robustness/{text}" for text in texts}
    mild, strong = scores["robustness/gaussian:0.01"], scores["robustness/gaussian:1"]
    assert mild > 0.93 > strong > 0.1
    assert scores["robustness/pgd:0.1"] <= scores["robustness/fgsm:0.1"] < mild
    assert scores["robustness/pgd:0.001"] > 0.9
    assert robustness(trained, texts, seed=0) == scores
    assert robustness(trained, (), seed=0) == {}


def test_only_images_in_unit_pixels_are_perturbed():
    prepared = prepare(RunConfig(scaling="channel", layers="4", device="cpu"))
    with pytest.raises(ArchitectureError, match=r"pixels in \[0, 1\].*scaling unit"):
        robustness(prepared, ("fgsm:0.1",), seed=0)


@pytest.mark.parametrize("text", ["fgsm", "fgsm:", "fgsm:-1", "mask:1.5", "blur:1", "pgd:nan", ""])
def test_what_is_no_perturbation_is_refused(text):
    with pytest.raises(ArchitectureError, match="KIND:STRENGTH"):
        perturbation(text)
