"""nembp bench: the timer under a made-up clock, the peers' mathematics, the floor, the command."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nembp.backend import NumpyBackend, get_backend
from nembp.backpropagation import JointBackpropagation
from nembp.benchmarks import SUITES, Settings, dense, environment, get_suite, memory, report, runner
from nembp.benchmarks.cases import Case, parse_network, synthetic_batch
from nembp.benchmarks.dense import EngineStep
from nembp.benchmarks.floor import AdamTraffic, Products, adam_bytes, multiply_adds, product_shapes
from nembp.benchmarks.peers import MissingPeerError, SklearnStep, TorchStep
from nembp.benchmarks.timing import Contender, Timing, interleave
from nembp.errors import ArchitectureError, DeviceError, OutputError
from nembp.likelihoods import Gaussian
from nembp.network import dense_network

CLI = "nembp_cli.bench" if importlib.util.find_spec("nembp_cli") else "cli.bench"
bench = importlib.import_module(CLI).bench
TINY = ["--networks", "7-6-5-3", "--batches", "4", "--threads", "1", "--repeats", "2"]


# -- timing ------------------------------------------------------------------------------------
class FakeClock:
    """Time passes only inside steps."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def contender(self, name, durations):
        """A step that takes the next of ``durations`` (the last one for ever)."""
        queue = list(durations)

        def step():
            self.log.append(name)
            self.now += queue.pop(0) if len(queue) > 1 else queue[0]

        return Contender(step, lambda: self.log.append(f"{name} done"))


def test_medians_and_quartiles_of_known_durations():
    clock = FakeClock()
    # 3 warm-up steps, 1 that sets the block (one step long), then a round: 1 untimed, 1 timed
    timed = [5.0, 1.0, 3.0, 4.0, 2.0]
    durations = [100.0, 100.0, 100.0, 9.0]
    for seconds in timed:
        durations += [77.0, seconds]
    slow = interleave({"slow": clock.contender("slow", durations)}, repeats=5, clock=clock)
    assert slow == {"slow": Timing(median=3.0, lower=2.0, upper=4.0, least=1.0, rounds=5, steps=1)}
    assert slow["slow"].spread == pytest.approx(2 / 3)


def test_blocks_hold_about_ten_milliseconds_and_their_mean_counts():
    clock = FakeClock()
    names = {"fast": 1e-4, "slow": 0.5, "instant": 0.0}
    contenders = {name: clock.contender(name, [seconds]) for name, seconds in names.items()}
    timings = interleave(contenders, repeats=2, clock=clock)
    assert {name: timing.steps for name, timing in timings.items()} == {
        "fast": 100,
        "slow": 1,
        "instant": 200,
    }
    for name, seconds in names.items():
        assert timings[name].median == pytest.approx(seconds)


def test_contenders_take_turns_in_changing_order_and_are_waited_for():
    clock = FakeClock()
    contenders = {name: clock.contender(name, [1.0]) for name in "abc"}
    interleave(contenders, repeats=12, clock=clock)
    # set-up of a contender: 3 steps and a wait, 1 step and a wait; then step and wait by turns
    names, waits = clock.log[18::2], clock.log[19::2]
    assert waits == [f"{name} done" for name in names]
    rounds = [tuple(names[i : i + 6]) for i in range(0, len(names), 6)]
    assert len(rounds) == 12
    assert all(order[::2] == order[1::2] for order in rounds)  # one untimed, one timed
    assert all(sorted(order[::2]) == list("abc") for order in rounds)
    assert len(set(rounds)) > 1


@pytest.mark.parametrize(("budget", "rounds"), [(0.0, 3), (40.0, 5), (1e9, 25)])
def test_rounds_fill_the_budget(budget, rounds):
    clock = FakeClock()
    contenders = {name: clock.contender(name, [1.0]) for name in "abc"}
    # set-up takes 12 s, a round 6 s
    timings = interleave(contenders, budget=budget, clock=clock)
    assert {timing.rounds for timing in timings.values()} == {rounds}


# -- the floor ---------------------------------------------------------------------------------
class Recorder(NumpyBackend):
    """Keeps shape and layout of every product that is not a sum by a row or column of ones."""

    def __init__(self):
        super().__init__()
        self.products = []

    def matmul(self, left, right, out):
        (m, k), n = left.shape, right.shape[1]
        if m > 1 and n > 1:
            layout = tuple(array.flags.c_contiguous for array in (left, right, out))
            self.products.append(((m, k, n), layout))
        return super().matmul(left, right, out)


sizes_strategy = st.lists(st.integers(2, 9), min_size=2, max_size=5)


@given(
    sizes=sizes_strategy,
    batch=st.integers(2, 9),
    path=st.sampled_from(sorted(dense.PATHS.values())),
)
def test_floor_runs_the_engine_s_products(sizes, batch, path):
    engine = Recorder()
    net = dense_network(sizes, device=engine)
    joint = JointBackpropagation(net, batch, path=path)
    joint.x[...] = 0.5
    joint.t[...] = np.eye(sizes[-1])[np.arange(batch) % sizes[-1]]
    joint(net.backend.zeros((net.parameter_count,), net.dtype))
    floor = Recorder()
    Products(floor, sizes, batch, path, "float32")()
    assert [shape for shape, _ in floor.products] == product_shapes(sizes, batch, path)
    assert sorted(floor.products) == sorted(engine.products)


@given(sizes=sizes_strategy, batch=st.integers(1, 9))
def test_multiply_adds_by_formula(sizes, batch):
    weights = sum(m * n for m, n in pairwise(sizes))
    first, last = sizes[0] * sizes[1], sizes[-2] * sizes[-1]
    one = batch * (3 * weights - first)
    assert multiply_adds(sizes, batch, "none") == one
    # each direction needs three products a weight, less the error that no one wants
    assert multiply_adds(sizes, batch, "samples") == 2 * one + batch * (first - last)
    classes = -(-sizes[-1] // 4) * 4
    backward = classes * (3 * weights - last) + sizes[-1] * batch * sizes[0]
    assert multiply_adds(sizes, batch, "classes") == one + backward


@pytest.mark.parametrize("threads", [1, 3])
def test_adam_s_traffic_reaches_every_parameter(threads):
    traffic = AdamTraffic(get_backend("cpu"), 1000, "float64", threads)
    traffic()
    for name, vectors in zip(("θ", "M", "V"), zip(*traffic._pieces, strict=True), strict=False):
        whole = np.concatenate(vectors)
        assert whole.shape == (1000,), name
        assert np.all(whole == -1.0), name
    assert sum(float(dot[0, 0]) for dot in traffic._dots) == 1000.0
    assert adam_bytes(1000, "float64") == 7 * 8 * 1000


# -- the peers do the same mathematics -------------------------------------------------------
def _start(dtype):
    net = dense_network([12, 9, 8, 5], backward=Gaussian(variance=4.0), dtype=dtype, seed=3)
    draw = np.random.default_rng(0)
    net.parameters[...] += draw.normal(0.0, 0.1, net.parameter_count)  # the biases too
    x, labels = draw.random((11, 12)), draw.integers(0, 5, 11)
    return net, x, labels


def _moved(step_parameters, net):
    """Parameters after the peer's and the engine's steps, less the start."""
    start = net.backend.to_numpy(net.parameters)
    return step_parameters - start[: len(step_parameters)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-3)])
@pytest.mark.parametrize("path", ["classes", "samples", "none"])
def test_pytorch_s_step_is_ours(path, dtype, tolerance):
    pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    net, x, labels = _start(dtype)
    engine = EngineStep(net.copy(), x, labels, path, 0.01)
    torch = TorchStep(net, x, labels, bidirectional=path != "none", learning_rate=0.01)
    for _ in range(6):
        engine()
        torch()
    theirs = _moved(torch.parameters(), net)
    ours = _moved(engine.net.parameters[: len(theirs)], net)
    assert np.max(np.abs(theirs)) > 0.03  # Adam moves about its learning rate a step
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.max(np.abs(theirs)))


def test_pytorch_s_objective_is_the_joint_likelihood():
    pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    net, x, labels = _start("float64")
    torch = TorchStep(net, x, labels, bidirectional=True, learning_rate=0.01)
    joint = JointBackpropagation(net, len(labels))
    joint.x[...], joint.t[...] = x, np.eye(5)[labels]
    joint(net.backend.zeros((net.parameter_count,), "float64"))
    constant = 0.5 * net.inputs * np.log(2 * np.pi * 4.0)
    ours = joint.forward_nll[0, 0] + joint.backward_nll[0, 0] - constant
    assert torch.objective().item() == pytest.approx(ours, rel=1e-12)


def test_scikit_learn_s_step_is_our_one_direction():
    net, x, labels = _start("float64")
    engine = EngineStep(net.copy(), x, labels, "none", 0.01)
    sklearn = SklearnStep(net, x, labels, learning_rate=0.01)
    np.testing.assert_array_equal(_moved(sklearn.parameters(), net), 0.0)
    del sklearn.model._optimizer  # else its moments hold the first step, from another start
    # it adds ε to √v before the bias correction, we after it
    sklearn.model.epsilon = engine._adam.epsilon = 1e-30
    for _ in range(6):
        engine()
        sklearn()
    theirs = _moved(sklearn.parameters(), net)
    assert np.max(np.abs(theirs)) > 0.03
    ours = _moved(engine.net.parameters[: len(theirs)], net)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_peers_that_cannot_take_part_say_why(monkeypatch):
    net = dense_network([6, 5, 2])
    x, labels = np.ones((4, 6)), np.array([0, 1, 1, 0])
    with pytest.raises(MissingPeerError, match="one logistic output"):
        SklearnStep(net, x, labels, learning_rate=0.1)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it now raises ImportError
    with pytest.raises(MissingPeerError, match="not installed"):
        TorchStep(net, x, labels, bidirectional=True, learning_rate=0.1)


def test_synthetic_batch_has_every_class_and_mnist_s_share_of_light():
    x, labels = synthetic_batch(Case((784, 10), 100, 1))
    assert x.dtype == np.float32
    assert sorted(labels) == sorted([*range(10)] * 10)
    assert np.mean(x > 0) == pytest.approx(0.19, abs=0.01)  # 78400 draws: 7 standard deviations


# -- threads, environment, memory --------------------------------------------------------------
def test_threads_are_set_for_every_library_and_restored(monkeypatch):
    torch = pytest.importorskip("torch", reason="CI installs torch")
    before, blas_before = torch.get_num_threads(), environment.threads_now()["blas"]
    told, tell = [], torch.set_num_threads  # PyTorch's own MKL obeys nothing else
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (told.append(n), tell(n)))
    for threads in (1, 2):
        with environment.threads_limited(threads):
            assert environment.threads_now() == {"blas": threads, "torch": threads}
            assert {library["threads"] for library in environment.blas_libraries()} == {threads}
    assert told == [1, before, 2, before]
    assert torch.get_num_threads() == before
    assert environment.threads_now()["blas"] == blas_before


def test_pinning_variables_and_core_type_are_reported(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HARMLESS", "1")
    found = environment.conditions()["environment"]
    assert found["OPENBLAS_CORETYPE"] == "Haswell"
    assert found["OMP_NUM_THREADS"] == "3"
    assert "HARMLESS" not in found
    described = environment.describe(get_backend("cpu"))
    assert described["versions"]["numpy"] == np.__version__
    assert described["blas"]
    assert all({"library", "core_type", "threads"} <= set(entry) for entry in described["blas"])


def test_peak_memory_is_that_of_the_child():
    ballast = np.ones(50_000_000, dtype=np.float64)  # 400 MB here must not count there
    peak = memory.peak_memory(threads=1, dtype="float32", device="cpu", images=300)
    assert peak["steps"] == 3
    assert peak["start_bytes"] <= peak["bytes"] < ballast.nbytes
    assert peak["image_bytes"] == 300 * 784
    line = report.memory_line(peak)
    assert line.startswith("peak memory: ")
    assert "3 bidirectional steps" in line


def test_peak_memory_grows_with_the_data():
    few, many = (
        memory.peak_memory(threads=1, dtype="float32", device="cpu", images=images)["bytes"]
        for images in (128, 20_128)
    )
    assert many - few > 0.9 * 20_000 * 784


def test_a_failed_memory_run_says_why():
    peak = memory.peak_memory(threads=1, dtype="float16", device="cpu", images=10)
    assert "float16" in peak["failed"]
    assert "not measured" in report.memory_line(peak)


# -- the registry ------------------------------------------------------------------------------
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
    monkeypatch.setattr(dense, "PAUSE", 0.0)
    out = tmp_path / "new" / "bench.json"
    options = ["--networks", "7-6-5-3,9-3", "--batches", "4,6", "--threads", "1,2"]
    result = _run(*options, "--repeats", 2, "--dtype", "float64", "--json", "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert json.loads(out.read_text()) == found
    assert "threads=" not in result.stdout
    assert "threads': 2, 'dtype': 'float64', 'device': 'cpu'" in found["peak_memory"]["failed"]
    rows = [(row["network"], row["threads"], row["batch"]) for row in found["results"]]
    assert rows == [(n, t, b) for n in ("7-6-5-3", "9-3") for t in (1, 2) for b in (4, 6)]
    assert result.stderr.count("a bidirectional step") == len(rows)
    assert {"date", "machine", "versions", "blas", "environment", "step"} <= set(found)
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
        counts = row["multiply_adds"]
        assert counts["nembp/bidirectional"] == multiply_adds(sizes, row["batch"], "classes")
        assert counts["nembp/one_direction"] == multiply_adds(sizes, row["batch"], "none")
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
    assert report.duration(seconds) == text
