"""What a recipe fills in, by the data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nembp.datasets import load
from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Request
from nembp.engine.optimizers import OPTIMIZERS
from nembp.runs import RunConfig, recipe


# -- recipes ---------------------------------------------------------------------------------------
def data(n: int, shape: tuple[int, ...], y, *, pixels: bool = False):
    x = np.random.default_rng(0).integers(0, 255, (n, *shape))
    x = x.astype(np.uint8 if pixels else np.float64)
    return assemble("some", Raw(x, y, "x", "y"), None, Request(), source="here")


def test_a_recipe_leaves_nothing_open_and_changes_nothing_that_is_set():
    digits = load("digits")
    filled = recipe(digits)
    open_fields = {name for name, value in vars(filled).items() if value is None}
    assert open_fields == {"data_dir", "targets", "limit", "image_size", "patience", "threads"}
    assert (filled.layers, filled.batch_size, filled.epochs) == ((128, 64), 32, 40)
    assert (filled.optimizer, filled.learning_rate, filled.schedule) == ("adam", 1e-3, "cosine")
    assert (filled.backward, filled.backward_weight, filled.noise) == ("gaussian", 0.3, "none")
    mine = RunConfig(layers=(), epochs=3, optimizer="momentum", backward_weight=2.0, patience=2)
    kept = recipe(digits, mine)
    asked = {name: value for name, value in vars(mine).items() if value is not None}
    assert {name: getattr(kept, name) for name in asked} == asked
    assert kept.learning_rate == OPTIMIZERS["momentum"].default_learning_rate
    assert kept.validation_fraction == 0.1


def test_recipes_follow_the_data():
    labels = np.arange(12_600) % 3
    large = recipe(data(12_600, (20, 20), labels, pixels=True))
    assert (large.layers, large.batch_size, large.epochs) == ((512, 256), 128, 14)
    assert (large.backward_weight, large.learning_rate, large.weight_decay) == (0.1, 0.003, 0.05)
    plain = recipe(data(12_600, (20, 20), labels, pixels=True), RunConfig(optimizer="sgd"))
    assert (plain.learning_rate, plain.weight_decay) == (0.1, 0.0)
    narrow = recipe(data(300, (4,), labels[:300]))
    assert (narrow.forward, narrow.backward_weight, narrow.epochs) == ("multinomial", 0.1, 50)
    wide = recipe(data(300, (256,), labels[:300]))
    assert wide.backward_weight == 0.05
    numbers = recipe(data(300, (8,), np.linspace(0.0, 1.0, 300)))
    assert (numbers.forward, numbers.backward_weight) == ("gaussian", 0.125)
    assert {narrow.augment, wide.augment, numbers.augment} == {"none"}
    logistic = recipe(data(300, (200,), labels[:300]), RunConfig(activation="logistic"))
    assert logistic.backward_weight == 0.005


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((32, 32, 3), ("conv32x4s2", "conv64x4s2", "conv128x4s2", 256)),
        ((20, 30, 2), ("conv32x4s2", "conv64x4s2", 256)),
        ((8, 8, 3), ("conv32x4s2", 256)),
        ((300, 200, 3), ("conv32x4s2", "conv64x4s2", "conv128x4s2", "conv256x4s2", 256)),
        ((7, 7, 3), (128, 64)),
        ((20, 20, 1), (512, 256)),
    ],
)
def test_images_of_several_channels_get_convolutions(shape, layers):
    assert recipe(data(24, shape, np.arange(24) % 3, pixels=True)).layers == layers


def test_convolutions_have_defaults_of_their_own():
    grey = data(12_600, (8, 8), np.arange(12_600) % 3, pixels=True)
    dense = recipe(grey)
    for config in (RunConfig(layers="conv8x4s2,32"), RunConfig(layers="7,reshape1x1x7,up2x4s2")):
        filled = recipe(grey, config)
        assert filled.layers == config.layers
        assert (filled.backward_weight, filled.learning_rate) != (
            dense.backward_weight, dense.learning_rate,
        )  # fmt: skip
    coloured = data(12_600, (8, 8, 3), np.arange(12_600) % 3, pixels=True)
    assert recipe(coloured).backward_weight < filled.backward_weight
    assert recipe(coloured, RunConfig(layers="64")).backward_weight < dense.backward_weight
    mine = RunConfig(layers="64", backward_weight=0.5)
    assert (recipe(coloured, mine).layers, recipe(coloured, mine).backward_weight) == ((64,), 0.5)
    numbers = recipe(data(300, (8, 8, 3), np.linspace(0.0, 1.0, 300), pixels=True))
    assert (numbers.forward, numbers.backward_weight) == ("gaussian", round(1 / 192, 5))


def test_photographs_known_by_name_are_augmented():
    images = data(24, (8, 8, 3), np.arange(24) % 3, pixels=True)
    assert recipe(images).augment == "none"
    known = dataclasses.replace(images, name="cifar10")
    assert recipe(known).augment == "flips,crops4"
    assert recipe(known, RunConfig(augment="none")).augment == "none"


def test_noise_goes_where_it_was_found_to_pay():
    digits = load("digits")
    named = ("noise_place", "noise_std", "noise_clock", "noise_decay")

    def filled(**more):
        found = recipe(digits, RunConfig(noise="nem", **more))
        return tuple(getattr(found, name) for name in named)

    assert filled() == (("target",), 0.1, "iteration", 1.0)
    logistic = filled(activation="logistic")
    assert logistic == (("hidden",), 1.0, "epoch", 1.0)
    assert filled(noise_place="last-hidden") == (("last-hidden",), 0.3, "epoch", 1.0)
    for layers in ("", "pool2"):
        assert filled(activation="logistic", layers=layers)[0] == ("target",)
    assert filled(activation="logistic", noise_update="zero-sum")[0] == ("target",)
    assert filled(activation="logistic", weight_scale=4.0)[0] == ("target",)
    assert filled(activation="logistic", noise_screening="component")[0] == ("target",)
    assert filled(activation="logistic", noise_place="hidden,input")[1:3] == (0.1, "iteration")
    assert filled(activation="logistic", noise_std=0.2, noise_clock="iteration")[1:3] == (
        0.2, "iteration"
    )  # fmt: skip
