"""Configurations: every option checked, TOML that reads back the same, recipes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

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
    "transpose", "x", "y", "max_bytes",
}  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@pytest.mark.parametrize("kind", [RunConfig, GanConfig])
@given(
    text=TEXT,
    whole=st.integers(2, 2**62),
    number=st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_toml_reads_back_the_same(tmp_path_factory, kind, text, whole, number):
    values = {
        "int": whole, "float": number, "bool": whole % 2 == 0, "str": text, "File": text,
        "Layers": ("conv8x4s2", "pool2", 7), "Names": ("a", "b,c"), "Size": (whole % 999 + 1, 2),
        "Augment": "flips,crops2",
    }  # fmt: skip
    given = {name: option.choices[whole % len(option.choices)] if option.kind == "str" and option.choices
             else option.choices[:2] or values[option.kind]
             for name, option in kind.options().items()}  # fmt: skip
    path = tmp_path_factory.mktemp("toml") / "config.toml"
    for config in (kind(**given), kind(dataset=text)):
        for encoding in ("utf-8", "utf-8-sig"):
            path.write_text(to_toml(config, "a comment\nof two lines"), encoding=encoding)
            assert from_toml(path, kind) == config


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
    known = {"task": get_args(Task), "scaling": get_args(ScalingName), "activation": ACTIVATIONS,
             "forward": LIKELIHOODS, "backward": [*LIKELIHOODS, "none"],
             "noise": get_args(noise.Kind), "optimizer": OPTIMIZERS, "schedule": SCHEDULES,
             "noise_place": {"target", *noise.PLACES}}  # fmt: skip
    for name in ("clock", "law", "mode", "screening", "rejected", "update"):
        known[f"noise_{name}"] = get_args(getattr(noise, name.capitalize()))
    options = RunConfig.options()
    for name, expected in known.items():
        assert sorted(options[name].choices) == sorted(expected), name
    noise_fields = {f"noise_{f.name}" for f in dataclasses.fields(noise.Noise)} - {"noise_kind"}
    found = {name for name in options if name.startswith("noise_")}
    assert found == noise_fields | {"noise_target", "noise_place"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", True, "epochs must be a whole number"),
        ("seed", 10**400, "seed must be at most 9,223,372,036,854,775,807, got 10000"),
        ("learning_rate", np.float32("inf"), "must be a number > 0, got np.float32(inf)"),
        ("learning_rate", math.nan, "learning_rate must be a number > 0, got nan"),
        ("test_fraction", 1.0, "test_fraction must be a number > 0 and < 1, got 1.0"),
        ("learning_rate", "0.1", "learning_rate must be a number > 0, got '0.1'"),
        ("noise", "nme", "noise must be one of none, nem, blind, anti, drift, got 'nme'"),
        ("targets", "a,,b", "targets holds an empty name"),
        ("targets", 3, "targets must be names"),
        ("augment", "flip", "augment must be none, flips, crops or flips,crops (crops2: shifted"),
        ("augment", "crops0", "augment must be none, flips"),
        ("image_size", "32x", 'image_size must be height and width in pixels, as in "32x32"'),
        ("image_size", [4, 4, 3], "image_size must be height and width in pixels"),
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
        (RunConfig, "layers = ['conv8x4', 'maxpool2']", "layers has 'maxpool2' as layer 2: no "),
        (RunConfig, "quiet = 1", "quiet must be true or false, got 1"),
        (RunConfig, "seed = " + "9" * 5000, "not valid TOML"),
        (RunConfig, "\udcff", "not valid TOML"),
        (RunConfig, None, "cannot be read"),
        (GanConfig, "data = 'ring'\ndataset = 'ring'", "dataset is given twice, in two spellings"),
        (GanConfig, "weight-until = 1.5", "weight-until must be a number > 0 and ≤ 1, got 1.5"),
        (GanConfig, "noise-place = ['generator']", "noise-place must be discriminator/forward, "),
    ],
)
def test_a_bad_file_is_one_error_that_names_it(tmp_path, kind, text, message):
    path = tmp_path / "my.toml"
    if text is not None:
        path.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(ArchitectureError) as caught:
        read_settings(path, kind, {"quiet": Option("bool")})
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_every_default_is_in_words():
    silent = {"targets", "patience", "data_dir", "limit", "image_size", "threads"}
    for name, option in (*RunConfig.options().items(), *GanConfig.options().items()):
        assert name in silent or option.described_default or option.default is False, name


# -- recipes ---------------------------------------------------------------------------------------
def data(n: int, *shape: int, y: Any = None, name: str = "some"):
    """Three classes, or targets; images where there are three sides."""
    x = np.random.default_rng(0).integers(0, 255, (n, *shape))
    x = x.astype(np.float64 if len(shape) == 1 else np.uint8)
    raw = Raw(x, np.arange(n) % 3 if y is None else y, "x", "y")
    return assemble(name, [raw], Request(), source="here")


NUMBERS = np.linspace(0.0, 1.0, 300)
MANY = 12_600
WIDE, COLOURS = (20, 20), (8, 8, 3)
DEFAULTS: list[Any] = [  # data, what is asked for, and what the recipe makes of it
    (data(MANY, *WIDE), {}, {"layers": (512, 256), "batch_size": 128, "epochs": 14,
     "backward_weight": 0.1, "learning_rate": 0.003, "weight_decay": 0.05}),
    (data(MANY, *WIDE), {"optimizer": "sgd"}, {"learning_rate": 0.1, "weight_decay": 0.0}),
    (data(300, 4), {}, {"forward": "multinomial", "backward_weight": 0.1, "epochs": 50}),
    (data(300, 8, y=NUMBERS), {}, {"forward": "gaussian", "backward_weight": 0.125}),
    (data(300, 200), {"activation": "logistic"}, {"backward_weight": 0.005}),
    # images of several channels get convolutions
    (data(24, 20, 30, 2), {}, {"layers": ("conv32x4s2", "conv64x4s2", 256)}),
    (data(24, 300, 200, 3), {},
     {"layers": ("conv32x4s2", "conv64x4s2", "conv128x4s2", "conv256x4s2", 256)}),
    (data(24, 7, 7, 3), {}, {"layers": (128, 64)}),
    (data(24, *COLOURS, name="cifar10"), {}, {"augment": "flips,crops4"}),
    (data(24, *COLOURS, name="cifar10"), {"augment": "none"}, {"augment": "none"}),
    # convolutions have weights and rates of their own
    (data(MANY, 8, 8), {}, {"backward_weight": 0.3, "learning_rate": 0.003}),
    (data(MANY, 8, 8), {"layers": "conv8x4s2,32"}, {"backward_weight": 0.02, "epochs": 10}),
    (data(MANY, *COLOURS), {},
     {"backward_weight": 0.0003, "learning_rate": 0.002, "epochs": 20}),
    (data(MANY, *COLOURS), {"layers": "64"}, {"backward_weight": 0.004, "layers": (64,)}),
    (data(300, *COLOURS, y=NUMBERS), {},
     {"forward": "gaussian", "backward_weight": round(1 / 192, 5)}),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "asked", "expected"), DEFAULTS)
def test_recipes_follow_the_data(dataset, asked, expected):
    assert recipe(dataset, RunConfig(**asked)).chosen().items() >= expected.items()


def test_a_recipe_leaves_nothing_open_and_changes_nothing_that_is_set():
    digits = load("digits")
    filled = recipe(digits)
    open_fields = {name for name, value in vars(filled).items() if value is None}
    assert open_fields == READ | {"targets", "patience", "threads"}
    expected = {"layers": (128, 64), "batch_size": 32, "epochs": 40, "optimizer": "adam",
                "learning_rate": 1e-3, "schedule": "cosine", "backward": "gaussian",
                "backward_weight": 0.3, "noise": "none"}  # fmt: skip
    assert filled.chosen().items() >= expected.items()
    mine = RunConfig(layers=(), epochs=3, optimizer="momentum", backward_weight=2.0, patience=2)
    kept = recipe(digits, mine)
    assert kept.chosen().items() >= mine.chosen().items()
    assert kept.learning_rate == OPTIMIZERS["momentum"].default_learning_rate
    assert kept.validation_fraction == 0.1


@pytest.mark.parametrize(
    ("asked", "place", "std", "clock"),
    [
        ({}, "target", 0.1, "iteration"),
        ({"noise_place": "last-hidden"}, "last-hidden", 0.3, "epoch"),
        ({"activation": "logistic"}, "hidden", 1.0, "epoch"),
        ({"activation": "logistic", "noise_place": "input"}, "input", 0.1, "iteration"),
        ({"activation": "logistic", "layers": ""}, "target", 0.1, "iteration"),
        ({"activation": "logistic", "weight_scale": 4.0}, "target", 0.1, "iteration"),
        ({"activation": "logistic", "noise_screening": "component"}, "target", 0.1, "iteration"),
    ],
)
def test_noise_goes_where_it_was_found_to_pay(asked, place, std, clock):
    found = recipe(load("digits"), RunConfig(noise="nem", **asked))
    assert (found.noise_place, found.noise_std, found.noise_clock) == ((place,), std, clock)


# -- recipes of adversarial runs -------------------------------------------------------------------
LEFT_OPEN = {
    "samples", "modes", "std", "scale", "backward_weight", "threads", "scored_samples", *READ,
}  # fmt: skip


@pytest.mark.parametrize("kind", GanConfig.options()["kind"].choices)
@pytest.mark.parametrize("dataset", ["ring", "digits"])
def test_a_recipe_fills_everything_and_keeps_what_is_set(kind, dataset):
    few = 100 if dataset == "ring" else None
    config = GanConfig(dataset=dataset, kind=kind, latent=7, samples=few)
    found = load_gan_data(config)
    filled = gan_recipe(found, config)
    open_ = {name for name, value in vars(filled).items() if value is None}
    assert open_ - {"momentum", "decay"} <= LEFT_OPEN
    assert ("momentum" in open_) == (filled.optimizer in ("rmsprop", "sgd"))
    assert ("decay" in open_) == (filled.optimizer in ("momentum", "sgd"))
    assert (filled.latent, filled.kind) == (7, kind)
    assert filled.critic_steps == AdversarialSettings(kind).steps
    codes = dataset == "ring" and kind in ("vanilla", "minimax")
    assert filled.bidirectional == ("generator" if codes else "none")
    assert (filled.learning_rate == 0.003) == codes
    rates = gan_recipe(found, config.replace({"learning_rate": 0.02}))
    assert rates.discriminator_rate == 0.02
    assert gan_recipe(found, filled) == filled


def test_colour_images_get_convolutions_that_fit():
    """Of stacked digits of 8x8, and of other sides; those that cannot be halved get dense layers."""
    config = GanConfig(dataset="stacked-digits", samples=30)
    found = load_gan_data(config)
    filled = gan_recipe(found, config)
    assert generator_network(filled.latent, filled.generator, found.shape).outputs == 8 * 8 * 3
    assert (filled.generator[1], filled.discriminator) == ("reshape4x4x32", ("conv32x4s2",))
    for side, bn, generator, discriminator in (
        (28, "", ("3136bn", "reshape7x7x64", "up32x4s2bn"), (32, 64)),
        (32, "bn", ("2048bn", "reshape4x4x128", "up64x4s2bn", "up32x4s2bn"), (32, 64, 128)),
    ):
        layers = gan_config._convolutions((side, side), normalized=bn == "bn")
        assert layers["generator"] == generator
        names = [f"conv{count}x4s2{bn if count > 32 else ''}" for count in discriminator]
        assert layers["discriminator"] == tuple(names)
        assert generator_network(9, generator, (side, side, 3)).outputs == 3 * side * side
    assert gan_config._convolutions((25, 25), normalized=True) == {}


BOTH = ("discriminator_weight", "generator_weight")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"dataset": "grid"}, {"scale": 0.5}),  # seen at half its size unless said otherwise
        ({"dataset": "grid", "scale": 1.0}, {"scale": 1.0}),
        ({"backward_weight": 0.3}, dict.fromkeys(BOTH, 0.3)),
        ({"backward_weight": 0.3, BOTH[1]: 2.0}, dict(zip(BOTH, (0.3, 2.0), strict=True))),
        # a bidirectional generator of images is the one that was measured
        ({"dataset": "digits", "bidirectional": "generator"}, {"generator_weight": 0.1,
         "weight_schedule": "cosine", "backward_flow": True, "learning_rate": 0.003}),
        ({"dataset": "digits", "bidirectional": "both", "kind": "wasserstein"},
         {"generator_weight": 0.01, "backward_flow": True, "learning_rate": 0.001}),
        ({"dataset": "digits", "bidirectional": "discriminator"},
         {"weight_schedule": "constant", "backward_flow": False, "learning_rate": 0.001}),
    ],
)  # fmt: skip
def test_adversarial_recipes_follow_the_data(asked, expected):
    config = GanConfig(**asked)
    found = load_gan_data(config)
    filled = gan_recipe(found, config)
    assert filled.chosen().items() >= expected.items()
    assert found.is_image or found.x_scaling.factor == (filled.scale or 1.0)
