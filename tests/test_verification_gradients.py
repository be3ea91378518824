"""check_gradient: what it finds, what it lets pass, and what it says."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from nembp.errors import ArchitectureError, VerificationError
from nembp.verification import check_gradient

fewer = settings(max_examples=max(5, settings.default.max_examples // 3))
METHODS = ("auto", "central")


class Wide:
    """Σ c sin θ + ‖tanh Aθ‖² of 10,000 coordinates, one of whose derivatives may be off."""

    size = 10_000

    def __init__(self, wrong: int | None = None, factor: float = 1.001) -> None:
        rng = np.random.default_rng(0)
        self.A = rng.normal(size=(4, self.size)) / 100
        self.c = 10.0 ** rng.uniform(-2, 0, self.size)
        self.point = rng.normal(size=self.size)
        self.wrong, self.factor = wrong, factor

    def __call__(self, theta: np.ndarray) -> tuple[object, np.ndarray]:
        r = np.tanh(self.A @ theta)
        gradient = (2 * r * (1 - r * r)) @ self.A + self.c * np.cos(theta)
        if self.wrong is not None:
            gradient[self.wrong] *= self.factor
        return (r * r).sum() + (np.sin(theta) * self.c).sum(), gradient


@pytest.mark.parametrize("method", METHODS)
@fewer
@given(index=st.integers(0, Wide.size - 1), factor=st.sampled_from([1.001, 0.999, -1.0, 0.0]))
def test_a_small_error_in_one_coordinate_of_ten_thousand_is_found_and_named(method, index, factor):
    f = Wide(index, factor)
    with pytest.raises(VerificationError, match=rf"θ\[{index}\]") as caught:
        check_gradient(f, f.point, method=method)
    report = caught.value.report
    assert report.worst.index == index
    assert report.worst.analytic == f(f.point)[1][index]
    assert report.worst.numeric == pytest.approx(Wide()(f.point)[1][index], rel=1e-6)
    assert len(report.failures) == 1
    assert report.values < 2500  # a quarter of one value a coordinate
    if factor:
        assert "this coordinate alone" in report.cause or "the sign is wrong" in report.cause


@pytest.mark.parametrize("method", METHODS)
def test_the_report_says_what_would_have_been_found(method):
    f = Wide()
    report = check_gradient(f, f.point, method=method)
    assert report.passed
    assert report.covered > 0.99
    assert report.resolution < 1e-4
    assert report.values < 1000
    # and it is true: an error three times the resolution of a coordinate is found
    for index in (17, 4242):
        g = f(f.point)[1]
        relative = 3 * report.resolution * np.median(np.abs(g)) / abs(g[index])
        wrong = Wide(index, 1.0 + relative)
        again = check_gradient(wrong, f.point, method=method, raises=False)
        assert again.worst.index == index


@fewer
@given(indices=st.lists(st.integers(0, Wide.size - 1), min_size=2, max_size=5, unique=True))
def test_several_wrong_coordinates_are_all_found(indices):
    f = Wide(np.array(indices))
    report = check_gradient(f, f.point, raises=False)
    assert {c.index for c in report.failures} == set(indices)


def test_all_coordinates_are_measured_where_the_budget_allows():
    def f(theta):
        gradient = 3 * theta**2
        gradient[123] += 1e-5
        return (theta**3).sum(), gradient

    point = np.linspace(0.5, 1.5, 400)
    few = check_gradient(f, point, max_evaluations=1200, raises=False, method="central")
    all_ = check_gradient(f, point, max_evaluations=10_000, raises=False, method="central")
    assert few.checked < 400
    assert all_.checked == 400
    assert [c.index for c in all_.failures] == [123]


@given(seed=seeds, budget=st.integers(300, 3000))
def test_the_budget_is_kept_about(seed, budget):
    rng = np.random.default_rng(seed)
    c, n = rng.normal(size=600), 600
    report = check_gradient(
        lambda t: (np.sum(np.cos(c * t)), -c * np.sin(c * t)),
        rng.normal(size=n),
        max_evaluations=budget,
    )
    assert report.values <= budget + 300


@pytest.mark.parametrize("method", ["auto", "central", "complex"])
def test_methods(method):
    def f(theta):
        return np.exp(theta).sum(), np.exp(theta)

    report = check_gradient(f, np.linspace(-1, 1, 9), method=method)
    assert report.method == ("central" if method == "central" else "complex")
    assert report.worst.truncation >= 0.0
    if report.method == "complex":
        assert report.worst.truncation == 0.0


@pytest.mark.parametrize(
    "f",
    [
        lambda t: (np.abs(t).sum(), np.sign(t.real)),  # |θ| drops the imaginary part
        lambda t: (np.sum(np.abs(t) ** 2), 2 * t),
        lambda t: (np.sum(t.real**2), 2 * t),
        lambda t: (np.sum(np.asarray(t, dtype=float) ** 2), 2 * t),
        lambda t: (np.sum((t * np.conj(t)).real), 2 * t),
        lambda t: (np.sum(t * np.conj(t)), 2 * t),  # complex, but not analytic
        lambda t: (float(np.sum(t**2)), 2 * t),
        lambda t: (max(float(t[0]), 0.0) + np.sum(t**2), 2 * t + np.eye(4)[0] * (t[0] > 0)),
        lambda t: ({2.0: t @ t}[len(t) / 2], 2 * t),  # analytic
        lambda t: ((t @ t) if t.dtype == float else {}["complex"], 2 * t),
    ],
)
def test_complex_steps_are_taken_only_where_they_apply(f):
    assert check_gradient(f, np.array([1.0, -2.0, 0.5, 3.0])).passed


def test_forced_complex_steps_refuse_a_function_that_is_not_analytic():
    with pytest.raises(ArchitectureError, match="takes complex points and is analytic"):
        check_gradient(lambda t: (np.abs(t).sum(), np.sign(t)), np.ones(3), method="complex")
    with pytest.raises(ArchitectureError, match="method must be auto, central or complex"):
        check_gradient(lambda t: (t @ t, 2 * t), np.ones(3), method="forward")  # type: ignore[arg-type]


# -- the report --------------------------------------------------------------------------------
def test_the_report_is_a_table_with_both_values_and_both_errors():
    def slightly(theta):
        return np.sum(theta**3), 3.003 * theta**2

    with pytest.raises(VerificationError) as caught:
        check_gradient(slightly, np.array([1.0, 2.0]), method="central", name="cubes")
    assert str(caught.value).startswith("cubes: θ[1] is 12.012, but central differences give 12 ")
    assert caught.value.exit_code == 7
    text = str(caught.value.report)
    for line in (
        "gradient of cubes: FAILED",
        "worst coordinate  θ[1] of 2",
        "analytic          12.012",
        "relative error    1.0e-03  (tolerance 1.0e-07)",
        "truncation error",
        "rounding error",
        "also wrong        θ[0]",
        "would be found    a relative error of",
        "evaluations",
    ):
        assert line in text
    loaded = pickle.loads(pickle.dumps(caught.value))
    assert str(loaded.report) == text


@pytest.mark.parametrize("seed", [0, 1])
def test_a_report_repeats(seed):
    f = Wide(1234)
    reports = [check_gradient(f, f.point, seed=seed, raises=False) for _ in range(2)]
    assert reports[0] == reports[1]


def test_only_reporting():
    report = check_gradient(lambda t: (t @ t, -2 * t), np.ones(3), raises=False)
    with pytest.raises(VerificationError):
        report.raise_for_failure()
    check_gradient(lambda t: (t @ t, 2 * t), np.ones(3)).raise_for_failure()


def test_the_rounding_of_complex_steps_is_reported():
    def f(theta):  # θ 10⁸ comes and goes
        return theta[0] * 1e8 + np.exp(theta[0]) - theta[0] * 1e8, np.exp(theta)

    for at in (0.3, 0.77, 1.234):
        report = check_gradient(f, np.array([at]))
        assert report.method == "complex"
        error = abs(report.worst.numeric - np.exp(at))
        assert 1e-10 < error < 4 * report.worst.rounding


def test_a_tiny_kink_beside_a_steep_slope():
    """Too small to show along a direction, it is still no mistake of its own coordinate."""

    def f(theta):
        kink = 1e-4 * np.maximum(theta[1], 0)
        return 1e6 * theta[0] ** 2 + kink, np.array([2e6 * theta[0], 1e-4 * (theta[1] > 0)])

    assert check_gradient(f, np.array([1.0, 0.0])).kinks == 1


def test_a_coordinate_whose_scale_is_a_millionth_of_its_magnitude():
    def f(theta):
        return np.sin(1e6 * theta).sum(), 1e6 * np.cos(1e6 * theta)

    assert check_gradient(f, np.array([0.3]), method="central").passed
    assert not check_gradient(
        lambda t: (f(t)[0], 1.01 * f(t)[1]), np.array([0.3]), method="central", raises=False
    ).passed


def test_errors_too_small_for_one_coordinate_show_along_a_direction_over_all():
    rng = np.random.default_rng(0)
    c, signs = rng.choice([-1.0, 1.0], (2, 400))
    point = rng.normal(size=400)

    def f(theta):
        return 1e6 + np.sum(c * np.sin(theta)), c * np.cos(theta) + 2e-7 * signs

    report = check_gradient(f, point, rtol=1e-13, method="central", raises=False)
    assert not report.passed
    assert report.worst.index is None
    assert "too widely spread" in report.cause
