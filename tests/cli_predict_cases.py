"""Trained runs and tables for the tests of nembp predict."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from nembp.runs import RunConfig, train_run


def train_runs(folder: Path) -> Path:
    """Train a run of digits, one of named classes and one of numbers."""
    config = RunConfig(layers=(32,), epochs=15, device="cpu", validation_fraction=0.1)
    train_run(config, folder / "digits")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(150, 2)) + 6 * np.repeat([[0, 0], [1, 0], [0, 1]], 50, axis=0)
    for name, targets, header in (
        ("kinds", np.repeat(["ant", "bee", "cat"], 50)[:, np.newaxis], ["kind"]),
        ("numbers", x @ [[1.0, 3.0], [2.0, -1.0]] + 100, ["left", "right"]),
    ):
        path = folder / f"{name}.csv"
        with open(path, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["a", "b", *header])
            table.writerows([*u, *v] for u, v in zip(x.tolist(), targets.tolist(), strict=True))
        config = RunConfig(
            dataset="csv", data_dir=str(path), targets=tuple(header), layers=(32,), epochs=80,
            device="cpu",
        )  # fmt: skip
        train_run(config, folder / name)
    np.save(folder / "x.npy", x[[0, 60, 120]])
    return folder


def table(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))
