"""`nembp verify module:function`: a user's gradient or part, and whatever can be wrong with it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from command_line import fails, run

from nembp.errors import ArchitectureError, DataError, ShapeError
from nembp.verification.user_code import UserCodeError, check_user_code, load

MINE = """
import numpy as np
from nembp.engine.likelihoods import Gaussian
from nembp.engine.activations import Activation

print("imported")
point = np.linspace(-1.0, 1.0, 8)
other = {"W": np.ones((2, 3)), "b": np.zeros(3)}
number = 3


def corner():
    return np.array([2.0, 3.0])


def cubes(theta):
    print("called")
    return float(np.sum(theta**3)), 3.0 * theta**2


def squares(theta):
    return float(np.sum(theta**2)), theta


def one_in_ten_thousand(theta):
    gradient = 3.0 * theta**2
    gradient[7777] *= 1.001
    return float(np.sum(theta**3)), gradient


def affine(theta):
    value = theta["W"].sum() + (theta["b"] ** 2).sum()
    return value, {"W": np.ones_like(theta["W"]), "b": 2.0 * theta["b"]}


def deep(theta):
    raise KeyError("lost")


def raises(theta):
    return deep(theta)


def leaves(theta):
    raise SystemExit(0)


def only_value(theta):
    return float(np.sum(theta))


def too_short(theta):
    return float(np.sum(theta)), theta[:-1]


class Flipped(Gaussian):
    name = "flipped"

    def error(self, o, t, out, **options):
        super().error(o, t, out, **options)
        out *= -1.0


class NeedsSlope(Activation):
    name = "needs"

    def __init__(self, slope):
        pass

    def activate(self, backend, z, scratch):
        pass

    def multiply_derivative(self, backend, error, a, scratch):
        pass
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a user's modules, as the working directory."""
    files = {
        "mine_nembp": MINE,
        "crashes_nembp": "x = 1 / 0\n",
        "lacks_nembp": "import no_such_module_anywhere\n",
        "pointless_nembp": "def f(theta):\n    return theta @ theta, 2 * theta\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in files:
        sys.modules.pop(name, None)


# -- gradients ---------------------------------------------------------------------------------
def test_a_right_gradient_passes():
    result = run("verify", "mine_nembp:cubes")
    assert result.exit_code == 0
    assert "gradient of mine_nembp:cubes: passed" in result.stdout
    assert "imported" not in result.stdout
    assert "called" not in result.stdout


def test_a_wrong_gradient_fails():
    result = run("verify", "mine_nembp:squares")
    assert result.exit_code == 7
    assert "FAILED" in result.stdout
    assert result.stderr.splitlines()[-1].startswith(
        "nembp: error: mine_nembp:squares does not hold: mine_nembp:squares: θ["
    )
    assert "a factor ½" in result.stderr


def test_a_thousandth_in_one_of_ten_thousand_coordinates_is_found():
    result = run("verify", "mine_nembp:one_in_ten_thousand", "--size", 10_000)
    assert result.exit_code == 7
    assert "θ[7777] of 10000" in result.stdout


@pytest.mark.parametrize("name", ["mine_nembp:corner", "corner.npy"])
def test_the_point_can_be_given(name, folder):
    np.save(folder / "corner.npy", np.array([2.0, 3.0]))
    report = check_user_code("mine_nembp:squares", point=name)
    assert report.size == 2
    assert {report.worst.analytic, report.worst.numeric / 2.0} <= {2.0, 3.0} or not report.passed


def test_a_structured_point():
    assert check_user_code("mine_nembp:affine", point="mine_nembp:other").passed


def test_random_points_are_the_seeds():
    seen = [check_user_code("mine_nembp:squares", size=4, seed=s).worst for s in (1, 1, 2)]
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


# -- parts -------------------------------------------------------------------------------------
def test_parts_go_to_check_extension():
    result = run("verify", "nembp.engine.activations:Tanh")
    assert result.exit_code == 0
    assert "in a network: gradient.classical" in result.stdout
    wrong = run("verify", "mine_nembp:Flipped", "--json")
    assert wrong.exit_code == 7
    report = json.loads(wrong.stdout)
    assert report["passed"] is False
    assert "mine_nembp:Flipped" in report["checked"]
    assert "the sign is wrong" in wrong.stderr


def test_laws_and_own_code_together():
    result = run("verify", "network.views", "mine_nembp:cubes", "--cases", 2, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert [law["law"] for law in report["laws"]] == ["network.views"]
    assert report["checked"]["mine_nembp:cubes"]["passed"] is True


# -- whatever is wrong -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere_nembp:f"], "there is no module 'nowhere_nembp' in "),
        (["mine_nembp:nothing"], "has no 'nothing'; it has corner, cubes, squares"),
        (["mine_nembp:number"], "mine_nembp:number is int, not callable"),
        (["mine_nembp:"], "expected MODULE:NAME"),
        (["mine_nembp.py:cubes/"], "'mine_nembp.py:cubes/': there is no module"),
        (["a-b:c"], "'a-b:c': expected MODULE:NAME"),
        (["pointless_nembp:f"], "no point to check pointless_nembp:f at: define `point` in"),
        (["mine_nembp:cubes", "--point", "x.npy", "--size", 3], "not both"),
        (["mine_nembp:Flipped", "--size", 3], "--point and --size are not for it"),
        (["mine_nembp:NeedsSlope"], "NeedsSlope needs arguments"),
        (["mine_nembp:cubes", "--point", "mine_nembp:nothing"], "has no 'nothing'"),
    ],
)
def test_usage_errors(arguments, message):
    assert message in run("verify", *arguments).stderr
    assert run("verify", *arguments).exit_code == 2


def test_points_that_cannot_be_read(folder):
    (folder / "text.npy").write_text("1 2 3")
    np.savez(folder / "two.npz", a=1, b=2)
    for name, message in (
        ("missing.npy", "missing.npy: cannot be read (No such file or directory)"),
        ("text.npy", "expected a .npy file of numpy.save"),
        ("two.npz", "is an .npz archive"),
    ):
        with pytest.raises(DataError, match="npy") as error:
            check_user_code("mine_nembp:cubes", point=name)
        assert message in str(error.value)
        result = run("verify", "mine_nembp:cubes", "--point", name)
        assert result.exit_code == 3


def test_wrong_returns():
    with pytest.raises(
        ShapeError, match=r"mine_nembp:only_value: the function must return \(value"
    ):
        check_user_code("mine_nembp:only_value")
    assert run("verify", "mine_nembp:only_value").exit_code == 3
    short = run("verify", "mine_nembp:too_short")
    assert short.exit_code == 7
    assert "shape (7,), but the point has (8,)" in short.stderr


def test_what_the_users_code_raises_is_shown_without_nembp():
    result = run("verify", "mine_nembp:raises")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == (
        "nembp: error: mine_nembp:raises raised KeyError: 'lost'"
    )
    frames = [line for line in result.stderr.splitlines() if line.startswith("  File ")]
    assert len(frames) == 2
    assert all("mine_nembp.py" in frame for frame in frames)
    assert "in raises" in frames[0]
    assert "in deep" in frames[1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("crashes_nembp:x", "importing crashes_nembp raised ZeroDivisionError: division by zero"),
        ("lacks_nembp:x", "importing lacks_nembp raised ModuleNotFoundError: No module named"),
        ("mine_nembp:leaves", "mine_nembp:leaves raised SystemExit: 0"),
    ],
)
def test_imports_that_fail(target, message):
    with pytest.raises(UserCodeError) as error:
        check_user_code(target)
    assert str(error.value).startswith(message)
    assert f"{target.partition(':')[0]}.py" in error.value.trace
    assert "nembp/verification" not in error.value.trace
    assert "importlib" not in error.value.trace


def test_load_reaches_into_classes():
    assert load("mine_nembp:Flipped.name") == "flipped"
    with pytest.raises(ArchitectureError, match="no 'nothing'"):
        load("mine_nembp:Flipped.nothing")


def test_one_line_for_a_usage_error():
    assert "there is no module" in fails(2, "verify", "nowhere_nembp:f")
