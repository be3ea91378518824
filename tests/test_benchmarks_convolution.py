"""The convolution suite: notation, floor, the peers' mathematics, agreement, the command."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import sys
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nembp.backend import NumpyBackend, get_backend
from nembp.benchmarks import agreement, contractions, environment, steps
from nembp.benchmarks.cases import ImageCase
from nembp.benchmarks.contractions import EngineLayer, TorchLayer
from nembp.benchmarks.convolution import check_network
from nembp.benchmarks.floor import Products, multiply_adds, product_shapes
from nembp.benchmarks.notation import convolution_of, parse_images
from nembp.benchmarks.peers import TorchStep
from nembp.benchmarks.steps import EngineStep
from nembp.benchmarks.window_products import WindowProducts
from nembp.engine.convolution import Convolution
from nembp.errors import ArchitectureError, VerificationError

CLI = "nembp_cli.bench" if importlib.util.find_spec("nembp_cli") else "cli.bench"
bench = importlib.import_module(CLI).bench
# windows that leave pixels over, rectangular kernels, a pooling, dense layers
MIXED = "9x8x2/conv4x4s2/conv5x2-3s2-1p0/pool2s1/6/3"
LAYERS = ("7x6x2/conv3x3s2", "8x9x3/conv4x5s2", "6x6x2/conv5x2-3s1-2p1-0")


# -- notation ----------------------------------------------------------------------------------
def test_networks_of_images_and_layers_are_told_apart():
    shape, items = parse_images(MIXED)
    assert shape == (9, 8, 2)
    assert [str(item) for item in items] == ["conv4x4s2", "conv5x2-3s2-1p0", "pool2s1", "6", "3"]
    assert convolution_of(MIXED) is None
    assert convolution_of("7x6x2/conv3x3s2") == Convolution((7, 6, 2), 3, (3, 3), (2, 2), (1, 1))


@pytest.mark.parametrize(
    "text",
    [
        "32x32x3",
        "32x32/conv8x3/10",
        "784/10/x",
        "32x32x3/cnov8x3/10",
        "32x32x3/conv8x3/1",
        "32x32x3/conv8x3/pool2",
        "32x32x3/pool2",
        "8x8x3/up8x4/10",
        "8x8x3/conv8x30p0/10",
        "8x8x3/conv8x30p0",
        "0x8x3/10",
        "8x8x3/10/conv8x3/10",
        "",
    ],
)
def test_bad_networks_are_named(text):
    with pytest.raises(ArchitectureError) as caught:
        check_network(text)
    assert str(caught.value).startswith(repr(text))


# -- the floor ---------------------------------------------------------------------------------
class Recorder(NumpyBackend):
    """Keeps the shape of every product."""

    def __init__(self):
        super().__init__()
        self.products = []

    def matmul(self, left, right, out):
        self.products.append((*left.shape, right.shape[1]))
        return super().matmul(left, right, out)


def _count(path, text=MIXED, batch=5, block=None):
    recorder = Recorder()
    maps = ImageCase(text, batch, 1).start(recorder).maps
    Products(recorder, maps, batch, path, "float32", block)()
    return maps, recorder.products


@pytest.mark.parametrize("path", ["none", "samples", "classes"])
def test_floor_runs_the_products_of_the_definition(path):
    maps, products = _count(path)
    assert products == product_shapes(maps, 5, path)
    _, in_blocks = _count(path, block=1)  # the windows of one image at a time
    assert len(in_blocks) > len(products)
    total = sum(math.prod(shape) for shape in products)
    assert sum(math.prod(shape) for shape in in_blocks) == total
    assert multiply_adds(maps, 5, path) == total


def test_multiply_adds_are_the_terms_of_the_trilinear_form():
    """T of a linear map has as many terms as each of its contractions has multiply-adds."""
    terms = []
    lower = (9, 8, 2)
    for channels, kernel, stride, padding in (
        (4, (4, 4), (2, 2), (1, 1)),
        (5, (2, 3), (2, 1), (0, 0)),
    ):
        starts = [
            [i for i in range(-p, n + p, s) if i + k <= n + p]
            for n, k, s, p in zip(lower[:2], kernel, stride, padding, strict=True)
        ]
        windows = len(starts[0]) * len(starts[1])
        terms.append(windows * math.prod(kernel) * lower[2] * channels)
        lower = (len(starts[0]), len(starts[1]), channels)
    pooled = (lower[0] - 1) * (lower[1] - 1) * 5
    terms += [pooled * 6, 6 * 3]
    maps = ImageCase(MIXED, 7, 1).start(get_backend("cpu")).maps
    one = 7 * (3 * sum(terms) - terms[0])  # the error at the input is nobody's
    assert multiply_adds(maps, 7, "none") == one
    assert multiply_adds(maps, 7, "samples") == 2 * one + 7 * (terms[0] - terms[-1])


@given(batch=st.integers(1, 7), block=st.sampled_from([None, 1, 25_000, 40_000, 10**9]))
def test_a_layer_s_floor_covers_every_window_three_times(batch, block):
    linear_map = convolution_of("8x9x3/conv4x5s2")
    recorder = Recorder()
    products = WindowProducts(recorder, linear_map, batch, "float64", block)
    x, y = np.ones((batch, linear_map.inputs)), np.ones((batch, linear_map.outputs))
    contractions._all_three(products, x, y)
    assert sum(math.prod(shape) for shape in recorder.products) == 3 * batch * 4 * 5 * 75 * 4
    rows = max(1, (block or 10**9) // (20 * 75 * 8))
    assert len(recorder.products) == 3 * -(-batch // rows)


# -- PyTorch does the same mathematics ---------------------------------------------------------
def _start(dtype):
    case = ImageCase(MIXED, 11, 1, dtype)
    net = case.start(get_backend("cpu"))
    draw = np.random.default_rng(0)
    net.parameters[...] += draw.normal(0.0, 0.1, net.parameter_count)  # the biases too
    return net, *case.draw()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
@pytest.mark.parametrize("path", ["classes", "samples", "none"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_pytorch_s_step_is_ours(path, channels_last, dtype, tolerance):
    pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    net, x, labels = _start(dtype)
    engine = EngineStep(net.copy(), x, labels, path, 0.01)
    given = {"bidirectional": path != "none", "channels_last": channels_last}
    torch = TorchStep(net, x, labels, learning_rate=0.01, **given)
    theirs = torch.gradient()
    ours = engine.gradient()[: len(theirs)]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.max(np.abs(theirs)))
    for _ in range(4):
        engine()
        torch()
    start = net.backend.to_numpy(net.parameters)[: len(theirs)]
    moved = torch.parameters() - start
    assert np.max(np.abs(moved)) > 0.02  # Adam moves about its learning rate a step
    # Adam divides by a gradient's size: entries near zero move by their sign
    ours = engine.net.parameters[: len(theirs)] - start
    bound = 100 * tolerance * np.max(np.abs(moved))
    assert np.mean(np.abs(ours - moved) > bound) < 0.01


@pytest.mark.parametrize("text", LAYERS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_pytorch_s_layer_is_ours(text, channels_last):
    pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    linear_map, draw = convolution_of(text), np.random.default_rng(1)
    x, y, W = (
        draw.normal(size=size)
        for size in ((4, linear_map.inputs), (4, linear_map.outputs), linear_map.weight_shape)
    )
    engine = EngineLayer(linear_map, get_backend("cpu"), x, y, W, "float64")
    torch = TorchLayer(linear_map, get_backend("cpu"), x, y, W, "float64", channels_last)
    engine()
    torch()
    for ours, theirs in zip(engine.results(), torch.results(), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.max(np.abs(theirs)))


def test_a_layer_s_rows_are_shared_among_threads_while_blas_keeps_to_one():
    seen = set()

    class Watching(NumpyBackend):
        def matmul(self, left, right, out):
            seen.add((threading.get_ident(), environment.threads_now()["blas"]))
            return super().matmul(left, right, out)

    with environment.threads_limited(2):
        linear_map, backend = convolution_of("16x16x8/conv8x4s2"), Watching()
        x, y = np.ones((64, linear_map.inputs)), np.ones((64, linear_map.outputs))
        EngineLayer(linear_map, backend, x, y, np.ones(linear_map.weight_shape), "float32")()
        assert len(seen) >= 2  # whichever threads of the pool were free
        assert {threads for _, threads in seen} == {1}
        assert environment.threads_now()["blas"] == 2


def test_disagreement_is_told_and_not_timed(monkeypatch):
    pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    for module in (steps, contractions):
        monkeypatch.setattr(module, "interleave", lambda *a, **k: pytest.fail("it was timed"))
    honest_layer, honest_step = TorchLayer.results, TorchStep.gradient
    monkeypatch.setattr(
        TorchLayer, "results", lambda self: [array * 1.01 for array in honest_layer(self)]
    )
    monkeypatch.setattr(TorchStep, "gradient", lambda self: honest_step(self) * 1.01)
    for text, what in ((LAYERS[0], "the output of"), (MIXED, "bidirectional gradient of")):
        result = CliRunner().invoke(bench, _options(text))
        assert isinstance(result.exception, VerificationError)
        assert result.exception.exit_code == 7
        assert what in str(result.exception)
        assert text in str(result.exception)


def test_agreement_is_relative_and_refuses_what_is_not_finite():
    ones = np.ones(3)
    assert agreement.check_agreement("y", 4 * ones, 4 * ones + 1e-8) == pytest.approx(2.5e-9)
    for wrong in (ones + 1e-5, ones * np.nan, -ones):
        with pytest.raises(VerificationError, match="disagree on y"):
            agreement.check_agreement("y", ones, wrong)


# -- the command -------------------------------------------------------------------------------
def _options(networks, *more):
    return [
        *("--suite", "convolution", "--networks", networks, "--batches", "4"),
        *("--threads", "1", "--repeats", "2", *more),
    ]


def test_json_has_layers_and_steps():
    result = CliRunner().invoke(bench, _options(f"{LAYERS[0]},{MIXED}", "--json"))
    assert result.exit_code == 0, result.output
    layer, step = json.loads(result.stdout)["results"]
    assert (layer["kind"], layer["network"], step["kind"]) == ("layer", LAYERS[0], "step")
    assert layer["output_shape"] == [4, 3, 3]
    assert layer["multiply_adds"] == 3 * 4 * 12 * 18 * 3
    times = layer["times"]
    assert layer["rate"] == layer["multiply_adds"] / times["nembp"]["median"]
    floors = [times[f"floor as {how}"]["median"] for how in ("at once", "in blocks")]
    assert times["floor"]["median"] == min(floors)
    assert layer["ratios"]["nembp/floor"] == times["nembp"]["median"] / min(floors)
    adam = step["times"]["floor/adam_1"]["median"]
    products = [v["median"] for k, v in step["times"].items() if k.startswith("floor/bid")]
    assert len(products) == 2
    assert step["floor"]["bidirectional"] == min(products) + adam
    assert "sklearn/one_direction" not in step["times"]
    if "missing" in times["torch"]:
        return
    for found, name in ((times, "torch"), (step["times"], "torch/bidirectional")):
        layouts = {how: found[f"{name} as {how}"]["median"] for how in ("N C H W", "N H W C")}
        assert found[name]["median"] == min(layouts.values())
        assert layouts[found[name]["layout"]] == min(layouts.values())
    assert layer["ratios"]["nembp/torch"] == times["nembp"]["median"] / times["torch"]["median"]
    assert len(layer["agreement"]) == 2
    assert len(step["agreement"]) == 4


def test_table_without_pytorch_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(bench, _options(f"{LAYERS[0]},{MIXED}"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 110
    layer = next(line for line in lines if line.strip().startswith(LAYERS[0]))
    assert "not installed" in layer
    assert layer.split()[1:3] == ["1", "4"]
    rows = [line for line in lines if line.split()[:2] == ["1", "4"]]
    assert len(rows) == 2
    assert rows[0].count("not installed") == 2
    assert any(line.startswith(f"{MIXED}, ") for line in lines)


def test_a_network_that_does_not_fit_is_a_usage_error(monkeypatch):
    monkeypatch.setattr(steps, "interleave", lambda *a, **k: pytest.fail("it ran"))
    result = CliRunner().invoke(bench, _options("8x8x3/conv8x30p0/10"))
    assert result.exit_code == 2
    assert "'8x8x3/conv8x30p0/10'" in result.stderr
    assert "--networks" in result.stderr
