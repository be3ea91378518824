"""`nembp bench --device gpu`: what it measures, on a GPU or on the stand-in for one."""

from __future__ import annotations

import importlib.util
import json
from functools import partial

import fake_cupy
import pytest
from command_line import run
from devices import REAL, gpu, needs_kernels

from nembp.benchmarks import floor
from nembp.benchmarks.floor import least_seconds, measure_card
from nembp.benchmarks.peers import MissingPeerError, TorchStep
from nembp.benchmarks.suites import Case, EngineStep
from nembp.engine.network import dense_network

pytestmark = needs_kernels
SMALL = {"size": 64, "length": 1 << 12}


@pytest.fixture(autouse=True)
def device(monkeypatch):
    monkeypatch.setattr(floor, "measure_card", partial(measure_card, **SMALL))
    return None if REAL else fake_cupy.install(monkeypatch)


def bench(tmp_path, *options):
    """Return what a tiny bench prints, and its report."""
    tiny = ("--threads", "1", "--repeats", "2", "--out", tmp_path / "a.json")
    result = run("bench", "--quick", *options, *tiny)
    assert result.exit_code == 0, result.output
    return result.stdout, json.loads((tmp_path / "a.json").read_text())


@pytest.mark.parametrize("suite", ["dense", "convolution"])
def test_bench(suite, tmp_path):
    networks = {"dense": "20-16-12-5", "convolution": "8x8x1/conv4x3s2/10,8x8x1/conv4x3"}[suite]
    options = ("--suite", suite, "--networks", networks, "--device", "gpu", "--batches", "16")
    printed, report = bench(tmp_path, *options)
    assert "/ floor" in printed
    assert report["settings"]["precision"] == "float32"
    step = report["results"][0]
    assert (step["kind"], step["captured"]) == ("gpu step", True)
    for name in ("bidirectional", "one_direction"):
        for who in ("nembp", "nembp call by call", "products"):
            assert step["times"][f"{who}/{name}"]["median"] > 0
    if not REAL:
        assert step["times"]["torch/bidirectional"]["missing"] in ("no CUDA", "not installed")
    work = step["multiply_adds"]["nembp/bidirectional"]
    least = least_seconds(step["card"], work, step["bytes"])
    assert step["floor"]["bidirectional"] == least
    ratio = step["times"]["nembp/bidirectional"]["median"] / least
    assert step["ratios"]["bidirectional/floor"] == pytest.approx(ratio)


@pytest.mark.parametrize("path", ["classes", "samples", "none"])
def test_the_captured_step_makes_steps(path):
    case = Case("20-16-12-5", 12, 1)
    step = EngineStep(case.start(gpu()), *case.draw(), path, 1e-3, captured=True)
    assert step.graph.launches
    before = step.gradient()
    for _ in range(3):
        step()
    assert 0 < abs(step.gradient() - before).max() < 0.1


def test_the_card_is_measured_by_the_devices_clock(monkeypatch):
    times = iter([9.0, 2.0, 2.0, 2.0, 2.0, 2.0, 9.0, 4.0, 4.0, 4.0, 4.0, 4.0])
    backend = dense_network([2, 2]).backend
    monkeypatch.setattr(type(backend), "seconds", lambda self, work: work() is None or next(times))
    found = measure_card.__wrapped__(backend, "float32", 10, 100)
    assert found == {"bandwidth": 800 / 4.0, "rate": 1000 / 2.0}


@pytest.mark.parametrize("on", ["cpu", "gpu"])
def test_adversarial_suite(on, tmp_path):
    options = ("--suite", "adversarial", "--device", on, "--networks", "5-9-12", "--batches", "6")
    printed, report = bench(tmp_path, *options)
    assert "  both" in printed
    (step,) = report["results"]
    for name in ("one_direction", "bidirectional"):
        assert step["times"][f"nembp/{name}"]["median"] > 0
    assert list(step["floor"]) == ["one_direction"] * (on == "gpu")
    assert (step["captured"], step["why_not_captured"]) == (on == "gpu", None)
    if on == "cpu" and importlib.util.find_spec("torch"):
        assert max(step["agreement"].values()) < 1e-4
        assert step["times"]["torch graph/one_direction"] == {"missing": "GPU only"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch about itself
def test_the_compiled_peer_makes_the_steps_of_the_eager_one(monkeypatch):
    """Its code is run here without the compiler, which takes half a minute."""
    torch = pytest.importorskip("torch")
    modes = []
    monkeypatch.setattr(torch, "compile", lambda f, mode: modes.append(mode) or f)
    case = Case("20-16-12-5", 12, 1, "float64")
    net = case.start(dense_network([2, 2]).backend)
    options = {"bidirectional": True, "learning_rate": 1e-3}
    compiled, eager = (
        TorchStep(net, *case.draw(), **options, mode=mode) for mode in ("compiled", "eager")
    )
    assert modes == ["reduce-overhead"] * 2
    for _ in range(3):  # the compiled one has made its own three
        eager()
    moved = [step.net.vector(step.net.tensors) for step in (compiled, eager)]
    assert abs(moved[0] - moved[1]).max() < 1e-9  # its rate is a float32
    with pytest.raises(MissingPeerError, match="GPU only"):
        TorchStep(net, *case.draw(), **options, mode="graph")
    monkeypatch.setattr(torch, "compile", lambda f, mode: 1 // 0)
    with pytest.raises(MissingPeerError, match="not compiled: integer division"):
        TorchStep(net, *case.draw(), **options, mode="compiled")
