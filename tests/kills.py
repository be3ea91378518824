"""Kill runs at random moments, and check what they leave: ``python tests/kills.py --kills 300``.

Whatever the moment: every model that is there can be read, a run with ``--force`` leaves a whole
model (the older run's or its own), the players of an adversarial run belong together, and the next
start removes what was half written. A run that is resumed, perhaps after more kills, ends in the
files of one that nothing disturbed, byte for byte, and an experiment in its rows.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from command_line import rows

from nembp.checkpoints import load_model
from nembp.errors import DataError
from nembp.experiments import read_experiment
from nembp.runs.folder import CHECKPOINT, newest_checkpoint
from nembp.runs.gan import load_players

COMMANDS = {
    "dense": ["train", "--layers", "32", "--epochs", "40"],
    "noise": ["train", "--layers", "32", "--epochs", "40", "--noise", "nem"],
    "convolution": ["train", "--layers", "conv8x3,16bn", "--epochs", "20", "--limit", "200"],
    "gan": ["gan", "--samples", "2000", "--iterations", "2000", "--checkpoints", "50"],
    "experiment": ["experiment", "run", "output-noise-digits", "--quick", "--jobs", "2"],
}


def start(kind: str, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nembp", *COMMANDS[kind], "--device", "cpu"]
    command += [] if kind == "experiment" else ["--quiet", "--threads", "1"]
    command += [] if "--resume" in more and kind != "experiment" else ["--out", str(folder)]
    return subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(kind: str, folder: Path, *more: str) -> None:
    process = start(kind, folder, *more)
    _, said = process.communicate()
    assert process.returncode == 0, said.decode()
    left = list(folder.rglob(".nembp-*"))
    assert not left, f"left behind: {left}"


def check(folder: Path, *, whole: bool) -> bool:
    """Return whether a model is there; all that are there can be read."""
    models = [path for path in folder.glob("*.npz") if path.name != CHECKPOINT]
    for path in models:
        load_model(path)
    if whole:
        assert models, f"{folder} lost its model"
    if len(models) == 2:
        load_players(folder)
    return bool(models)


def content(folder: Path) -> dict[str, Any]:
    """Return the files of a run, and the rows of its metrics but for the times."""
    files = [path for path in folder.iterdir() if path.suffix in (".npz", ".png", ".gif", ".toml")]
    found: dict[str, Any] = {
        path.name: path.read_bytes() for path in files if path.name != CHECKPOINT
    }
    return found | {"rows": rows(folder)}


@cache
def undisturbed(kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "run")
        finish(kind, folder)
        return rows_of(folder) if kind == "experiment" else content(folder)


def begun(folder: Path, whole: dict[str, Any]) -> bool:
    """Return whether a killed run left a checkpoint, rather than the older run's."""
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None or checkpoint.parent != folder:
        return checkpoint is not None
    config = folder / "config.toml"
    return config.exists() and config.read_bytes() == whole["config.toml"]


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def kill_once(kind: str, folder: Path, choice: random.Random, *, force: bool) -> str:
    whole = undisturbed(kind)
    again: list[str] = []
    if force:
        finish(kind, folder, "--seed", "7")
        again = ["--force"]
    while True:
        process = start(kind, folder, *again, "--checkpoint-every", "0.05")
        time.sleep(choice.uniform(0.3, 4.0))
        kill(process)
        found = check(folder, whole=force)
        resumes = begun(folder, whole)
        again = ["--resume", str(folder)] if resumes else again
        if not resumes and folder.exists() and any(folder.iterdir()):
            again = ["--force"]
        if choice.random() < 0.6:
            break
    finish(kind, folder, *again)
    now = content(folder)
    for name in whole:
        assert now[name] == whole[name], f"{name} is not that of a run in one go"
    return f"{'resumed' if resumes else 'begun again'}, {'a model' if found else 'no model yet'}"


def rows_of(out: Path) -> dict[str, Any]:
    """Return what each replicate says, but the time it took; what is there can be read."""
    try:
        found = read_experiment(out, COMMANDS["experiment"][2], quick=True).rows
    except DataError as error:
        assert "no such file" in str(error) or "no replicate has finished" in str(error), error  # noqa: PT017
        found = []
    identity = ("phase", "arm", "rate", "strength", "seed")
    told = {str([row[key] for key in identity]): row | {"seconds": None} for row in found}
    assert len(told) == len(found), "a replicate was run twice"
    return told


def kill_experiment(out: Path, choice: random.Random) -> str:
    whole = undisturbed("experiment")
    process, wanted = start("experiment", out), choice.randrange(len(whole))
    path = out / "output-noise-digits-quick" / "rows.jsonl"
    while wanted and process.poll() is None:  # most of the time goes to starting
        if path.exists() and path.read_bytes().count(b"\n") >= wanted:
            break
        time.sleep(0.001)
    time.sleep(choice.uniform(0.0, 0.1 if wanted else 3.0))
    kill(process)
    found = rows_of(out)
    assert found.items() <= whole.items(), "a row differs from the undisturbed run's"
    finish("experiment", out, "--resume")
    assert rows_of(out) == whole, "the resumed run has other rows"
    return "all rows" if found == whole else "some rows" if found else "no row yet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(COMMANDS), help="by default any")
    options = parser.parse_args()
    choice, counts = random.Random(options.seed), Counter[str]()
    for _ in range(options.kills):
        kind, force = options.kind or choice.choice(list(COMMANDS)), choice.random() < 0.5
        with tempfile.TemporaryDirectory() as place:
            if kind == "experiment":
                counts[f"{kind}: {kill_experiment(Path(place), choice)}"] += 1
            else:
                left = kill_once(kind, Path(place, "run"), choice, force=force)
                counts[f"{kind}{' --force' if force else ''}: {left}"] += 1
    for what, count in sorted(counts.items()):
        print(f"{count:4} {what}")


if __name__ == "__main__":
    main()
