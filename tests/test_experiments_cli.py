"""``nembp experiment``: output, ends, every mistake a user makes; and searching.

What is drawn, how it is compared, what goes on, and that a killed search goes on.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import as_json, fails, run

from nembp.errors import ArchitectureError, DataError, OutputError
from nembp.experiments import search
from nembp.experiments.search import SEEDS_FROM, Space, read_search, run_search, summarize_search
from nembp.runs.folder import to_json

NAME = "output-noise-digits"
pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Return a folder with a run of --quick, and what the run printed."""
    out = tmp_path_factory.mktemp("quick")
    return out, run("experiment", "run", NAME, "--quick", "--jobs", 1, "--out", out, "--json")


def test_list_names_every_experiment():
    assert NAME in run("experiment", "list").stdout
    found = {row["name"]: row for row in as_json("experiment", "list")["experiments"]}
    assert found["output-noise"]["datasets"] == ["mnist"]
    assert found[NAME]["replicates"] > 100
    assert found[NAME]["claims"]


def test_run_leaves_rows_summary_and_figures_and_show_works_it_out_anew(quick):
    out, result = quick
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    summary, folder = json.loads(result.stdout), out / f"{NAME}-quick"
    assert summary == json.loads((folder / "summary.json").read_text())
    assert (summary["name"], summary["quick"], summary["left"]) == (NAME, True, 0)
    count = len((folder / "rows.jsonl").read_text().splitlines())
    assert f"{NAME}: {count} of {count} replicates" in result.stderr

    def show(*args):
        return run("experiment", "show", "--quick", "--out", out, *args)

    shown = show(NAME, "--json")
    assert json.loads(shown.stdout)["experiments"] == [summary]
    assert "without a seal" not in shown.stderr
    text = show().stdout
    assert text.splitlines()[0].split()[:2] == ["claim", "published"]
    assert "none: a quick look" in text
    table = show("--markdown").stdout
    assert table.splitlines()[1].startswith("| --- |")
    assert f"`nembp experiment run {NAME} --quick`" in table
    details = show(NAME, "--details").stdout
    for word in ("blind", "drift", "learning rate", "noise times", "tuned by training nll"):
        assert word in details


def test_a_run_is_resumed_and_not_written_over(quick):
    out, result = quick
    args = ("experiment", "run", NAME, "--quick", "--jobs", 1, "--out", out)
    assert "--resume" in fails(6, *args)
    assert json.loads(run(*args, "--resume", "--json").stdout) == json.loads(result.stdout)


@pytest.mark.parametrize(
    ("code", "args", "says"),
    [
        (2, ["run", "output-noize"], "did you mean output-noise"),
        (2, ["run", NAME, "--seeds", 1], "seeds must be at least 2, since"),
        (2, ["run", "output-noise"], "reads mnist; say where it lies: --data-dir mnist=FOLDER"),
        (2, ["run", "output-noise", "--data-dir", "mnist=gone"], "no such folder for mnist"),
        (2, ["run", "output-noise", "--data-dir", "gone"], "'gone' is not NAME=FOLDER"),
        (3, ["run", "output-noise", "--data-dir", "mnist=."], "mnist"),
        (2, ["run", NAME, "--jobs", 10**12], "a whole number ≥ 1 and ≤ 1024, got"),
        (3, ["show"], "no experiment lies there"),
        (3, ["show", NAME], "no such file"),
        (2, ["show", "nothing-like-it"], "no experiment is called"),
        (2, ["search", "mnsit"], "no search is called 'mnsit'; there is mnist"),
        (2, ["search", "mnist"], "mnist reads mnist; say where it lies: --data-dir mnist=FOLDER"),
        (3, ["search", "mnist", "--show"], "no search lies there"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line_and_leave_nothing(tmp_path, code, args, says):
    assert says in fails(code, "experiment", *args)
    assert not list(tmp_path.iterdir())


# -- searching -------------------------------------------------------------------------------------
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
    path.write_bytes(path.read_bytes().replace(b'"rate": 0.', b'"rate": 1.', 1))
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
