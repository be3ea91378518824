"""Run configurations: every option checked, TOML that reads back the same, recipes."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp import noise
from nembp.datasets import load
from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Request, Task
from nembp.errors import ArchitectureError
from nembp.likelihoods import LIKELIHOODS
from nembp.neurons import ACTIVATIONS
from nembp.optimizers import OPTIMIZERS, SCHEDULES
from nembp.runs import RunConfig, from_toml, recipe, to_toml
from nembp.runs.config import options
from nembp.runs.config_file import read_settings
from nembp.runs.option import Option, parse_layers

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
            option.below if option.below is not None else 1e300,
            exclude_min=option.above is not None,
            exclude_max=option.below is not None,
        )
    if option.kind == "layers":
        return st.lists(st.integers(1, 10_000), max_size=4).map(tuple)
    if option.kind == "names":
        name = TEXT.map(str.strip).filter(bool)
        return st.lists(name, min_size=1, max_size=3).map(tuple)
    return TEXT


CONFIGS = st.builds(
    RunConfig,
    dataset=TEXT,
    **{
        name: st.none() | values_of(option)
        for name, option in options().items()
        if name != "dataset"
    },
)


@given(CONFIGS)
def test_toml_reads_back_the_same(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("toml") / "config.toml"
    path.write_text(to_toml(config, "a comment\nof two lines"), encoding="utf-8")
    assert from_toml(path) == config


@given(st.lists(st.integers(1, 9999), max_size=5), st.sampled_from([",", ", ", " ,"]))
def test_layers_are_read_as_written(sizes, comma):
    assert parse_layers(comma.join(map(str, sizes))) == tuple(sizes) == parse_layers(sizes)


@pytest.mark.parametrize(
    ("text", "number"),
    [("512,0", 2), ("-3", 1), ("12,,3", 2), ("7,x", 2), ("1.5", 1), ([4, 0], 2), ([True], 1),
     ("٣", 1), ([8.0], 1), ("9" * 12, 1)],
)  # fmt: skip
def test_a_bad_layer_is_named(text, number):
    with pytest.raises(ArchitectureError, match=f"as entry {number};.*≥ 1"):
        RunConfig(layers=text)


def test_choices_are_those_of_the_engine():
    known = {
        "task": get_args(Task),
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
        assert sorted(options()[name].choices) == sorted(expected), name
    noise_fields = {f"noise_{f.name}" for f in dataclasses.fields(noise.Noise)} - {"noise_kind"}
    assert {name for name in options() if name.startswith("noise_")} == noise_fields | {
        "noise_target"
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs must be a whole number ≥ 1, got 0"),
        ("epochs", 2.0, "epochs must be a whole number ≥ 1, got 2.0"),
        ("epochs", True, "epochs must be a whole number"),
        ("seed", -1, "seed must be a whole number ≥ 0"),
        ("learning_rate", 0.0, "learning_rate must be a number > 0, got 0.0"),
        ("learning_rate", math.nan, "learning_rate must be a number > 0, got nan"),
        ("noise_std", math.inf, "noise_std must be a number ≥ 0, got inf"),
        ("test_fraction", 1.0, "test_fraction must be a number > 0 and < 1, got 1.0"),
        ("learning_rate", "0.1", "learning_rate must be a number > 0, got '0.1'"),
        ("noise", "nme", "noise must be one of none, nem, blind, anti, drift, got 'nme'"),
        ("targets", "a,,b", "targets holds an empty name"),
        ("targets", 3, "targets must be names"),
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
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'; did you mean epochs"),
        ("zzz = 3", "unknown key 'zzz'; `nembp train --help` lists the options"),
        ("epochs = '3'", "epochs must be a whole number ≥ 1, got '3'"),
        ("noise-std = 'a'", "noise-std must be a number ≥ 0, got 'a'"),
        ("batch-size = 8\nbatch_size = 8", "batch_size is given twice"),
        ("[train]\nepochs = 3", "unknown key 'train'"),
        ("epochs = ", "not valid TOML"),
        ("layers = '8,0'", "layers has '0' as entry 2"),
        ("quiet = 1", "quiet must be true or false, got 1"),
    ],
)
def test_a_bad_file_is_one_error_that_names_it(tmp_path, text, message):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ArchitectureError) as caught:
        read_settings(path, {"quiet": bool})
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_files_that_are_no_toml(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, message in (("absent.toml", "cannot be read"), ("binary.toml", "not valid TOML")):
        with pytest.raises(ArchitectureError, match=f"{name}: {message}"):
            from_toml(tmp_path / name)


def test_keys_may_be_written_with_either_dash(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('batch-size = 8\nnoise_std = 1\nlayers = [4, 2]\ntargets = "u,v"\n')
    config = from_toml(path)
    assert config == RunConfig(batch_size=8, noise_std=1.0, layers=(4, 2), targets=("u", "v"))
    assert isinstance(config.noise_std, float)
    assert tomllib.loads(to_toml(config))["layers"] == [4, 2]


# -- recipes ---------------------------------------------------------------------------------------
def data(n: int, shape: tuple[int, ...], y, *, pixels: bool = False):
    x = np.random.default_rng(0).integers(0, 255, (n, *shape))
    x = x.astype(np.uint8 if pixels else np.float64)
    return assemble("some", Raw(x, y, "x", "y"), None, Request(), source="here")


def test_a_recipe_leaves_nothing_open_and_changes_nothing_that_is_set():
    digits = load("digits")
    filled = recipe(digits)
    open_fields = {name for name, value in vars(filled).items() if value is None}
    assert open_fields == {"data_dir", "targets", "limit", "patience", "threads"}
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
    logistic = recipe(data(300, (200,), labels[:300]), RunConfig(activation="logistic"))
    assert logistic.backward_weight == 0.005
