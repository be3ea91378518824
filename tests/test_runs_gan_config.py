"""Configurations of adversarial trainings, their recipes, and what is refused before training."""

from __future__ import annotations

import pytest

from nembp.adversarial.settings import AdversarialSettings
from nembp.architecture import generator_network
from nembp.datasets import load
from nembp.errors import ArchitectureError, DataError
from nembp.runs import from_toml, gan_config, to_toml
from nembp.runs.gan import Training, load_gan_data, prepare_gan
from nembp.runs.gan_config import GanConfig, gan_recipe

LEFT_OPEN = {
    "data_dir", "limit", "samples", "modes", "std", "scale", "image_size", "backward_weight",
    "threads", "scored_samples",
}  # fmt: skip
FEW = {"dataset": "ring", "samples": 200, "device": "cpu", "latent": 2}


# -- files -----------------------------------------------------------------------------------------
def test_toml_reads_back_the_same(tmp_path):
    config = GanConfig(
        dataset="grid", kind="wasserstein", backward_flow=True, classes=False,
        generator="64,conv8x3", noise_place="critic/input,generator/backward", clip=0.05, seed=3,
    )  # fmt: skip
    path = tmp_path / "c.toml"
    path.write_text(to_toml(config, "a comment"))
    assert from_toml(path, GanConfig) == config
    assert "backward-flow = true" in path.read_text()
    path.write_text('data = "grid"')
    assert from_toml(path, GanConfig) == GanConfig(dataset="grid")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = 'gan'", "kind must be one of vanilla, minimax, wasserstein, wasserstein-gp"),
        ("data = 'ring'\ndataset = 'ring'", "dataset is given twice, in two spellings"),
        ("weight-until = 1.5", "weight-until must be a number > 0 and ≤ 1, got 1.5"),
        ("classes = 1", "classes must be true or false"),
        ("epochs = 3", "unknown key 'epochs'; "),
        ("zzzz = 3", "`nembp gan --help` lists the options"),
        ("generator-weight = 0", "generator-weight must be a number > 0"),
        ("noise-place = ['generator']", "noise-place must be discriminator/forward, "),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ArchitectureError, match=r"c\.toml: ") as error:
        from_toml(tmp_path / "c.toml", GanConfig)
    assert message in str(error.value)


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


def test_every_default_is_in_words():
    for name, option in GanConfig.options().items():
        if name not in ("data_dir", "limit", "image_size", "threads"):
            assert option.described_default or option.default is False, name


# -- what is refused -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "rnig"}, "no data set 'rnig': expected one of ring, grid, stacked"),
        ({"dataset": "digits", "samples": 10}, "samples does not go with the data set 'digits'"),
        ({"dataset": "digits", "modes": 10}, "modes does not go with the data set 'digits'"),
        ({"dataset": "grid", "modes": 24}, "a grid has a square number of them"),
        ({"data_dir": "a"}, "data_dir does not go with the data set 'ring'"),
        ({"dataset": "mnist"}, "data set 'mnist' is read from files and no path was given"),
        ({"kind": "wasserstein", "classes": True}, "critic has one output and no classes"),
        ({"kind": "wasserstein", "noise": "nem", "noise_place": "discriminator/forward"},
         "noise discriminator/forward needs kind vanilla or minimax"),
        ({"noise": "nem", "noise_place": "critic/input"},
         "critic/input needs kind wasserstein or wasserstein-gp"),
        ({"noise": "nem", "noise_place": "generator/backward", "bidirectional": "none"},
         "generator/backward needs bidirectional generator or both"),
        ({"bidirectional": "generator", "noise": "nem", "noise_place": "discriminator/backward"},
         "discriminator/backward needs bidirectional discriminator or both"),
        ({"discriminator": "conv8x3"}, "conv8x3"),
        ({"latent_law": "binary", "latent_std": 2.0}, "a binary z is 0 or 1, got latent_std 2"),
        ({"optimizer": "rmsprop", "momentum": 0.5}, "momentum is of adam and momentum"),
        ({"optimizer": "sgd", "decay": 0.5}, "decay is of adam and rmsprop"),
        ({"dataset": "grid", "kind": "wasserstein-gp", "discriminator": "16bn"},
         "without batch normalization"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(settings, message):
    with pytest.raises(ArchitectureError) as error:
        Training(prepare_gan(GanConfig(**{"device": "cpu"} | settings)))
    assert message in str(error.value)


def test_data_that_has_no_classes_cannot_be_scored(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(f"{k},{k * k}.5" for k in range(40)))
    with pytest.raises((ArchitectureError, DataError), match="no classes"):
        prepare_gan(GanConfig(dataset="csv", data_dir=str(tmp_path / "t.csv"), device="cpu"))


# -- players ---------------------------------------------------------------------------------------
def test_players_have_the_ends_of_their_game():
    prepared = prepare_gan(GanConfig(**FEW))
    g, d = prepared.generator, prepared.discriminator
    assert [layer.size for layer in g.layers] == [2, 128, 128, 2]
    assert [layer.size for layer in d.layers] == [2, 128, 128, 1]
    assert (g.likelihood.name, d.likelihood.name) == ("gaussian", "bernoulli")
    classes = prepare_gan(GanConfig(**FEW, classes=True)).discriminator
    assert (classes.outputs, classes.likelihood.name) == (9, "multinomial")


def test_players_of_one_seed_have_unlike_weights():
    prepared = prepare_gan(GanConfig(**FEW))
    g, d = prepared.generator, prepared.discriminator
    assert not (g.weights[0] == d.weights[0]).any()
    again, other = prepare_gan(GanConfig(**FEW)), prepare_gan(GanConfig(**FEW, seed=1))
    assert (again.discriminator.parameters == d.parameters).all()
    for old, new in ((g, other.generator), (d, other.discriminator)):
        assert not (old.weights[0] == new.weights[0]).any()


def test_images_are_of_a_bernoulli_generator(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMBP_CACHE", str(tmp_path))
    config = GanConfig(dataset="digits", limit=100, device="cpu")
    data = load_gan_data(config)
    assert data.x_scaling == load("digits").x_scaling
    notes: list[str] = []
    prepared = prepare_gan(config, notes.append)
    assert prepared.generator.likelihood.name == "bernoulli"
    assert any("classifier" in note for note in notes)
