"""Perturbations of images: bounds, direction of attacks, pairing, and what they do to accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError
from nembp.experiments.protocol import perturbation
from nembp.experiments.robustness import perturbed, robustness
from nembp.runs import RunConfig
from nembp.runs.training import prepare, trainer_of


@pytest.fixture(scope="module")
def trained():
    options = {"layers": "32", "epochs": 15, "learning_rate": 0.01, "backward": "none"}
    prepared = prepare(RunConfig(**options, device="cpu"))
    trainer_of(prepared).run()
    return prepared


@pytest.fixture(scope="module")
def images(trained):
    split = trained.data.test.subset(np.arange(200))
    return split.x[:].reshape(200, 64).astype(np.float32) / 16, np.asarray(split.y)


def test_attacks_stay_near_and_make_the_true_class_less_probable(trained, images):
    x, labels = images
    kept, net = x.copy(), trained.net
    fgsm, pgd = (perturbed(net, x, labels, text, seed=0) for text in ("fgsm:0.1", "pgd:0.1"))
    for moved in (fgsm, pgd):
        assert 0 <= moved.min() <= moved.max() <= 1
        assert np.abs(moved - x).max() <= 0.1 + 1e-6
    free = (x >= 0.1) & (x <= 0.9)  # one step moves these by all of ε
    assert np.mean(np.isclose(np.abs(fgsm - x)[free], 0.1, atol=1e-6)) > 0.95
    assert np.array_equal(x, kept)
    clean, once, often = (
        -np.log(np.asarray(net.predict(each), np.float64)[np.arange(len(x)), labels])
        for each in (x, fgsm, pgd)
    )
    assert np.mean(once > clean) > 0.99
    assert often.mean() > once.mean()


def test_noise_and_masks_are_as_strong_as_they_say_and_the_same_for_every_arm(trained, images):
    x, labels = images
    n = perturbed(trained.net, x, labels, "gaussian:0.5", seed=3) - x
    assert abs(n.mean()) < 0.5 * 5 / np.sqrt(n.size)  # 5 standard errors
    assert abs(n.std() / 0.5 - 1) < 5 / np.sqrt(2 * n.size)
    kept = perturbed(trained.net, np.ones_like(x), labels, "mask:0.3", seed=3)
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / x.size)
    other = dense_network([64, 5, 10], seed=9)
    for seed in (3, 4):
        same = np.array_equal(perturbed(other, x, labels, "gaussian:0.5", seed) - x, n)
        assert same == (seed == 3)


def test_accuracy_falls_with_strength(trained):
    texts = ("gaussian:0.01", "gaussian:1", "mask:0.5", "fgsm:0.1", "pgd:0.1", "pgd:0.001")
    scores = robustness(trained, texts, seed=0)
    mild, strong, _, fgsm, pgd, least = (scores[f"robustness/{text}"] for text in texts)
    assert mild > 0.93 > strong > 0.1
    assert pgd <= fgsm < mild
    assert least > 0.9
    assert robustness(trained, texts, seed=0) == scores


def test_what_cannot_be_perturbed_is_refused():
    prepared = prepare(RunConfig(scaling="channel", layers="4", device="cpu"))
    with pytest.raises(ArchitectureError, match=r"pixels in \[0, 1\].*scaling unit"):
        robustness(prepared, ("fgsm:0.1",), seed=0)
    for text in ("fgsm", "fgsm:", "fgsm:-1", "mask:1.5", "blur:1", "pgd:nan", ""):
        with pytest.raises(ArchitectureError, match="KIND:STRENGTH"):
            perturbation(text)
