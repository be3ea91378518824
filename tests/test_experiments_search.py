"""Searching: what is drawn, how it is compared, what goes on, and that a killed search goes on."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run

from nembp.errors import ArchitectureError, DataError, OutputError
from nembp.experiments import search
from nembp.experiments.search import SEEDS_FROM, Space, read_search, run_search, summarize_search
from nembp.runs.folder import to_json


def tiny(**changes: Any) -> Space:
    settings: dict[str, Any] = {
        "name": "tiny", "title": "Tiny", "count": 4, "extend": 1,
        "base": {
            "dataset": "digits", "limit": 60, "epochs": 2, "validation_fraction": 0.5,
            "optimizer": "sgd", "layers": "6", "batch_size": 15, "schedule": "constant",
        },
        "regimes": {"activation": ("logistic", "relu"), "backward": ("none", "gaussian")},
        "noises": {
            "hidden": {"noise_std": (0.1, 0.3, 1.0), "noise_target": ("forward", "both")},
            "target": {"noise_std": (0.1, 0.2)},
        },
        "rates": {"sgd": (0.1, 0.2), "logistic sgd": (0.5, 1.0)},
        "candidates": {"hidden": 2, "target": 1},
        "rungs": ({"seeds": 1, "keep": 4}, {"seeds": 2, "keep": 1}),
    }  # fmt: skip
    return Space(**(settings | changes))


def test_what_is_drawn_follows_from_the_seed_and_covers_every_value_evenly():
    found = tiny().drawn()
    assert found == tiny().drawn() != tiny(seed=1).drawn()
    assert tiny(title="Other").digest == tiny().digest != tiny(seed=1).digest
    assert Counter(i.overrides["activation"] for i in found) == {"logistic": 6, "relu": 6}
    assert len({item.name for item in found}) == 12
    assert {item.noise["noise"] for item in found} == {"nem"}
    targets = {(i.overrides["backward"], i.noise.get("noise_target")) for i in found}
    assert {each for each in targets if each[0] == "none"} == {("none", "forward")}
    assert ("gaussian", "both") in targets
    one, other = (tiny().config(item, 0.3, 1, {}) for item in (found[0], found[0].baseline))
    assert (one.noise, other.noise) == ("nem", "none")
    assert one.replace({name: None for name in vars(one) if name.startswith("noise")}) == (
        other.replace({"noise": None})
    )
    assert (one.seed, one.split_seed, one.validation_fraction) == (*[SEEDS_FROM + 1] * 2, 0.5)


# -- running ---------------------------------------------------------------------------------------
@pytest.fixture
def made_up(monkeypatch):
    """Replicates whose nll falls with the strength of the noise, but for rectified units."""

    def replicate(config: Any) -> dict[str, Any]:
        rng = np.random.default_rng([config.seed, int(1e4 * config.learning_rate)])
        pays = config.noise == "nem" and config.activation == "logistic"
        gain = config.noise_std if pays else 0.0
        nll = 1.0 - 0.4 * gain + 0.01 * rng.random()
        return {"status": "finished", "curves": {"train/clean_nll": [nll, nll]},
                "scores": {"forward/accuracy": 0.6 + 0.2 * gain}}  # fmt: skip

    monkeypatch.setattr(search, "replicate", replicate)


def without_seconds(rows):
    return {(r["who"], r["rate"], r["seed"]): {**r, "seconds": 0.0} for r in rows}


def test_halving_finds_what_pays_and_goes_on_where_it_ended(tmp_path, made_up):
    space = tiny()
    folder = run_search(space, tmp_path, budget=1.0, jobs=1)
    summary = json.loads((folder / "summary.json").read_text())
    assert [rung["candidates"] for rung in summary["rungs"]] == [12, 5]  # 4, and the best relu
    best = summary["rungs"][-1]["kept"][0]
    logistic = [i for i in space.drawn() if i.overrides["activation"] == "logistic"]
    most = max(i.noise["noise_std"] for i in logistic)
    assert (best["regime"]["activation"], best["noise"]["noise_std"]) == ("logistic", most)
    assert (best["seeds"], best["cut"]) == (2, pytest.approx(40 * most, abs=2))
    groups = {(g["activation"], g["place"]): g for g in summary["by_group"]}
    assert (groups["relu", "hidden"]["both"], groups["logistic", "hidden"]["candidates"]) == (0, 4)
    whole = read_search(tmp_path, space)
    trained = Counter(r["who"] for r in whole)
    assert max(trained.values()) > min(trained.values())  # what was dropped was trained less
    lines = (folder / "rows.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (1, 9, len(whole) - 1):  # killed within a line
        cut = tmp_path / str(kept) / "tiny"
        cut.mkdir(parents=True)
        (cut / "space.json").write_bytes((folder / "space.json").read_bytes())
        (cut / "rows.jsonl").write_bytes(b"".join(lines[:kept]) + b'{"space": "')
        run_search(space, cut.parent, budget=1e-9, jobs=1, resume=True)
        assert len(read_search(cut.parent, space)) > kept
        run_search(space, cut.parent, budget=1.0, jobs=1, resume=True)
        assert without_seconds(read_search(cut.parent, space)) == without_seconds(whole)


def test_rows_are_not_mixed_nor_damaged_ones_taken(tmp_path, made_up):
    folder = run_search(tiny(), tmp_path, budget=1.0, jobs=1)
    for error, says, space, options in (
        (OutputError, "holds a search; continue it with --resume", tiny(), {}),
        (ArchitectureError, "budget must be above 0", tiny(), {"budget": 0.0, "resume": True}),
        (ArchitectureError, "seed changed", tiny(seed=5), {"resume": True}),
    ):
        with pytest.raises(error, match=says):
            run_search(space, tmp_path, **options)
    path = folder / "rows.jsonl"
    good = path.read_bytes()
    for bad in (b"nonsense\n", good.replace(b'"rate": 0.', b'"rate": 1.', 1)):
        path.write_bytes(bad + good)
        with pytest.raises(DataError, match="line 1 is damaged"):
            read_search(tmp_path, tiny())


def test_divergence_is_a_row(tmp_path, monkeypatch):
    diverged = {"status": "diverged", "curves": {"train/clean_nll": []}, "scores": {}}
    monkeypatch.setattr(search, "replicate", lambda config: diverged)
    space = tiny(rungs=({"seeds": 1, "keep": 1},))
    run_search(space, tmp_path, budget=1.0, jobs=1)
    rows = read_search(tmp_path, space)
    assert all(r["nll"] is None for r in rows)
    kept = summarize_search(space, rows)["rungs"][0]["kept"]
    assert all(each["score"] == -math.inf for each in kept)


def test_the_command_searches_and_shows(tmp_path, monkeypatch, made_up):
    monkeypatch.setitem(search.SPACES, "tiny", tiny())
    command = ("experiment", "search", "tiny", "--out", tmp_path)
    found = run(*command, "--budget", 1, "--jobs", 1, "--data-dir", f"mnist={tmp_path}")
    assert found.exit_code == 0, found.output
    assert "--data-dir mnist: without effect, since tiny reads digits" in found.stderr
    assert "logistic" in found.stdout
    assert "trainings in this rung" in found.stderr
    assert run(*command, "--show").stdout == found.stdout
    summary = json.loads((tmp_path / "tiny" / "summary.json").read_text())
    assert json.loads(run(*command, "--show", "--json").stdout) == summary


def test_the_committed_summary_follows_from_its_rows():
    out = Path(__file__).parent.parent / "data" / "experiments" / "search"
    space = search.space("mnist")
    summary = json.loads((out / "mnist" / "summary.json").read_text())
    assert summary == json.loads(to_json(summarize_search(space, read_search(out, space))))
    assert (summary["hash"], summary["trainings"]) == (space.digest, 1022)
