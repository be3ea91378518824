"""nembp bench: the registry and the command."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from nembp.backend import get_backend
from nembp.benchmarks import SUITES, Settings, environment, get_suite, runner, steps, tables
from nembp.benchmarks.floor import dense_maps, multiply_adds
from nembp.benchmarks.notation import parse_network
from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError, DeviceError, OutputError

CLI = "nembp_cli.bench" if importlib.util.find_spec("nembp_cli") else "cli.bench"
bench = importlib.import_module(CLI).bench
TINY = ["--networks", "7-6-5-3", "--batches", "4", "--threads", "1", "--repeats", "2"]


def test_every_suite_is_complete_and_its_networks_are_its_own():
    for name in SUITES:
        suite = get_suite(name)
        assert isinstance(suite.STEP, str)
        for settings in (suite.DEFAULTS, suite.QUICK):
            for network in settings.networks:
                suite.check_network(network)
        with pytest.raises(ArchitectureError, match="no-network"):
            suite.check_network("no-network")
    with pytest.raises(ArchitectureError, match="'wide'"):
        get_suite("wide")


@pytest.mark.parametrize("text", ["784", "784-0-10", "784--10", "784-x-10", "", "784-1", "-3-4"])
def test_bad_networks_are_named(text):
    with pytest.raises(ArchitectureError, match="^" + repr(text)):
        parse_network(text)


# -- the command -------------------------------------------------------------------------------
def _run(*options):
    return CliRunner().invoke(bench, [str(option) for option in options])


def test_json_is_one_object_with_every_row(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "peak_memory", lambda **given: {"failed": str(given)})
    monkeypatch.setattr(steps, "WARM_UP", 0.0)
    out = tmp_path / "new" / "bench.json"
    options = ["--networks", "7-6-5-3", "--batches", "4,6", "--threads", "1,2"]
    result = _run(*options, "--repeats", 2, "--dtype", "float64", "--json", "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert json.loads(out.read_text()) == found
    assert "threads=" not in result.stdout
    assert "threads': 2, 'dtype': 'float64', 'device': 'cpu'" in found["peak_memory"]["failed"]
    rows = [(row["network"], row["threads"], row["batch"]) for row in found["results"]]
    assert rows == [(n, t, b) for n in ("7-6-5-3",) for t in (1, 2) for b in (4, 6)]
    assert result.stderr.count("a bidirectional step") == len(rows)
    assert {"date", "machine", "versions", "blas", "environment", "step"} <= set(found)
    assert "taken_by_others" in found
    for row in found["results"]:
        times, floor = row["times"], row["floor"]
        assert row["threads_in_force"]["blas"] == row["threads"]
        measured = {k: v["median"] for k, v in times.items() if "median" in v}
        assert all(seconds > 0 for seconds in measured.values())
        assert all(v["rounds"] == 2 for v in times.values() if "median" in v)
        both, one = measured["nembp/bidirectional"], measured["nembp/one_direction"]
        ratios = row["ratios"]
        assert ratios["bidirectional/one_direction"] == both / one
        adam = min(v for k, v in measured.items() if k.startswith("floor/adam"))
        assert floor["bidirectional"] == measured["floor/bidirectional_products"] + adam
        assert ratios["bidirectional/floor"] == both / floor["bidirectional"]
        if "torch/bidirectional" in measured:
            torch = measured["torch/bidirectional"]
            assert ratios["torch_bidirectional/bidirectional"] == torch / both
            torch = measured["torch/one_direction"]
            assert ratios["bidirectional/torch_one_direction"] == both / torch
        sizes = parse_network(row["network"])
        maps = dense_maps(sizes)
        counts = row["multiply_adds"]
        assert counts["nembp/bidirectional"] == multiply_adds(maps, row["batch"], "classes")
        assert counts["nembp/one_direction"] == multiply_adds(maps, row["batch"], "none")
        assert row["parameters"] == dense_network(sizes).parameter_count
        assert row["adam_bytes"] == 7 * 8 * row["parameters"]


def test_table_without_pytorch_says_so_and_the_rest_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(runner, "peak_memory", lambda **given: {"failed": "left out here"})
    result = _run(*TINY)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("nembp bench: suite dense, float32, cpu")
    row = next(line for line in lines if line.split()[:2] == ["1", "4"])
    assert row.count("not installed") == 2
    assert row.count("us") + row.count("ms") == 6
    start = lines.index("7-6-5-3, 119 parameters")
    assert len([line for line in lines[start:] if line.split()[:2] == ["1", "4"]]) == 2
    assert "peak memory: not measured" in result.stdout
    assert max(map(len, lines)) <= 110


def test_table_names_what_pins_the_blas(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    result = _run(*TINY, "--quick")
    assert "OPENBLAS_CORETYPE=Haswell" in result.stdout
    assert "core type" in result.stdout
    assert "peak memory" not in result.stdout  # quick leaves it out


def test_threads_beyond_the_machine_and_a_busy_machine_are_noted():
    many = environment.usable_cpus() + 1
    settings = Settings(networks=(), batches=(), threads=(1, many))
    busy, idle = runner._notes(settings, 3.0), runner._notes(settings, 0.1)
    assert len(busy) == 2
    assert len(idle) == 1
    assert str(many) in idle[0]
    assert "3.0" in busy[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--networks", "784-10,784-x"], "'784-x'"),
        (["--networks", "784-10,"], "empty"),
        (["--batches", "32,0"], "'0'"),
        (["--batches", "1.5"], "'1.5'"),
        (["--threads", "1,two"], "'two'"),
        (["--threads", "-1"], "'-1'"),
        (["--repeats", "0"], "--repeats"),
        (["--dtype", "float16"], "float16"),
        (["--device", "tpu"], "tpu"),
        (["--suite", "wide"], "wide"),
        (["--out", "."], "'.'"),
    ],
)
def test_bad_options_are_usage_errors_that_name_the_entry(options, named, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *a, **k: pytest.fail("it ran"))
    result = _run(*options)
    assert result.exit_code == 2
    assert options[0] in result.stderr
    assert named in result.stderr
    assert not result.stdout


def test_gpu_without_one_is_a_device_error():
    try:
        get_backend("gpu")
    except DeviceError:
        pass
    else:
        pytest.skip("this machine has a GPU")
    result = _run(*TINY, "--device", "gpu")
    assert isinstance(result.exception, DeviceError)
    assert result.exception.exit_code == 4
    assert not result.stdout


def test_an_unwritable_file_is_told_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *a, **k: pytest.fail("it ran"))
    (tmp_path / "file").write_text("")
    result = _run(*TINY, "--out", tmp_path / "file" / "bench.json")
    assert isinstance(result.exception, OutputError)
    assert str(tmp_path) in str(result.exception)


def test_a_disk_that_fills_up_does_not_take_the_timings(tmp_path, monkeypatch):
    out = tmp_path / "bench.json"

    def run(*args, **options):  # by the end of the run the path has become a folder
        out.mkdir()
        return {"suite": "dense", "results": []}

    monkeypatch.setattr(runner, "run", run)
    result = _run(*TINY, "--json", "--out", out)
    assert isinstance(result.exception, OutputError)
    assert json.loads(result.stdout) == {"suite": "dense", "results": []}
    assert list(tmp_path.iterdir()) == [out]


def test_help_needs_neither_numpy_nor_the_peers():
    heavy = "{'numpy', 'torch', 'sklearn'} & set(sys.modules)"
    code = f"import sys, {CLI}; print({heavy} or 'none')"
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path
    )
    assert found.stdout.strip() == "none"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(9.994e-6, "9.99 us"), (1e-3, "1.00 ms"), (0.0123, "12.3 ms"), (2, "2000 ms")],
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text
