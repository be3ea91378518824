"""Scores and predictions of saved models, and files that are not what they should be."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from command_line import rows, summary

from nembp.checkpoints import load_model, save_model
from nembp.datasets import load
from nembp.errors import ArchitectureError, DataError
from nembp.runs import RunConfig, evaluate_run, train_run
from nembp.runs.predicting import (
    SplitName,
    answer,
    load_run,
    read_samples,
    read_targets,
    sample_names,
)

KEYS = ("forward/accuracy", "forward/nll", "backward/nll", "backward/centroid_error")


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    config = RunConfig(layers=(32,), epochs=25, device="cpu", validation_fraction=0.1)
    train_run(config, folder)
    return folder


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    """A linear relation of tables: y = A x, in units far from 1."""
    folder = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    y = generator.normal(size=(400, 2)) * [1000.0, 0.01] + [5000.0, 3.0]
    x = (y - [5000.0, 3.0]) / [1000.0, 0.01] @ generator.normal(size=(2, 3)) * 20 + 70
    np.savez(folder / "t.npz", x=x, y=y)
    config = RunConfig(
        dataset="npz", data_dir=str(folder / "t.npz"), layers=(64, 64), epochs=60, device="cpu",
        learning_rate=0.01,
    )  # fmt: skip
    train_run(config, folder / "run")
    return folder / "run", x, y


def read_sample(path, model):
    return read_samples([path], model)


# -- scores ----------------------------------------------------------------------------------------
def test_the_scores_of_the_run_are_found_again(digits_run):
    told = summary(digits_run)
    for run in (digits_run, digits_run / "model.npz"):
        scores = evaluate_run(run)
        assert {key: scores[key] for key in KEYS} == pytest.approx({k: told[k] for k in KEYS})
    found = {split: evaluate_run(digits_run, split=split) for split in get_args(SplitName)}
    validation = found["validation"]["forward/nll"]
    assert validation == pytest.approx(rows(digits_run)[-1]["forward/nll"])
    counts = {split: scores["samples"] for split, scores in found.items()}
    guesses = answer(load_run(digits_run), load("digits").test.x).argmax(axis=1)
    accuracy = evaluate_run(digits_run)["forward/accuracy"]
    assert accuracy == pytest.approx(np.mean(guesses == load("digits").test.y))
    assert counts == {"train": 1350, "validation": 150, "test": 297, "all": 1797}


def test_data_that_does_not_fit_is_refused(digits_run, table_run, tmp_path):
    folder, x, y = table_run
    np.savez(tmp_path / "wide.npz", x=np.hstack([x, x]), y=y)
    np.savez(tmp_path / "labels.npz", x=x, y=np.arange(400) % 2)
    for name, message in (("wide", "samples of shape"), ("labels", "the classes")):
        with pytest.raises(DataError, match=rf"{name}\.npz: {message}.*--data-dir"):
            evaluate_run(folder, data_dir=tmp_path / f"{name}.npz")
    np.savez(tmp_path / "new.npz", x=x[:50], y=y[:50])
    new = evaluate_run(folder, data_dir=tmp_path / "new.npz", split="all")
    assert new["samples"] == 50
    assert new["forward/r2"] > 0.99
    with pytest.raises(ArchitectureError, match="no validation split"):
        evaluate_run(folder, split="validation")
    with pytest.raises(ArchitectureError, match="split must be one of"):
        evaluate_run(digits_run, split="tset")


def test_settings_of_another_version_are_no_crash(digits_run, tmp_path):
    model = load_model(digits_run / "model.npz")
    model.settings |= {"of_the_future": 1}
    save_model(tmp_path / "future.npz", model)
    assert evaluate_run(tmp_path / "future.npz")["samples"] == 297
    model.settings |= {"epochs": "many"}
    save_model(tmp_path / "odd.npz", model)
    with pytest.raises(DataError, match=r"odd\.npz: settings of another version"):
        evaluate_run(tmp_path / "odd.npz")


# -- predictions -----------------------------------------------------------------------------------
def test_tables_are_predicted_in_raw_units(table_run):
    folder, x, y = table_run
    model = load_run(folder)
    assert np.allclose(answer(model, x[:50]), y[:50], rtol=0.02, atol=[30.0, 3e-4])
    back = answer(model, y[:50], backward=True)
    assert np.abs(back - x[:50]).max() < 0.1 * x.std()


def test_samples_are_read_in_every_form(digits_run, tmp_path):
    model, x = load_run(digits_run), load("digits").test.x[:3]
    for form in (x, x[..., 0].astype(float), x.reshape(3, 64), np.asfortranarray(x)):
        np.save(tmp_path / "a.npy", form)
        read, files = read_samples([tmp_path / "a.npy"], model)
        assert np.array_equal(read, x)
        assert list(sample_names(files)) == [f"{tmp_path / 'a.npy'}[{row}]" for row in range(3)]
    np.save(tmp_path / "one.npy", x[0, :, :, 0])
    np.savez(tmp_path / "d.npz", x=x[1:], other=x)
    read, files = read_samples([tmp_path / "one.npy", tmp_path / "d.npz"], model)
    assert np.array_equal(read, x)
    assert next(sample_names(files)) == str(tmp_path / "one.npy")
    assert np.array_equal(read_samples([tmp_path / "d.npz"], model, "other")[0], x)


@pytest.mark.parametrize(
    ("read", "array", "message"),
    [
        (read_targets, [3.5], "no class 3.5; expected one of the classes '0'"),
        (read_targets, [], "no targets"),
        (read_targets, [[1.0, 0.0]], r"expected \(n, 10\)"),
        (read_targets, -np.eye(10), "probabilities ≥ 0"),
        (read_targets, ["x"], "no class 'x'"),
        (read_sample, np.zeros((3, 7, 8)), r"shape \(3, 7, 8\); expected \(n, 8, 8, 1\) or"),
        (read_sample, np.zeros((0, 64)), "no samples"),
        (read_sample, np.full((1, 64), 1e31), "expected finite numbers"),
        (read_sample, np.full((1, 64), "a"), "expected real numbers"),
        (read_sample, np.array(5), r"shape \(\); expected"),
    ],
)
def test_arrays_that_do_not_fit_are_named(digits_run, tmp_path, read, array, message):
    np.save(tmp_path / "bad.npy", np.array(array))
    with pytest.raises(DataError, match=rf"bad\.npy: .*{message}"):
        read(tmp_path / "bad.npy", load_run(digits_run))
