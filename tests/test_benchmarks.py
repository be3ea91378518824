"""nembp bench: peers and floor do the mathematics they stand for, and the command tells all."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from command_line import run as command
from hypothesis import given
from hypothesis import strategies as st

from nembp.backend import get_backend
from nembp.benchmarks import SUITES, harness, memory, report, suites
from nembp.benchmarks.floor import AdamTraffic, multiply_adds, products
from nembp.benchmarks.peers import MissingPeerError, SklearnStep, TorchGan, TorchLayer, TorchStep
from nembp.benchmarks.suites import PARTS, PATHS, Case, EngineStep
from nembp.engine.likelihoods import Gaussian
from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError, DataError, OutputError, VerificationError

# windows that leave pixels over, rectangular kernels, a pooling, dense layers
MIXED = "9x8x2/conv4x4s2/conv5x2-3s2-1p0/pool2s1/6/3"


def test_estimators_are_compared_on_data_sets_from_files(tmp_path):
    x, y = np.arange(40.0).reshape(20, 2), np.repeat([0, 1], 10)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    X, labels = suites.SUITES["estimators"].check(f"npz:{tmp_path / 'own.npz'}")
    np.testing.assert_array_equal(X, x)
    np.testing.assert_array_equal(labels, y)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=x / 3, x_test=x, y_test=x / 3)
    with pytest.raises(DataError, match="has no classes"):
        suites.SUITES["estimators"].check(f"npz:{tmp_path / 'own.npz'}")
    for entry in ("mnist", "iris:x", "csv:", "nothing:x"):
        with pytest.raises(ArchitectureError, match=r"expected one of .*mnist:DIR"):
            suites.SUITES["estimators"].check(entry)


LAYERS = ("7x6x2/conv3x3s2", "8x9x3/conv4x5s2", "6x6x2/conv5x2-3s1-2p1-0")
CPU = get_backend("cpu")


@pytest.fixture
def bench():
    def run(*options, networks="7-6-5-3", suite="dense"):
        tiny = ("--suite", suite, "--networks", networks, "--batches", "4", "--repeats", "2")
        return command("bench", "--threads", "1", "--quick", *tiny, *options)

    return run


# -- the stopwatch, under a made-up clock ------------------------------------------------------
class FakeClock:
    """Time passes only inside steps."""

    def __init__(self, monkeypatch):
        self.now, self.log = 0.0, []
        monkeypatch.setattr(harness, "perf_counter", lambda: self.now)

    def step(self, name, *durations):
        """A step that takes the next of ``durations``, the last one for ever."""
        queue = list(durations)

        def step():
            self.log.append(name)
            self.now += queue.pop(0) if len(queue) > 1 else queue[0]

        return step

    def seconds(self, work):
        begin = self.now
        work()
        self.log.append("timed")
        return self.now - begin


def test_medians_and_quartiles_of_known_durations(monkeypatch):
    # 3 steps, 1 that sets the block (one step long), then rounds: 1 untimed, 1 timed
    durations = [100.0, 100.0, 100.0, 9.0, 77.0, 5.0, 77.0, 1.0, 77.0, 3.0, 77.0, 4.0, 77.0, 2.0]
    clock = FakeClock(monkeypatch)
    expected = {"median": 3.0, "lower": 2.0, "upper": 4.0, "least": 1.0, "rounds": 5, "steps": 1}
    found = harness.interleave({"slow": clock.step("slow", *durations)}, clock.seconds, repeats=5)
    assert found == {"slow": {**expected, "spread": pytest.approx(2 / 3)}}


def test_contenders_take_turns_in_changing_order(monkeypatch):
    clock = FakeClock(monkeypatch)
    steps = {name: clock.step(name, 1.0) for name in "abc"}
    harness.interleave(steps, clock.seconds, budget=84.0)  # set-up takes 12 s, a round 6 s
    log = clock.log[15:]  # set-up of each: 3 steps, 1 that is timed
    turns = [log[i : i + 3] for i in range(0, len(log), 3)]  # a step, one that is timed
    assert all(turn == [turn[0], turn[0], "timed"] for turn in turns)
    rounds = ["".join(turn[0] for turn in turns[i : i + 3]) for i in range(0, len(turns), 3)]
    assert len(rounds) == 13
    assert {"".join(sorted(order)) for order in rounds} == {"abc"}
    assert len(set(rounds)) > 1


def test_several_threads_sleep_before_a_turn_and_warm_up_in_it(monkeypatch):
    clock, pauses = FakeClock(monkeypatch), []
    monkeypatch.setattr(harness, "settle", lambda: pauses.append(clock.log.count("a")))
    monkeypatch.setattr(harness, "WARM_UP", 2.5)  # three steps
    harness.interleave({"a": clock.step("a", 1.0)}, clock.seconds, repeats=3, threads=2)
    assert pauses == [4, 8, 12]
    assert clock.log.count("a") == 16


# -- networks ----------------------------------------------------------------------------------
def test_every_suite_has_its_networks():
    assert set(suites.SUITES) == set(SUITES)
    for suite in suites.SUITES.values():
        for network in (*suite.defaults["networks"], *suite.quick.get("networks", ())):
            suite.check(network)


@pytest.mark.parametrize(
    ("suite", "texts"),
    [
        ("dense", ("784", "784-0-10", "9" * 5000 + "-2", "784--10", "784-x-10", "", "784-1",
                   "32x32x3/conv8x3/10")),
        ("convolution", ("32x32x3", "32x32/conv8x3/10", "784/10/x", "", "32x32x3/cnov8x3/10",
                         "32x32x3/conv8x3/1", "32x32x3/conv8x3/pool2", "8x8x3/up8x4/10",
                         "8x8x3/conv8x3bn/10", "8x8x3/conv8x30p0/10", "8x8x3/conv8x30p0",
                         "8x8x3/10/conv8x3/10", "784-10")),
    ],
)  # fmt: skip
def test_bad_networks_are_named(suite, texts):
    for text in texts:
        with pytest.raises(ArchitectureError) as caught:
            suites.SUITES[suite].check(text)
        assert str(caught.value).startswith(repr(text))


# -- the floor ---------------------------------------------------------------------------------
@given(
    sizes=st.lists(st.integers(2, 9), min_size=2, max_size=5),
    batch=st.integers(2, 9),
    path=st.sampled_from(sorted(PATHS.values())),
)
def test_the_floor_runs_the_engine_s_products(sizes, batch, path):
    net, counted = dense_network(sizes, device=type(CPU)()), []
    step = EngineStep(net, np.ones((batch, sizes[0])), np.arange(batch) % sizes[-1], path)
    gradient, backend = step.gradient(), net.backend
    multiply = backend.matmul

    def matmul(left, right, out):
        counted.append(math.prod((*left.shape, right.shape[1])))
        return multiply(left, right, out)

    backend.matmul = matmul
    run = products(backend, step.gradient)
    assert backend.matmul is matmul
    counted.clear()
    run()
    assert sum(counted) == multiply_adds(net.maps, batch, path)
    assert np.array_equal(step.gradient(), gradient)


def test_multiply_adds_are_those_of_the_definition():
    maps = Case(MIXED, 5, 1).start(CPU).maps
    # T of a linear map has as many terms as each of its contractions has multiply-adds: 9x8x2 by
    # windows of 4x4, stride 2, padding 1; then of 2x3, stride (2, 1); pooled; dense
    terms = [(4 * 4) * 16 * 2 * 4, (2 * 2) * 6 * 4 * 5, (1 * 1 * 5) * 6, 6 * 3]
    one = 5 * (3 * sum(terms) - terms[0])  # the error at the input is nobody's
    assert multiply_adds(maps, 5, "none") == one
    assert multiply_adds(maps, 5, "samples") == 2 * one + 5 * (terms[0] - terms[-1])


def test_adam_s_traffic_reaches_every_parameter():
    for threads in (1, 3):
        traffic = AdamTraffic(CPU, 1000, "float64", threads)
        traffic()
        *vectors, dots = zip(*traffic.pieces, strict=True)
        *moved, g = map(np.concatenate, vectors)
        assert all(np.array_equal(v, -g) for v in moved)
        assert sum(float(dot[0, 0]) for dot in dots) == 1000.0


# -- the peers do the same mathematics ---------------------------------------------------------
def start(text, dtype="float64"):
    case = Case(text, 11, 1, dtype)
    net = case.start(CPU)
    net.parameters[...] += np.random.default_rng(0).normal(0.0, 0.1, net.parameter_count)
    return net, *case.draw()


@pytest.mark.parametrize(
    ("suite", "text"),
    [
        ("dense", "12-9-8-5"), ("convolution", MIXED), ("adversarial", "3-5-4"),
        *(("convolution", layer) for layer in LAYERS),
    ],
)  # fmt: skip
def test_pytorch_s_results_are_ours(suite, text):
    pytest.importorskip("torch")
    row = suites.SUITES[suite].measure(Case(text, 11, 1, "float64"), CPU, repeats=1)
    assert len(row["agreement"]) == (1 if text in LAYERS else 2)
    assert max(row["agreement"].values()) < 1e-9


def test_pytorch_s_adam_is_ours():
    pytest.importorskip("torch")
    net, x, labels = start(MIXED)
    engine = EngineStep(net.copy(), x, labels, "samples", 0.01)
    torch = TorchStep(net, x, labels, bidirectional=True, learning_rate=0.01)
    for _ in range(4):
        engine()
        torch()
    moved = torch.net.vector(torch.net.tensors) - net.parameters
    assert np.max(np.abs(moved)) > 0.02  # Adam moves about its learning rate a step
    # Adam divides by a gradient's size: entries near zero move by their sign
    off = np.abs(engine.net.parameters - net.parameters - moved)
    assert np.mean(off > 1e-7 * np.max(np.abs(moved))) < 0.01


def test_scikit_learn_s_step_is_our_one_direction():
    net, x, labels = start("12-9-8-5")
    engine = EngineStep(net.copy(), x, labels, "none", 0.01)
    sklearn = SklearnStep(net, x, labels, learning_rate=0.01)
    begin = net.parameters[: len(sklearn.parameters())]
    np.testing.assert_array_equal(sklearn.parameters(), begin)
    del sklearn.model._optimizer  # else its moments hold the first step, from another start
    # it adds ε to √v before the bias correction, we after it
    sklearn.model.epsilon = engine.adam.epsilon = 1e-30
    for _ in range(6):
        engine()
        sklearn()
    assert np.max(np.abs(sklearn.parameters() - begin)) > 0.03
    ours = engine.net.parameters[: len(begin)]
    np.testing.assert_allclose(ours, sklearn.parameters(), rtol=0, atol=1e-10)


def test_peers_that_cannot_take_part_say_why(monkeypatch):
    net = dense_network([6, 5, 2], backward=Gaussian(variance=4.0))
    x, labels = np.ones((4, 6)), np.array([0, 1, 1, 0])
    with pytest.raises(MissingPeerError, match="one logistic output"):
        SklearnStep(net, x, labels, learning_rate=0.1)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it now raises ImportError
    with pytest.raises(MissingPeerError, match="not installed"):
        TorchStep(net, x, labels, bidirectional=True, learning_rate=0.1)


@pytest.mark.parametrize(
    ("suite", "networks", "kind", "method"),
    [
        ("convolution", LAYERS[0], TorchLayer, "results"),
        ("convolution", MIXED, TorchStep, "gradient"),
        ("adversarial", "3-5-4", TorchGan, "gradients"),
    ],
)
def test_disagreement_is_told_and_not_timed(suite, networks, kind, method, bench, monkeypatch):
    pytest.importorskip("torch")
    honest = getattr(kind, method)

    def wrong(self, *args):
        found = honest(self, *args)
        return [1.1 * array for array in found] if isinstance(found, list) else 1.1 * found

    monkeypatch.setattr(kind, method, wrong)
    monkeypatch.setattr(harness, "interleave", lambda *a, **k: pytest.fail("it was timed"))
    result = bench(suite=suite, networks=networks)
    assert isinstance(result.exception, VerificationError) or result.exit_code == 7
    assert "gradient" in str(result.exception) + result.output


def test_what_is_not_finite_does_not_agree():
    with pytest.raises(VerificationError, match="disagree on y"):
        harness.check_agreement("y", np.ones(3), np.ones(3) * np.nan)


# -- machine, memory, notes --------------------------------------------------------------------
def test_threads_are_set_for_every_library_and_restored():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads(), harness.threads_now()["blas"]
    for threads in (1, 2):
        with harness.threads_limited(threads):
            assert harness.threads_now() == {"blas": threads, "torch": threads}
    assert (torch.get_num_threads(), harness.threads_now()["blas"]) == before


def test_peak_memory_is_that_of_the_child():
    ballast = np.ones(50_000_000)  # 400 MB here must not count there
    peak = memory.peak_memory(1, "float32", "cpu", images=300)
    assert peak["steps"] == 3
    assert peak["start_bytes"] <= peak["bytes"] < ballast.nbytes
    line = report.memory_line(peak)
    assert "3 bidirectional steps" in line
    assert "unknown" in report.memory_line({**peak, "bytes": None})
    failed = memory.peak_memory(1, "float16", "cpu", images=10)
    assert "float16" in failed["failed"]
    assert "not measured" in report.memory_line(failed)


def test_a_system_that_does_not_tell_its_memory_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    monkeypatch.setattr("builtins.open", Mock(side_effect=FileNotFoundError))
    assert memory.resident_peak() is harness.meter() is harness.shares(None, None) is None


def test_other_load_is_noted_where_it_matters():
    assert harness.notes((1,), None) == []
    assert harness.notes((1,), 0.1, {"processes": 0.01, "host": 0.01}) == []
    (text,) = harness.notes((1,), 0.1, {"processes": 0.25, "host": 0.02})
    assert "25%" in text
    assert "2%" in text
    many = harness.usable_cores() + 1
    assert str(many) in harness.notes((1, many), 0.1)[0]
    assert "3.0" in harness.notes((1,), 3.0)[0]


# -- the command -------------------------------------------------------------------------------
def test_json_is_one_object_with_every_row(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    out = tmp_path / "new" / "bench.json"
    result = bench("--batches", "4,6", "--dtype", "float64", "--json", "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert json.loads(out.read_text()) == found
    assert {"date", "machine", "versions", "blas", "step", "taken_by_others"} <= set(found)
    assert found["environment"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert [(row["threads"], row["batch"]) for row in found["results"]] == [(1, 4), (1, 6)]
    for row in found["results"]:
        measured = {k: v["median"] for k, v in row["times"].items() if "median" in v}
        both, adam = measured["nembp/bidirectional"], measured["floor/adam_1"]
        floor = measured["floor/bidirectional_products"] + adam
        assert row["floor"]["bidirectional"] == floor
        assert row["ratios"]["bidirectional/floor"] == both / floor
        one = measured["nembp/one_direction"]
        assert row["ratios"]["bidirectional/one_direction"] == both / one
        assert row["adam_bytes"] == 7 * 8 * row["parameters"]
        assert row["threads_in_force"]["blas"] == 1


def test_json_has_layers_and_steps(bench):
    result = bench("--json", suite="convolution", networks=f"{LAYERS[0]},{MIXED}")
    assert result.exit_code == 0, result.output
    layer, step = json.loads(result.stdout)["results"]
    assert (layer["kind"], layer["output_shape"], step["kind"]) == ("layer", [4, 3, 3], "step")
    assert layer["multiply_adds"] == 3 * 4 * 12 * 18 * 3
    times = layer["times"]
    assert layer["rate"] == layer["multiply_adds"] / times["nembp"]["median"]
    assert layer["ratios"]["nembp/floor"] == times["nembp"]["median"] / times["floor"]["median"]


def test_json_and_table_of_parts(bench):
    (row,) = json.loads(bench("--json", suite="parts").stdout)["results"]
    for name, variant in row["variants"].items():
        assert list(variant["shares"]) == [*PARTS, "others"]
        assert sum(variant["shares"].values()) == pytest.approx(1.0)
        assert (variant["parts"]["noise"] > 0) == ("noise" in name)
    assert "both, noise" in bench(suite="parts").stdout


def test_tables_without_pytorch_say_so_and_the_rest_runs(bench, monkeypatch):
    def missing(*args, **options):
        raise MissingPeerError("not installed")

    for kind in (TorchStep, TorchLayer):
        monkeypatch.setattr(kind, "__init__", missing)
    lines = bench().stdout.splitlines()
    assert lines[0].startswith("nembp bench: suite dense, float32, cpu")
    row = " ".join(line for line in lines if line.split()[:2] == ["1", "4"])
    assert row.count("not installed") == 2
    assert row.count("us") + row.count("ms") == 4
    result = bench(suite="convolution", networks=f"{LAYERS[0]},{MIXED}")
    lines += result.stdout.splitlines()
    layer = next(line for line in lines if line.strip().startswith(LAYERS[0]))
    assert "not installed" in layer
    assert max(map(len, lines)) <= 100


def test_committed_results_can_be_shown():
    for file in (Path(__file__).parent / "benchmarks" / "results").glob("*.json"):
        assert "torch both / both" in report.render(json.loads(file.read_text())).replace("\n", " ")


def test_bad_options_are_usage_errors_that_name_the_entry(monkeypatch):
    monkeypatch.setattr(suites, "run", lambda *a, **k: pytest.fail("it ran"))
    for option, value, named in (
        ("--networks", "784-10,784-x", "'784-x'"),
        ("--networks", "784-10,", "empty"),
        ("--batches", "32,0", "'0'"),
        ("--batches", "9" * 5000, "no whole number"),
        ("--threads", "1,two", "'two'"),
    ):
        result = command("bench", option, value)
        assert (result.exit_code, result.stdout) == (2, "")
        assert named in result.stderr


def test_files_that_cannot_be_written_do_not_take_the_timings(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "run", lambda *a, **k: pytest.fail("it ran"))
    (tmp_path / "file").write_text("")
    result = command("bench", "--out", tmp_path / "file" / "bench.json")
    assert result.exit_code == 6 or isinstance(result.exception, OutputError)
    out = tmp_path / "bench.json"

    def run(*args, **options):  # by the end of the run the path has become a folder
        out.mkdir()
        return {"suite": "dense", "results": []}

    monkeypatch.setattr(suites, "run", run)
    result = command("bench", "--json", "--out", out)
    assert result.exit_code == 6 or isinstance(result.exception, OutputError)
    assert json.loads(result.stdout) == {"suite": "dense", "results": []}


def test_help_needs_neither_numpy_nor_the_peers():
    heavy = "{'numpy', 'torch', 'sklearn'} & set(sys.modules)"
    code = f"import sys, nembp_cli.bench; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)
