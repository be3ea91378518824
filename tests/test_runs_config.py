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

from nembp.datasets.dataset import ScalingName, Task
from nembp.engine import noise
from nembp.engine import noise as signal_noise
from nembp.engine.activations import ACTIVATIONS
from nembp.engine.likelihoods import LIKELIHOODS
from nembp.engine.optimizers import OPTIMIZERS, SCHEDULES
from nembp.errors import ArchitectureError
from nembp.runs import RunConfig, from_toml, to_toml
from nembp.runs.options import Option, read_settings

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
    return TEXT


CONFIGS = st.builds(
    RunConfig,
    dataset=TEXT,
    **{
        name: st.none() | values_of(option)
        for name, option in RunConfig.options().items()
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
    text = comma.join(map(str, sizes))
    assert RunConfig(layers=text).layers == tuple(sizes) == RunConfig(layers=sizes).layers


@pytest.mark.parametrize(
    ("text", "number"),
    [("512,0", 2), ("-3", 1), ("12,,3", 2), ("7,x", 2), ("1.5", 1), ([4, 0], 2), ([True], 1),
     ("٣", 1), ([8.0], 1), ("9" * 12, 1)],
)  # fmt: skip
def test_a_bad_layer_is_named(text, number):
    with pytest.raises(ArchitectureError, match=f"as layer {number}: .*expected"):
        RunConfig(layers=text)


def test_layers_are_kept_as_they_are_usually_written():
    config = RunConfig(layers="CONV8x4p1s2, pool2s2 ,16")
    assert config.layers == ("conv8x4s2", "pool2", 16)
    assert config.as_dict()["layers"] == ["conv8x4s2", "pool2", 16]
    assert RunConfig(layers=config.layers) == config


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("augment", "crops , Flips", "flips,crops4"),
        ("augment", ["crops2"], "crops2"),
        ("augment", "none", "none"),
        ("image_size", "32", (32, 32)),
        ("image_size", "32x48", (32, 48)),
        ("image_size", 32, (32, 32)),
        ("image_size", [32, 48], (32, 48)),
    ],
)
def test_values_are_kept_in_one_form(name, value, kept):
    assert getattr(RunConfig(**{name: value}), name) == kept


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3)])
def test_numbers_of_numpy_are_numbers(value):
    config = RunConfig(epochs=value, learning_rate=np.float32(0.5), backward_weight=value)
    kept = config.epochs, config.learning_rate, config.backward_weight
    assert kept == (3, 0.5, 3.0)
    assert [type(number) for number in kept] == [int, float, float]


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
    assert set(RunConfig.options()["noise_place"].choices) == {"target", *signal_noise.PLACES}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs must be a whole number ≥ 1, got 0"),
        ("epochs", 2.0, "epochs must be a whole number ≥ 1, got 2.0"),
        ("epochs", True, "epochs must be a whole number"),
        ("epochs", np.bool_(True), "epochs must be a whole number"),
        ("seed", -1, "seed must be a whole number ≥ 0"),
        ("seed", 10**400, "seed must be at most 9,223,372,036,854,775,807, got 10000"),
        ("learning_rate", 10**400, "learning_rate must be at most 9,223,"),
        (
            "learning_rate",
            np.float32("inf"),
            "learning_rate must be a number > 0, got np.float32(inf)",
        ),
        ("learning_rate", 0.0, "learning_rate must be a number > 0, got 0.0"),
        ("learning_rate", math.nan, "learning_rate must be a number > 0, got nan"),
        ("noise_std", math.inf, "noise_std must be a number ≥ 0, got inf"),
        ("test_fraction", 1.0, "test_fraction must be a number > 0 and < 1, got 1.0"),
        ("learning_rate", "0.1", "learning_rate must be a number > 0, got '0.1'"),
        ("noise", "nme", "noise must be one of none, nem, blind, anti, drift, got 'nme'"),
        ("targets", "a,,b", "targets holds an empty name"),
        ("targets", 3, "targets must be names"),
        ("augment", "flip", "augment must be none, flips, crops or flips,crops (crops2: shifted"),
        ("augment", "flips,flips", "augment must be none, flips"),
        ("augment", "none,crops", "augment must be none, flips"),
        ("augment", "crops0", "augment must be none, flips"),
        ("augment", "", "augment must be none, flips"),
        ("augment", 4, "augment must be none, flips"),
        ("image_size", "32x", 'image_size must be height and width in pixels, as in "32x32"'),
        ("image_size", "0", "image_size must be height and width in pixels"),
        ("image_size", [4, 4, 3], "image_size must be height and width in pixels"),
        ("image_size", True, "image_size must be height and width in pixels"),
        ("scaling", "unti", "scaling must be one of auto, unit, channel, got 'unti'"),
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
        ("layers = '8,0'", "layers has '0' as layer 2: it has 0 neurons"),
        ("layers = ['conv8x4', 'maxpool2']", "layers has 'maxpool2' as layer 2: pooling is by"),
        ("quiet = 1", "quiet must be true or false, got 1"),
    ],
)
def test_a_bad_file_is_one_error_that_names_it(tmp_path, text, message):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ArchitectureError) as caught:
        read_settings(path, RunConfig, {"quiet": bool})
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
