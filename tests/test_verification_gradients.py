"""check_gradient: what it finds, what it lets pass, and what it says."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from nembp.errors import ArchitectureError, ShapeError, VerificationError
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


# -- points of any structure -----------------------------------------------------------------------
def test_points_come_back_in_the_structure_they_were_given_in():
    W, b = np.arange(6.0).reshape(2, 3), np.ones(3)

    def dictionary(p):
        assert set(p) == {"W", "b"}
        assert p["W"].shape == (2, 3)
        return (p["W"] ** 2).sum() + (p["b"] ** 3).sum(), {"W": 2 * p["W"], "b": -3 * p["b"] ** 2}

    report = check_gradient(dictionary, {"W": W, "b": b}, raises=False)
    assert report.worst.label.startswith("b[")
    assert report.cause == "the sign is wrong: so in every coordinate measured of b"

    def pair(p):
        assert isinstance(p, tuple)
        return (p[0] ** 2).sum() + p[1].sum(), (2 * p[0], np.ones(3))

    assert check_gradient(pair, (W, b)).passed
    assert check_gradient(lambda t: ((t**2).sum(), 2 * t), W).passed
    assert check_gradient(lambda t: (t**2, 2 * t), 1.5).passed
    assert check_gradient(lambda t: (np.sum(t**2), 2 * t), [1, 2, 3]).passed
    assert check_gradient(lambda t: np.sum(t**2), W, gradient=lambda t: 2 * t).passed


def test_coordinates_are_named_by_their_blocks():
    def f(theta):
        gradient = 2 * theta
        gradient[7] = 0.0
        return theta @ theta, gradient

    point = np.arange(1.0, 11.0)
    report = check_gradient(f, point, blocks={"W": (3, 2), "b": (4,)}, raises=False)
    assert report.worst.label == "b[1]"
    with pytest.raises(ShapeError, match="the blocks have 9 entries, but the point has 10"):
        check_gradient(f, point, blocks={"W": (3, 3)})


@pytest.mark.parametrize(
    ("f", "point", "error", "message"),
    [
        (lambda t: t @ t, np.ones(3), ShapeError, r"must return \(value, gradient\)"),
        (lambda t: (t, t), np.ones(3), ShapeError, "the value must be one number"),
        (lambda t: (t @ t, t[:2]), np.ones(3), VerificationError, r"shape \(2,\), but the point"),
        (
            lambda t: (np.sum(t**2), 2 * t.T),
            np.ones((2, 3)),
            VerificationError,
            r"has shape \(3, 2\), but the point has \(2, 3\); it is transposed",
        ),
        (lambda t: (1j, t), np.ones(3), ShapeError, "must be real, got a complex number"),
        (lambda t: (t @ t, 2j * t), np.ones(3), ShapeError, "must be real numbers"),
        (lambda t: (0.0, t), np.ones(0), ShapeError, "the point is empty"),
        (lambda t: (0.0, t), np.ones(3) * 1j, ShapeError, "the point must be real"),
        (lambda t: (0.0, {"a": 1.0}), {"b": np.ones(2)}, ShapeError, "no entry 'b'"),
        (lambda t: (0.0, np.ones(2)), {"b": np.ones(2)}, ShapeError, "structure of the point"),
    ],
)
def test_what_is_no_gradient_is_refused(f, point, error, message):
    with pytest.raises(error, match=message):
        check_gradient(f, point)


@pytest.mark.parametrize("scale", [-1.0, 0.0, np.ones(2), np.array([1.0, np.nan, 1.0])])
def test_scales_must_fit(scale):
    with pytest.raises(ArchitectureError, match="scale must be a positive number, or 3 of them"):
        check_gradient(lambda t: (t @ t, 2 * t), np.ones(3), scale=scale)


def test_a_scale_far_from_the_magnitude_can_be_told():
    def f(theta):  # changes over 1e-7 about 1
        return np.sum(np.sin((theta - 1) / 1e-7)), np.cos((theta - 1) / 1e-7) / 1e-7

    assert check_gradient(f, np.ones(3) + 3e-8, scale=1e-7, method="central").passed


# -- precision -------------------------------------------------------------------------------------
def network(dtype, wrong=None, narrow=False):
    """Return ½‖tanh(X W) v − y‖² and its gradient, computed in float32 if ``narrow``."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(20, 4)).astype(dtype), rng.normal(size=20).astype(dtype)
    point = rng.normal(size=18).astype(dtype)

    def f(theta):
        theta = np.asarray(theta, dtype) if narrow else theta
        W, v = theta[:12].reshape(4, 3), theta[12:15]
        a = np.tanh(X @ W)
        e = (a @ v + theta[15:].sum() - y) / dtype(20)
        delta = np.outer(e, v) * (1 - a * a)
        gradient = np.concatenate([(X.T @ delta).ravel(), a.T @ e, np.full(3, e.sum(), e.dtype)])
        if wrong is not None:
            gradient = gradient * np.where(np.arange(18) == wrong, dtype(1.05), dtype(1))
        return 10 * (e @ e), gradient

    return f, point


@pytest.mark.parametrize("narrow", [False, True])
def test_float32_functions(narrow):
    f, point = network(np.float32, narrow=narrow)
    assert point.dtype == np.float32
    report = check_gradient(f, point)
    assert report.passed
    # differences are taken in float64 where the function takes float64 points
    assert (report.noise < 1e-12) == (not narrow)
    assert report.resolution < 1e-2
    f, point = network(np.float32, wrong=12, narrow=narrow)
    found = check_gradient(f, point, raises=False)
    assert found.worst.index == 12


def test_a_float32_gradient_is_allowed_its_rounding_and_no_more():
    def f(theta):
        return np.sum(theta**3), np.float32(3) * theta.astype(np.float32) ** 2

    point = np.linspace(0.5, 2.0, 7)
    assert check_gradient(f, point).passed

    def cubes(theta):
        return np.sum(theta**3)

    def coarse(theta):  # claims float64, but has been through float32
        return (3 * theta**2).astype(np.float32).astype(float)

    report = check_gradient(cubes, point * np.pi, gradient=coarse, raises=False)
    assert not report.passed
    assert report.cause is not None
    assert "float32 rounding" in report.cause


def test_half_precision_inside_a_float32_gradient_is_told():
    f, point = network(np.float32)

    def bad(theta):
        value, gradient = f(theta)
        if theta.dtype == np.float32:
            gradient = gradient + np.float32(0.02) * np.abs(gradient)
        return value, gradient

    report = check_gradient(bad, point, raises=False)
    assert "float32 rounding: computed in float64 the gradient is right" in str(report.cause)


# -- kinks -----------------------------------------------------------------------------------------
def rectifier(slope_at_zero):
    def f(theta):
        slope = np.where(theta > 0, 1.0, np.where(theta < 0, 0.0, slope_at_zero))
        return np.maximum(theta, 0).sum() + (theta**2).sum(), slope + 2 * theta

    return f


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("method", METHODS)
def test_at_a_kink_any_value_between_the_slopes_passes(slope, method):
    report = check_gradient(rectifier(slope), np.array([-1.0, 0.0, 2.0]), method=method)
    assert report.kinks == 1


@pytest.mark.parametrize("slope", [-0.5, 1.2])
@pytest.mark.parametrize("method", METHODS)
def test_at_a_kink_other_values_do_not(slope, method):
    report = check_gradient(
        rectifier(slope), np.array([-1.0, 0.0, 2.0]), method=method, raises=False
    )
    assert report.worst.index == 1
    assert report.worst.sides == pytest.approx((0.0, 1.0), abs=1e-6)
    assert "kink (of a ReLU" in str(report.cause)


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5, 1e-7])
def test_away_from_a_kink_a_mistake_is_no_kink(distance):
    def f(theta):
        return np.maximum(theta, 0).sum() + 2.0, np.where(theta > 0, 1.001, 0.0)

    report = check_gradient(f, np.array([distance, 1.0, -2.0]), scale=1.0, raises=False)
    assert not report.passed
    assert "kink" not in str(report.cause)


# -- what is not a function ----------------------------------------------------------------------
def test_values_that_change_from_call_to_call():
    rng = np.random.default_rng(0)
    with pytest.raises(VerificationError, match="the value changes from call to call"):
        check_gradient(lambda t: (t @ t + rng.normal(), 2 * t), np.ones(3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite(value):
    with pytest.raises(VerificationError, match=r"the value is (nan|inf)"):
        check_gradient(lambda t: (value, 2 * t), np.ones(3))


def test_a_gradient_that_is_not_finite_is_named():
    def f(theta):
        return theta @ theta, np.where(np.arange(5) == 3, np.nan, 2 * theta)

    with pytest.raises(VerificationError, match=r"θ\[3\] is nan.*the gradient is not finite there"):
        check_gradient(f, np.ones(5))


def test_a_function_defined_at_one_point_alone_does_not_pass():
    def f(theta):
        return (1.0 if np.all(theta == 1.0) else np.nan), 2 * theta

    report = check_gradient(f, np.ones(3), raises=False)
    assert not report.passed
    assert "not finite at any step" in str(report.cause)


def test_exceptions_out_of_the_domain_are_no_errors_but_those_at_the_point_are():
    def f(theta):
        if theta[0] < 0:
            raise ValueError("negative")
        return float(np.sqrt(theta[0])), np.array([0.5 / np.sqrt(theta[0])])

    assert check_gradient(f, np.array([1e-3]), scale=1.0).passed
    with pytest.raises(ValueError, match="negative"):
        check_gradient(f, np.array([-1.0]))


def test_an_overwritten_buffer_is_noted_though_the_gradient_is_right():
    buffer = np.empty(4)

    def f(theta):
        np.multiply(theta, 2, out=buffer)
        return theta @ theta, buffer

    report = check_gradient(f, np.arange(4.0))
    assert any("buffer that the next call overwrites" in note for note in report.notes)


def test_a_function_that_writes_into_its_point_is_noted():
    def f(theta):
        value, gradient = theta @ theta, 2 * theta
        theta *= 0
        return value, gradient

    report = check_gradient(f, np.arange(4.0))
    assert any("writes into the point" in note for note in report.notes)


def test_a_check_that_could_not_find_anything_says_so():
    report = check_gradient(lambda t: (1e14 + np.sin(t).sum(), np.cos(t)), np.ones(3))
    assert any("inconclusive" in note for note in report.notes)
    assert report.covered == 0.0


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
