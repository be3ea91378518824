"""Configurations: every option checked, TOML that reads back the same, recipes."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.adversarial.settings import AdversarialSettings
from nembp.architecture import generator_network
from nembp.datasets import load
from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Request, ScalingName, Task
from nembp.engine import noise
from nembp.engine.activations import ACTIVATIONS
from nembp.engine.likelihoods import LIKELIHOODS
from nembp.engine.optimizers import OPTIMIZERS, SCHEDULES
from nembp.errors import ArchitectureError
from nembp.runs import RunConfig, from_toml, gan_config, recipe, to_toml
from nembp.runs.gan import load_gan_data
from nembp.runs.gan_config import GanConfig, gan_recipe
from nembp.runs.options import Option, read_settings

READ = {
    "data_dir", "limit", "image_size", "delimiter", "header", "decimal", "image_order",
    "transpose", "x", "y",
}  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def values_of(option: Option) -> st.SearchStrategy:
    """Values that an option accepts."""
    if option.kind == "choice":
        return st.sampled_from(option.choices)
    if option.kind == "integer":
        return st.integers(int(option.least or 0), 2**62)
    if option.kind == "number":
        low = option.least if option.least is not None else option.above
        return st.floats(
            low,
            next((x for x in (option.below, option.most) if x is not None), 1e300),
            exclude_min=option.above is not None,
            exclude_max=option.below is not None,
        )
    if option.kind == "layers":
        entry = st.integers(1, 10_000) | st.sampled_from(["conv8x4s2", "pool2", "reshape4x4x8"])
        return st.lists(entry, max_size=4).map(tuple)
    if option.kind == "size":
        return st.tuples(st.integers(1, 9999), st.integers(1, 9999))
    if option.kind == "augmentation":
        return st.sampled_from(["none", "flips", "crops4", "flips,crops2"])
    if option.kind == "names":
        free = TEXT.map(str.strip).filter(bool)
        name = st.sampled_from(option.choices) if option.choices else free
        return st.lists(name, min_size=1, max_size=3).map(tuple)
    return st.booleans() if option.kind == "flag" else TEXT


def configurations(kind: type[RunConfig | GanConfig]) -> st.SearchStrategy:
    others = {name: each for name, each in kind.options().items() if name != "dataset"}
    return st.builds(
        kind,
        dataset=TEXT,
        **{name: st.none() | values_of(option) for name, option in others.items()},
    )


@given(st.one_of(*map(configurations, (RunConfig, GanConfig))))
def test_toml_reads_back_the_same(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("toml") / "config.toml"
    text = to_toml(config, "a comment\nof two lines")
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(text, encoding=encoding)
        assert from_toml(path, type(config)) == config


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("layers", "CONV8x4p1s2, pool2s2 ,16", ("conv8x4s2", "pool2", 16)),
        ("layers", [7, 8], (7, 8)),
        ("layers", "", ()),
        ("augment", "crops , Flips", "flips,crops4"),
        ("augment", ["crops2"], "crops2"),
        ("image_size", "32x48", (32, 48)),
        ("image_size", 32, (32, 32)),
        ("image_size", [32, 48], (32, 48)),
    ],
)
def test_values_are_kept_in_one_form(name, value, kept):
    assert getattr(RunConfig(**{name: value}), name) == kept


def test_choices_are_those_of_the_engine():
    known = {
        "task": get_args(Task),
        "scaling": get_args(ScalingName),
        "activation": ACTIVATIONS,
        "forward": LIKELIHOODS,
        "backward": [*LIKELIHOODS, "none"],
        "noise": get_args(noise.Kind),
        "noise_clock": get_args(noise.Clock),
        "noise_law": get_args(noise.Law),
        "noise_mode": get_args(noise.Mode),
        "noise_screening": get_args(noise.Screening),
        "noise_rejected": get_args(noise.Rejected),
        "noise_update": get_args(noise.Update),
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
    }
    for name, expected in known.items():
        assert sorted(RunConfig.options()[name].choices) == sorted(expected), name
    noise_fields = {f"noise_{f.name}" for f in dataclasses.fields(noise.Noise)} - {"noise_kind"}
    apart = {"noise_target", "noise_place"}
    assert {
        name for name in RunConfig.options() if name.startswith("noise_")
    } == noise_fields | apart
    assert set(RunConfig.options()["noise_place"].choices) == {"target", *noise.PLACES}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs must be a whole number ≥ 1, got 0"),
        ("epochs", 2.0, "epochs must be a whole number ≥ 1, got 2.0"),
        ("epochs", np.bool_(True), "epochs must be a whole number"),
        ("seed", 10**400, "seed must be at most 9,223,372,036,854,775,807, got 10000"),
        ("learning_rate", np.float32("inf"), "must be a number > 0, got np.float32(inf)"),
        ("learning_rate", 0.0, "learning_rate must be a number > 0, got 0.0"),
        ("learning_rate", math.nan, "learning_rate must be a number > 0, got nan"),
        ("test_fraction", 1.0, "test_fraction must be a number > 0 and < 1, got 1.0"),
        ("learning_rate", "0.1", "learning_rate must be a number > 0, got '0.1'"),
        ("noise", "nme", "noise must be one of none, nem, blind, anti, drift, got 'nme'"),
        ("targets", "a,,b", "targets holds an empty name"),
        ("targets", 3, "targets must be names"),
        ("layers", "512,0", "layers has '0' as layer 2: it has 0 units; expected"),
        ("augment", "flip", "augment must be none, flips, crops or flips,crops (crops2: shifted"),
        ("augment", "flips,flips", "augment must be none, flips"),
        ("augment", "crops0", "augment must be none, flips"),
        ("augment", 4, "augment must be none, flips"),
        ("image_size", "32x", 'image_size must be height and width in pixels, as in "32x32"'),
        ("image_size", "0", "image_size must be height and width in pixels"),
        ("image_size", [4, 4, 3], "image_size must be height and width in pixels"),
        ("data_dir", 3, "data_dir must be text, got 3"),
        ("data_dir", "a\0b", "data_dir must be text"),
        ("dataset", None, "dataset must be a name"),
    ],
)
def test_a_bad_value_is_named(name, value, message):
    with pytest.raises(ArchitectureError) as caught:
        RunConfig(**{name: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (RunConfig, "epoch = 3", "unknown key 'epoch'; did you mean epochs"),
        (RunConfig, "zzz = 3", "unknown key 'zzz'; `nembp train --help` lists the options"),
        (RunConfig, "noise-std = 'a'", "noise-std must be a number ≥ 0, got 'a'"),
        (RunConfig, "batch-size = 8\nbatch_size = 8", "batch_size is given twice"),
        (RunConfig, "epochs = ", "not valid TOML"),
        (RunConfig, "layers = ['conv8x4', 'maxpool2']", "layers has 'maxpool2' as layer 2: pool"),
        (RunConfig, "quiet = 1", "quiet must be true or false, got 1"),
        (RunConfig, "seed = " + "9" * 5000, "not valid TOML"),
        (RunConfig, "\udcff", "not valid TOML"),
        (RunConfig, None, "cannot be read"),
        (GanConfig, "data = 'ring'\ndataset = 'ring'", "dataset is given twice, in two spellings"),
        (GanConfig, "weight-until = 1.5", "weight-until must be a number > 0 and ≤ 1, got 1.5"),
        (GanConfig, "classes = 1", "classes must be true or false"),
        (GanConfig, "zzzz = 3", "`nembp gan --help` lists the options"),
        (GanConfig, "noise-place = ['generator']", "noise-place must be discriminator/forward, "),
    ],
)
def test_a_bad_file_is_one_error_that_names_it(tmp_path, kind, text, message):
    path = tmp_path / "my.toml"
    if text is not None:
        path.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(ArchitectureError) as caught:
        read_settings(path, kind, {"quiet": bool})
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_every_default_is_in_words():
    for kind, silent in (
        (RunConfig, {"targets", "patience"}), (GanConfig, set()),
    ):  # fmt: skip
        for name, option in kind.options().items():
            if name not in silent | {"data_dir", "limit", "image_size", "threads"}:
                assert option.described_default or option.default is False, name


# -- recipes ---------------------------------------------------------------------------------------
def data(n: int, shape: tuple[int, ...], y, *, pixels: bool = False):
    x = np.random.default_rng(0).integers(0, 255, (n, *shape))
    x = x.astype(np.uint8 if pixels else np.float64)
    return assemble("some", Raw(x, y, "x", "y"), None, Request(), source="here")


def test_a_recipe_leaves_nothing_open_and_changes_nothing_that_is_set():
    digits = load("digits")
    filled = recipe(digits)
    open_fields = {name for name, value in vars(filled).items() if value is None}
    assert open_fields == READ | {"targets", "patience", "threads"}
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


def test_convolutions_have_defaults_of_their_own():
    for shape, layers in (
        ((20, 30, 2), ("conv32x4s2", "conv64x4s2", 256)),
        ((8, 8, 3), ("conv32x4s2", 256)),
        ((300, 200, 3), ("conv32x4s2", "conv64x4s2", "conv128x4s2", "conv256x4s2", 256)),
        ((7, 7, 3), (128, 64)),
    ):
        images = data(24, shape, np.arange(24) % 3, pixels=True)
        assert (recipe(images).layers, recipe(images).augment) == (layers, "none")
        known = dataclasses.replace(images, name="cifar10")
        assert recipe(known).augment == "flips,crops4"
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


LEFT_OPEN = {
    "samples", "modes", "std", "scale", "backward_weight", "threads", "scored_samples", *READ,
}  # fmt: skip


# -- recipes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", GanConfig.options()["kind"].choices)
@pytest.mark.parametrize("dataset", ["ring", "digits"])
def test_a_recipe_fills_everything_and_keeps_what_is_set(kind, dataset):
    config = GanConfig(
        dataset=dataset, kind=kind, latent=7, samples=100 * (dataset == "ring") or None
    )
    filled = gan_recipe(load_gan_data(config), config)
    open_ = {name for name, value in vars(filled).items() if value is None}
    assert open_ <= LEFT_OPEN | {"momentum", "decay"}
    assert ("momentum" in open_) == (filled.optimizer in ("rmsprop", "sgd"))
    assert ("decay" in open_) == (filled.optimizer in ("momentum", "sgd"))
    assert (filled.latent, filled.kind) == (7, kind)
    assert filled.critic_steps == AdversarialSettings(kind).critic_steps
    codes = dataset == "ring" and kind in ("vanilla", "minimax")
    assert filled.bidirectional == ("generator" if codes else "none")
    assert (filled.learning_rate == 0.003) == codes
    rates = gan_recipe(load_gan_data(config), config.replace({"learning_rate": 0.02}))
    assert rates.discriminator_rate == 0.02
    assert gan_recipe(load_gan_data(config), filled) == filled


def test_colour_images_get_convolutions_that_fit():
    """Of 28x28 stacked digits and 8x8 ones; sides that cannot be halved get dense layers."""
    prepared = {}
    for kind in ("vanilla", "wasserstein-gp"):
        data = load_gan_data(GanConfig(dataset="stacked-digits", samples=30))
        filled = gan_recipe(data, GanConfig(dataset="stacked-digits", kind=kind))
        prepared[kind] = filled.discriminator
        net = generator_network(filled.latent, filled.generator, data.shape)
        assert net.outputs == 8 * 8 * 3
        assert filled.generator[1] == "reshape4x4x32"
    assert prepared["vanilla"] == ("conv32x4s2",)
    layers = gan_config._convolutions(28, 28, normalized=False)
    assert layers["generator"] == ("3136bn", "reshape7x7x64", "up32x4s2bn")
    assert layers["discriminator"] == ("conv32x4s2", "conv64x4s2")
    assert generator_network(9, layers["generator"], (28, 28, 3)).outputs == 2352
    layers = gan_config._convolutions(32, 32, normalized=True)
    assert layers["generator"][2:] == ("up64x4s2bn", "up32x4s2bn")
    assert layers["discriminator"][1:] == ("conv64x4s2bn", "conv128x4s2bn")
    assert gan_config._convolutions(25, 25, normalized=True) == {}


def test_the_grid_is_seen_at_half_its_size_unless_said_otherwise():
    config = GanConfig(dataset="grid", samples=10)
    data = load_gan_data(config)
    assert data.x_scaling.factor == gan_recipe(data, config).scale == 0.5
    whole = config.replace({"scale": 1.0})
    data = load_gan_data(whole)
    assert data.x_scaling.factor == gan_recipe(data, whole).scale == 1.0


def test_the_backward_weight_is_of_both_players_unless_they_have_their_own():
    data = load_gan_data(GanConfig(samples=10))
    both = gan_recipe(data, GanConfig(backward_weight=0.3))
    assert (both.discriminator_weight, both.generator_weight) == (0.3, 0.3)
    own = gan_recipe(data, GanConfig(backward_weight=0.3, generator_weight=2.0))
    assert (own.discriminator_weight, own.generator_weight) == (0.3, 2.0)


def test_a_bidirectional_generator_of_images_is_the_one_that_was_measured():
    data = load_gan_data(GanConfig(dataset="digits"))

    def filled(**settings):
        found = gan_recipe(data, GanConfig(dataset="digits", **settings))
        return (found.generator_weight, found.weight_schedule, found.backward_flow,
                found.learning_rate)  # fmt: skip

    assert filled(bidirectional="generator") == (0.1, "cosine", True, 0.003)
    assert filled(bidirectional="both", kind="wasserstein") == (0.01, "cosine", True, 0.001)
    assert filled(bidirectional="generator", generator_weight=0.5, learning_rate=0.01) == (
        0.5, "cosine", True, 0.01)  # fmt: skip
    assert filled(bidirectional="discriminator")[1:] == ("constant", False, 0.001)
