"""Adversarial runs from Python: replicates, the course of a run, players in files, pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nembp.checkpoints import load_model
from nembp.errors import ArchitectureError, DataError, DivergenceError
from nembp.runs import gan as gan_module
from nembp.runs.gan import (
    EARLY,
    Training,
    gan_replicate,
    load_player,
    mean_and_deviation,
    prepare_gan,
    run_gan,
    run_seeds,
)
from nembp.runs.gan_config import GanConfig
from nembp.runs.predicting import in_blocks
from nembp.runs.sampling import draw_samples, load_generator, reconstruct_samples

TINY = GanConfig(
    samples=500, latent=2, latent_law="gaussian", iterations=45, checkpoints=4, averaged=2,
    generator=(16,), discriminator=(16,), device="cpu", scored_samples=300,
)  # fmt: skip


# -- replicates ------------------------------------------------------------------------------------
def test_a_replicate_is_the_run_without_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = gan_replicate(TINY)
    assert list(tmp_path.iterdir()) == []
    assert (found["status"], found["threads"]) == ("finished", found["threads"])
    assert found["curves"]["iteration"] == [12, 24, 36, 45]
    summary = run_gan(TINY, "a")
    assert found["scores"] == summary["scores"]
    assert (summary["captured_iterations"], summary["why_not_captured"]) == (0, None)  # on the CPU
    rows = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    for key, values in found["curves"].items():
        assert values == [row[key] for row in rows], key
    assert set(rows[0]) - set(found["curves"]) == {"seconds", "iterations_per_second"}
    assert gan_replicate(TINY)["curves"] == found["curves"]
    assert gan_replicate(TINY.replace({"seed": 1}))["curves"] != found["curves"]


def test_a_replicate_that_diverges_has_no_scores():
    found = gan_replicate(TINY.replace({"optimizer": "sgd", "learning_rate": 1e12}))
    assert (found["status"], found["scores"]) == ("diverged", {})
    json.dumps(found)


# -- the course ------------------------------------------------------------------------------------
def test_the_last_checkpoints_have_the_samples_asked_for_and_earlier_ones_fewer(monkeypatch):
    course = Training(prepare_gan(TINY.replace({"scored_samples": 2 * EARLY})))
    counts, inner = [], course.prepared.scorer.score

    def score(samples):
        counts.append(len(samples))
        return inner(samples)

    monkeypatch.setattr(course.prepared.scorer, "score", score)
    course.run()
    assert counts == [EARLY, EARLY, 2 * EARLY, 2 * EARLY]


def test_each_checkpoint_scores_other_samples(monkeypatch):
    """Else its chance would be that of one draw, however many checkpoints are averaged."""
    course = Training(prepare_gan(TINY.replace({"learning_rate": 1e-12})))
    seen = []
    monkeypatch.setattr(course.prepared.scorer, "score", lambda x: seen.append(x) or {})
    course.run()
    assert not np.isclose(seen[0], seen[1]).any()


def test_a_listener_ends_a_run(tmp_path):
    summary = run_gan(TINY, tmp_path / "a", on_row=lambda row: row["iteration"] >= 24)
    assert summary["iterations"] == 24
    assert summary["status"] == "finished"


def test_what_is_saved_is_the_average_that_is_scored(tmp_path):
    config = TINY.replace({"averaging": 0.99, "learning_rate": 0.05, "latent_std": 2.0})
    course = Training(prepare_gan(config))
    course.run()
    run_gan(config, tmp_path / "a")
    generator = load_generator(tmp_path / "a")
    draw_samples(tmp_path / "a", 20, tmp_path / "x.npy", seed=4)
    np.testing.assert_allclose(
        np.load(tmp_path / "x.npy"), course.trainer.sample(20, seed=4), rtol=1e-5
    )
    raw = course.prepared.generator.parameters
    assert not np.allclose(generator.net.parameters, raw, rtol=0.01)


def test_optimizers_and_noise_are_those_configured():
    config = TINY.replace({"kind": "wasserstein", "optimizer": "adam", "momentum": 0.25,
                           "decay": 0.75, "learning_rate": 0.01, "discriminator_rate": 0.02,
                           "noise": "anti", "noise_std": 0.3, "noise_law": "uniform"})  # fmt: skip
    trainer = Training(prepare_gan(config)).trainer
    assert [each.learning_rate for each in trainer.optimizers] == [0.01, 0.02]
    assert [(each.beta1, each.beta2) for each in trainer.optimizers] == [(0.25, 0.75)] * 2
    (source,) = trainer.sources.values()
    noise = source.noise
    assert (noise.kind, noise.std, noise.law) == ("anti", 0.3, "uniform")
    assert list(trainer.sources) == ["critic/input"]


def test_the_trainer_gets_what_is_configured(monkeypatch):
    given = {}
    monkeypatch.setattr(gan_module, "AdversarialTrainer", lambda *_, **more: given.update(more))
    Training(prepare_gan(TINY.replace({"seed": 7, "schedule": "cosine", "batch_size": 11})))
    expected = {"seed": 7, "schedule": "cosine", "batch_size": 11, "iterations": 45,
                "report_every": 12}  # fmt: skip
    assert expected.items() <= given.items()


# -- files -----------------------------------------------------------------------------------------
def test_normalized_players_come_back_with_their_statistics(tmp_path):
    run_gan(TINY.replace({"generator": "16bn"}), tmp_path / "a")
    net = load_generator(tmp_path / "a").net
    assert net.statistics_count
    mean, _ = net.running[1]
    assert np.abs(mean).max() > 0
    z = np.random.default_rng(0).standard_normal((3, 2))
    again = in_blocks(load_model(tmp_path / "a/generator.npz").net, z)
    assert np.array_equal(again, in_blocks(net, z))


def test_a_file_that_is_no_player_is_refused(tmp_path):
    run_gan(TINY.replace({"bidirectional": "none"}), tmp_path / "a")
    with pytest.raises(DataError, match=r"is no discriminator of `nembp gan`"):
        load_player(tmp_path / "a/generator.npz", "discriminator.npz")
    with pytest.raises(DataError, match="no such file"):
        load_generator(tmp_path)
    with pytest.raises(ArchitectureError, match="knows no way back"):
        reconstruct_samples(tmp_path / "a", 3)


def test_a_run_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(ArchitectureError):
        run_gan(TINY.replace({"data_dir": "x"}), tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverges_says_what_is_kept(tmp_path):
    wild = TINY.replace({"optimizer": "sgd", "learning_rate": 1e12})
    told = []
    with pytest.raises(DivergenceError, match="holds the last good generator"):
        run_gan(wild, tmp_path / "a", on_end=told.append)
    assert [summary["status"] for summary in told] == ["diverged"]


def test_seeds_that_were_finished_are_summed_up_when_interrupted(tmp_path):
    rows = []

    def listen(row):
        rows.append(row)
        if len(rows) == 6:  # the second checkpoint of the second seed
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="interrupted after 1 of 3 seeds"):
        run_seeds(TINY, 3, tmp_path / "a", on_row=listen)
    summary = json.loads((tmp_path / "a/summary.json").read_text())
    first = json.loads((tmp_path / "a/seed0/summary.json").read_text())
    assert (summary["status"], summary["seeds"]) == ("interrupted", [0])
    assert summary["scores"] == first["scores"]
    assert json.loads((tmp_path / "a/seed1/summary.json").read_text())["iterations"] == 24
    assert not (tmp_path / "a/seed2").exists()


# -- sums ------------------------------------------------------------------------------------------
def test_mean_and_deviation():
    values = np.random.default_rng(3).normal(5, 2, 10)
    mean, deviation = mean_and_deviation(values.tolist())
    assert (mean, deviation) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert np.isnan(mean_and_deviation([1.0])[1])
    assert np.isnan(mean_and_deviation([])[0])
