"""The README's library example runs, and its commands have the options that it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_estimators_example_runs_as_it_stands():
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    assert (names["labels"] == names["y"]).mean() > 0.97
    assert names["images"].shape == (2, 64)


def test_the_library_example_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(blocks("python")[1], names)
    X, y = names["X"], names["y"]
    assert (names["labels"] == y.astype(str)).mean() > 0.97  # of training images; a seed gave 1.0
    for image, digit in zip(names["images"], (0, 7), strict=True):
        mean = X[y == digit].mean(axis=0)
        assert np.linalg.norm(image - mean) / np.linalg.norm(mean) < 0.15
    assert (tmp_path / "digits.npz").exists()


def test_the_verification_example_runs_as_it_stands(capsys):
    exec(blocks("python")[2], {})
    assert "10000" in capsys.readouterr().out.replace(",", "").replace("_", "")


@pytest.mark.parametrize("line", re.findall(r"^\$ (nembp .*?)(?:\s+#.*)?$", README, flags=re.M))
def test_the_commands_shown_exist(line):
    from nembp_cli.main import cli

    words = shlex.split(line)[1:]
    command = cli.get_command(None, words.pop(0))
    while isinstance(command, click.Group):
        command = command.get_command(None, words.pop(0))
    known = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        assert not word.startswith("--") or word in known, f"{word} of {line!r}"
