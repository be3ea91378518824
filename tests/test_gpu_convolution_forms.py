"""Which form a convolution takes on a GPU, and links and steps of either one."""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest
from devices import REAL, gpu, needs_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from near import assert_near
from strategies import seeds
from test_gpu_convolution import CASES, CPU, by_numpy, convolutions, each_dtype, numbers, operands

from nembp.architecture import network
from nembp.backend import CupyBackend
from nembp.backend.implicit import CONTRACTIONS
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.convolution import (
    Convolution,
    FormTimes,
    ImplicitLink,
    WindowsLink,
    estimated_seconds,
    implicit_contractions,
    link_by_definition,
    time_forms,
)
from nembp.engine.likelihoods import Gaussian
from nembp.errors import ArchitectureError
from nembp.verification.laws import check
from nembp.verification.laws.links import links

pytestmark = needs_kernels


# -- the link, and steps ---------------------------------------------------------------------------
@each_dtype
@settings(max_examples=4)
@given(linear_map=convolutions(), rows=st.integers(1, 4), seed=seeds)
def test_links_are_their_linear_map(dtype, linear_map, rows, seed):
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    check(links(linear_map, rows, seed, gpu(), dtype), tolerance)


def gradient(device: Any, form: str, path: str, monkeypatch: Any) -> tuple[np.ndarray, set[str]]:
    if device is not CPU:
        monkeypatch.setattr(device, "convolution", form)
    net = network(
        (8, 8, 3), ("conv12x4s2", "conv8x3", "pool2", 6), 5, activation="tanh",
        backward=Gaussian(10.0), device=device, dtype="float64", seed=1,
    )  # fmt: skip
    generator = np.random.default_rng(2)
    joint = JointBackpropagation(net, 7, path=path)
    joint.x[...] = device.asarray(generator.normal(size=(7, 192)), "float64")
    joint.t[...] = device.asarray(np.eye(5)[generator.integers(0, 5, 7)], "float64")
    out = device.empty((net.parameter_count,), "float64")
    joint(out)
    return device.to_numpy(out), {type(link).__name__ for link in joint._links}


@pytest.mark.parametrize("path", ["classes", "samples", "none"])
def test_steps_of_both_forms_are_the_cpus(path, monkeypatch):
    expected, _ = gradient(CPU, "", path, monkeypatch)
    for form, link in (("implicit", "ImplicitLink"), ("windows", "WindowsLink")):
        found, kinds = gradient(gpu(), form, path, monkeypatch)
        assert link in kinds
        assert len({"ImplicitLink", "WindowsLink"} & kinds) == 1
        assert_near(found, expected, 1e-12, f"gradient by {form}", scale=1.0)


def test_windows_are_laid_out_in_blocks_that_fit(monkeypatch):
    expected, _ = gradient(gpu(), "windows", "samples", monkeypatch)
    launches = []
    lay = CupyBackend.lay_windows
    monkeypatch.setattr(
        CupyBackend, "lay_windows", lambda self, *args: launches.append(1) or lay(self, *args)
    )
    counts = []
    for size in (1 << 28, 8 * 16 * 48 * 3):  # all rows of the first linear map, or three of them
        monkeypatch.setattr(CupyBackend, "window_bytes", size)
        launches.clear()
        found, _ = gradient(gpu(), "windows", "samples", monkeypatch)
        counts.append(len(launches))
        assert_near(found, expected, 1e-12, "gradient", scale=1.0)
    assert counts[1] > 2 * counts[0] > 0


@pytest.mark.parametrize("form", ["rule", "implicit", "windows"])
def test_runs_of_either_form_repeat_and_are_captured(form, monkeypatch):
    from gpu_training_cases import NOISE, image_network, outcome, trainer_of

    monkeypatch.setattr(gpu(), "convolution", form)
    ends = []
    for graphs in (True, True, False):
        net = image_network(gpu(), ("conv4x3s2", 6))
        trainer = trainer_of(gpu(), net=net, noise=NOISE, cuda_graphs=graphs)
        ends.append(outcome(trainer)[0])
        assert trainer.on_device is not None
        assert (trainer.on_device.replay.captured > 0) == graphs, trainer.on_device.replay.reason
    assert np.array_equal(ends[0], ends[1])
    assert np.array_equal(ends[0], ends[2])


def test_what_there_are_no_kernels_for_is_left_to_windows():
    linear_map = CASES["3 x 3"]
    x, W, y = numbers(linear_map, 2, "float64")
    wide = gpu().asarray(np.concatenate([x, x], axis=1))[:, : linear_map.inputs]
    out = gpu().empty(y.shape, "float64")
    given_arrays = "forward", linear_map, wide, gpu().asarray(W), out, None
    assert not gpu().contract_implicitly(*given_arrays)
    link = ImplicitLink(linear_map, CONTRACTIONS, gpu(), (2,), "float64")
    link.load(gpu().asarray(W))
    link.forward(wide, out)
    assert_near(
        gpu().to_numpy(out), by_numpy("forward", linear_map, x, W, y), 1e-13, "z", scale=9.0
    )
    strides = Convolution((70, 70, 1), 1, (1, 1), (70, 70))
    arrays = [gpu().asarray(a) for a in operands("adjoint", *numbers(strides, 1, "float32"))]
    assert not gpu().contract_implicitly("adjoint", strides, *arrays, None)
    with_z = numbers(linear_map, 2, "complex128")
    found = gpu().empty(with_z[2].shape, "complex128")
    linear_map.forward(gpu(), gpu().asarray(with_z[0]), gpu().asarray(with_z[1]), found)
    expected = by_numpy("forward", linear_map, *with_z)
    assert_near(gpu().to_numpy(found).real, expected.real, 1e-13, "complex", scale=9.0)


# -- the choice ------------------------------------------------------------------------------------
FEW = Convolution((16, 16, 64), 64, (3, 3), (1, 1), (1, 1))
MANY = Convolution((16, 16, 512), 512, (3, 3), (1, 1), (1, 1))


def test_the_rule_asks_no_device(monkeypatch):
    monkeypatch.setattr(gpu(), "convolution", "rule")
    monkeypatch.setattr(type(gpu()), "seconds", lambda self, work: 1 // 0)
    assert implicit_contractions(FEW, gpu(), 128, "float32") == set(CONTRACTIONS)
    assert implicit_contractions(MANY, gpu(), 128, "float32") == set()
    assert implicit_contractions(FEW, CPU, 128, "float32") == set()
    assert implicit_contractions(FEW, gpu(), 128, "complex128") == set()
    assert type(link_by_definition(MANY, gpu(), (1,), "float64")) is WindowsLink
    times = estimated_seconds("forward", FEW, 128), estimated_seconds("forward", FEW, 256)
    assert 1.5 < times[1].windows / times[0].windows < 2.0
    assert 1.5 < times[1].implicit / times[0].implicit < 2.0
    assert not estimated_seconds("forward", MANY, 1, precision="tf32").implicit_is_faster


def test_a_measured_choice_is_made_once_and_kept(monkeypatch):
    calls: list[int] = []

    def timed(linear_map: Any, backend: Any, rows: int, dtype: str) -> dict[str, FormTimes]:
        calls.append(rows)
        ratio = {"forward": 0.5, "adjoint": 2.0, "gradient": 0.9}
        return {name: FormTimes(1.0, each) for name, each in ratio.items()}

    monkeypatch.setattr("nembp.engine.convolution.time_forms", timed)
    monkeypatch.setattr(gpu(), "convolution", "measure")
    monkeypatch.setattr(gpu(), "forms", {})
    for _ in range(3):
        assert implicit_contractions(FEW, gpu(), 128, "float32") == {"forward", "gradient"}
    assert implicit_contractions(FEW, gpu(), 64, "float32") == {"forward", "gradient"}
    assert calls == [128, 64]
    assert set(gpu().forms) == {(FEW, 128, "float32"), (FEW, 64, "float32")}
    monkeypatch.setattr(type(gpu()), "is_capturing", True)  # nothing can be timed
    assert implicit_contractions(FEW, gpu(), 32, "float32") == set(CONTRACTIONS)
    assert calls == [128, 64]


@each_dtype
def test_both_forms_are_timed_by_the_devices_clock(dtype, monkeypatch):
    counts = {"windows": 0, "implicit": 0}
    contract = CupyBackend.contract_implicitly
    monkeypatch.setattr(
        CupyBackend,
        "contract_implicitly",
        lambda self, *args: counts.update(implicit=counts["implicit"] + 1) or contract(self, *args),
    )
    lay = CupyBackend.lay_windows
    monkeypatch.setattr(
        CupyBackend,
        "lay_windows",
        lambda self, *args: counts.update(windows=counts["windows"] + 1) or lay(self, *args),
    )
    times = time_forms(CASES["3 x 3"], gpu(), 2, dtype)
    assert set(times) == set(CONTRACTIONS)
    assert all(each.windows > 0 and each.implicit > 0 for each in times.values())
    runs = 2 + 5 * 4
    assert counts == {"windows": 2 * runs, "implicit": 3 * runs}


@pytest.mark.parametrize("mixed", [{"forward"}, {"adjoint"}, {"gradient"}, {"adjoint", "gradient"}])
def test_a_link_of_both_forms(mixed, monkeypatch):
    """Measured choices may differ from contraction to contraction."""
    monkeypatch.setattr(
        "nembp.verification.laws.links.ImplicitLink",
        lambda linear_map, implicit, *args: ImplicitLink(linear_map, mixed, *args),
    )
    check(links(CASES["strides apart"], 3, 1, gpu(), "float64"), 1e-12)


@pytest.mark.skipif(REAL, reason="makes a backend of its own")
def test_the_environment_decides(monkeypatch):
    fake_cupy.install(monkeypatch)
    assert CupyBackend().convolution == "rule"
    assert CupyBackend().describe() == "gpu (NumPy)"
    for form in ("windows", "implicit", "measure"):
        monkeypatch.setenv("NEMBP_CONVOLUTION", form)
        backend = CupyBackend()
        assert backend.convolution == form
        assert backend.describe().endswith(f"convolutions by NEMBP_CONVOLUTION={form})")
    monkeypatch.setenv("NEMBP_CONVOLUTION", "cudnn")
    with pytest.raises(ArchitectureError, match="NEMBP_CONVOLUTION must be one of rule, measure"):
        CupyBackend()


def test_an_implicit_link_lays_no_windows(monkeypatch):
    link = ImplicitLink(FEW, CONTRACTIONS, gpu(), (2,), "float32")
    assert link._padded == []
    assert ImplicitLink(FEW, ("forward",), gpu(), (2,), "float32")._padded != []
