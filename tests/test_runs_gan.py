"""Adversarial runs from Python: what is prepared, scored, saved and summed up."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import rows, summary

from nembp.datasets import load
from nembp.errors import ArchitectureError, DataError
from nembp.runs.gan import (
    EARLY,
    draw_samples,
    gan_replicate,
    gan_trainer,
    prepare_gan,
    run_gan,
    run_seeds,
)
from nembp.runs.gan_config import GanConfig
from nembp.runs.predicting import load_run

TINY = GanConfig(
    samples=500, latent=2, latent_law="gaussian", iterations=45, checkpoints=4, averaged=2,
    generator=(16,), discriminator=(16,), device="cpu", scored_samples=300,
)  # fmt: skip
FEW = {"dataset": "ring", "samples": 200, "device": "cpu", "latent": 2}


# -- replicates ------------------------------------------------------------------------------------
def test_a_replicate_is_the_run_without_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = gan_replicate(TINY)
    assert list(tmp_path.iterdir()) == []
    assert (found["status"], found["threads"]) == ("finished", found["threads"])
    assert found["curves"]["iteration"] == [12, 24, 36, 45]
    told = run_gan(TINY, "a")
    assert found["scores"] == told["scores"]
    assert (told["captured_iterations"], told["why_not_captured"]) == (0, None)  # on the CPU
    assert found["curves"] == {key: [row[key] for row in rows("a")] for key in rows("a")[0]}
    assert gan_replicate(TINY)["curves"] == found["curves"]
    assert gan_replicate(TINY.replace({"seed": 1}))["curves"] != found["curves"]


# -- the course ------------------------------------------------------------------------------------
def test_checkpoints_score_samples_of_their_own_and_the_last_ones_more(monkeypatch):
    """Else their chance would be that of one draw, however many are averaged."""
    config = TINY.replace({"scored_samples": 2 * EARLY, "learning_rate": 1e-12})
    prepared, seen = prepare_gan(config), []
    monkeypatch.setattr(prepared.scorer, "score", lambda x: seen.append(x) or {})
    gan_trainer(prepared).run()
    assert [len(samples) for samples in seen] == [EARLY, EARLY, 2 * EARLY, 2 * EARLY]
    assert not np.isclose(seen[0], seen[1]).any()


def test_a_listener_ends_a_run(tmp_path):
    told = run_gan(TINY, tmp_path / "a", on_row=lambda row: row["iteration"] >= 24)
    assert (told["iterations"], told["status"]) == (24, "finished")


def test_what_is_saved_is_the_average_that_is_scored(tmp_path):
    config = TINY.replace({"averaging": 0.99, "learning_rate": 0.05, "latent_std": 2.0})
    prepared = prepare_gan(config)
    course = gan_trainer(prepared)
    course.run()
    run_gan(config, tmp_path / "a")
    generator = load_run(tmp_path / "a", player="generator")
    draw_samples(tmp_path / "a", 20, tmp_path / "x.npy", seed=4)
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), course.sample(20, seed=4), rtol=1e-5)
    raw = prepared.generator.parameters
    assert not np.allclose(generator.net.parameters, raw, rtol=0.01)


def test_optimizers_and_noise_are_those_configured():
    config = TINY.replace({"kind": "wasserstein", "optimizer": "adam", "momentum": 0.25,
                           "decay": 0.75, "learning_rate": 0.01, "discriminator_rate": 0.02,
                           "noise": "anti", "noise_std": 0.3, "noise_law": "uniform"})  # fmt: skip
    trainer = gan_trainer(prepare_gan(config))
    assert [each.learning_rate for each in trainer.optimizers] == [0.01, 0.02]
    assert [(each.beta1, each.beta2) for each in trainer.optimizers] == [(0.25, 0.75)] * 2
    (source,) = trainer.sources.values()
    noise = source.noise
    assert (noise.kind, noise.std, noise.law) == ("anti", 0.3, "uniform")
    assert list(trainer.sources) == ["critic/input"]


# -- files -----------------------------------------------------------------------------------------
def test_seeds_that_were_finished_are_summed_up_when_interrupted(tmp_path):
    seen = []

    def listen(row):
        seen.append(row)
        if len(seen) == 6:  # the second checkpoint of the second seed
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="interrupted after 1 of 3 seeds"):
        run_seeds(TINY, 3, tmp_path / "a", on_row=listen)
    told = summary(tmp_path / "a")
    assert (told["status"], told["seeds"]) == ("interrupted", [0])
    assert told["scores"] == summary(tmp_path / "a/seed0")["scores"]
    assert summary(tmp_path / "a/seed1")["iterations"] == 24
    assert not (tmp_path / "a/seed2").exists()


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
        ({"discriminator": "16bn", "batch_size": 1}, "learns nothing from batches of one"),
        ({"latent_law": "binary", "latent_std": 2.0}, "a binary z is 0 or 1, got latent_std 2"),
        ({"optimizer": "rmsprop", "momentum": 0.5}, "momentum is of adam and momentum"),
        ({"optimizer": "sgd", "decay": 0.5}, "decay is of adam and rmsprop"),
        ({"dataset": "grid", "kind": "wasserstein-gp", "discriminator": "16bn"},
         "without batch normalization"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(settings, message):
    with pytest.raises(ArchitectureError) as error:
        gan_trainer(prepare_gan(GanConfig(**{"device": "cpu"} | settings)))
    assert message in str(error.value)


# -- players ---------------------------------------------------------------------------------------
def test_players_have_the_ends_of_their_game(tmp_path, monkeypatch):
    prepared = prepare_gan(GanConfig(**FEW))
    g, d = prepared.generator, prepared.discriminator
    assert [layer.size for layer in g.layers] == [2, 128, 128, 2]
    assert [layer.size for layer in d.layers] == [2, 128, 128, 1]
    assert (g.likelihood.name, d.likelihood.name) == ("gaussian", "bernoulli")
    classes = prepare_gan(GanConfig(**FEW, classes=True)).discriminator
    assert (classes.outputs, classes.likelihood.name) == (9, "multinomial")
    monkeypatch.setenv("NEMBP_CACHE", str(tmp_path))
    notes: list[str] = []
    images = prepare_gan(GanConfig(dataset="digits", limit=100, device="cpu"), notes.append)
    assert images.generator.likelihood.name == "bernoulli"
    assert images.data.x_scaling == load("digits").x_scaling
    assert any("classifier" in note for note in notes)
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(f"{k},{k * k}.5" for k in range(40)))
    with pytest.raises((ArchitectureError, DataError), match="no classes"):
        prepare_gan(GanConfig(dataset="csv", data_dir=str(tmp_path / "t.csv"), device="cpu"))


def test_players_of_one_seed_have_unlike_weights():
    prepared = [prepare_gan(GanConfig(**FEW, seed=seed)) for seed in (0, 0, 1)]
    g, d = ([getattr(each, name).weights[0] for each in prepared]
            for name in ("generator", "discriminator"))  # fmt: skip
    assert not (g[0] == d[0]).any()
    for first, again, other in (g, d):
        assert (first == again).all()
        assert not (first == other).any()
