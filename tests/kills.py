"""Kill runs at random moments, and check what they leave: ``python tests/kills.py --kills 300``.

Whatever the moment: every model that is there can be read, a run with ``--force`` leaves a whole
model (the older run's or its own), the players of an adversarial run belong together, and the next
start removes what was half written. An experiment that is resumed ends in the rows of one that
nothing disturbed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from nembp.checkpoints import load_model
from nembp.errors import DataError
from nembp.experiments import read_experiment
from nembp.runs.gan import load_players

COMMANDS = {
    "dense": ["train", "--layers", "32", "--epochs", "200"],
    "noise": ["train", "--layers", "32", "--epochs", "200", "--noise", "nem"],
    "convolution": ["train", "--layers", "conv8x3,16", "--epochs", "100", "--limit", "200"],
    "gan": ["gan", "--samples", "2000", "--iterations", "4000", "--checkpoints", "200"],
    "experiment": ["experiment", "run", "output-noise-digits", "--quick", "--jobs", "2"],
}


def start(kind: str, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nembp", *COMMANDS[kind], "--device", "cpu"]
    command += [] if kind == "experiment" else ["--quiet"]
    return subprocess.Popen(
        [*command, "--out", str(folder), *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(kind: str, folder: Path, *more: str) -> None:
    short = {"train": ["--epochs", "1"], "gan": ["--iterations", "8"]}
    process = start(kind, folder, *short.get(COMMANDS[kind][0], []), *more)
    _, said = process.communicate()
    assert process.returncode == 0, said.decode()


def check(kind: str, folder: Path, *, whole: bool) -> bool:
    """Return whether a model is there; all that are there can be read."""
    models = list(folder.glob("*.npz"))
    for path in models:
        load_model(path)
    if whole:
        assert models, f"{folder} lost its model"
    if len(models) == 2:
        load_players(folder)
    return bool(models)


def kill_once(kind: str, folder: Path, choice: random.Random, *, force: bool) -> str:
    if force:
        finish(kind, folder)
    process = start(kind, folder, *(["--force"] if force else []))
    time.sleep(choice.uniform(0.3, 3.0))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = check(kind, folder, whole=force)
    finish(kind, folder, *(["--force"] if folder.exists() and any(folder.iterdir()) else []))
    left = list(folder.rglob(".nembp-*"))
    assert not left, f"left behind: {left}"
    check(kind, folder, whole=True)
    return "a model" if found else "no model yet"


@cache
def undisturbed() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        finish("experiment", Path(place))
        return rows_of(Path(place))


def rows_of(out: Path) -> dict[str, Any]:
    """Return what each replicate says, but the time it took; what is there can be read."""
    try:
        rows = read_experiment(out, COMMANDS["experiment"][2], quick=True).rows
    except DataError as error:
        assert "no such file" in str(error) or "no replicate has finished" in str(error), error  # noqa: PT017
        rows = []
    told = {
        json.dumps([row[key] for key in ("phase", "arm", "rate", "strength", "seed")]): {
            key: value for key, value in row.items() if key != "seconds"
        }
        for row in rows
    }
    assert len(told) == len(rows), "a replicate was run twice"
    return told


def kill_experiment(out: Path, choice: random.Random) -> str:
    whole = undisturbed()
    process, wanted = start("experiment", out), choice.randrange(len(whole))
    path = out / "output-noise-digits-quick" / "rows.jsonl"
    while wanted and process.poll() is None:  # most of the time goes to starting
        if path.exists() and path.read_bytes().count(b"\n") >= wanted:
            break
        time.sleep(0.001)
    time.sleep(choice.uniform(0.0, 0.1 if wanted else 3.0))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = rows_of(out)
    assert found.items() <= whole.items(), "a row differs from the undisturbed run's"
    finish("experiment", out, "--resume")
    assert rows_of(out) == whole, "the resumed run has other rows"
    left = list(out.rglob(".nembp-*"))
    assert not left, f"left behind: {left}"
    return "all rows" if found == whole else "some rows" if found else "no row yet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(COMMANDS), help="by default any")
    options = parser.parse_args()
    choice = random.Random(options.seed)
    counts: dict[tuple[str, bool, str], int] = {}
    for _ in range(options.kills):
        kind, force = options.kind or choice.choice(list(COMMANDS)), choice.random() < 0.5
        force = force and kind != "experiment"
        with tempfile.TemporaryDirectory() as place:
            if kind == "experiment":
                left = kill_experiment(Path(place), choice)
            else:
                left = kill_once(kind, Path(place, "run"), choice, force=force)
        counts[kind, force, left] = counts.get((kind, force, left), 0) + 1
    for (kind, force, left), count in sorted(counts.items()):
        print(f"{count:4} {kind}{' --force' if force else ''}: {left}")


if __name__ == "__main__":
    main()
