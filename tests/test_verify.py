"""`nembp verify`: the laws hold, what breaks them is reported, and a user's own code is checked."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from command_line import fails, run
from engines import STRICT
from planted import BUGS

from nembp.engine.activations import LeakyReLU, ReLU
from nembp.errors import ArchitectureError, DataError, ShapeError, VerificationError
from nembp.verification import LAWS, definitions
from nembp.verification.checks import UserCodeError, check_user_code, find_laws, load, try_law


# -- laws ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_law_holds(seed, dtype):
    found = [try_law(law, cases=5, seed=seed, dtype=dtype) for law in find_laws()]
    assert not [result for result in found if not result.passed]


def test_every_law_holds_on_another_implementation_of_the_array_api():
    laws = [law for law in find_laws() if not law.name.startswith(("em", "files"))]
    found = [try_law(law, cases=3, device=STRICT) for law in laws]
    assert not [result for result in found if not result.passed]


def test_definitions_take_a_kink_from_below():
    """Else laws would fail where a zero meets a ReLU, which has the slope 0 there."""
    for f in (ReLU(), LeakyReLU(0.1)):
        slope = definitions.activate(f, np.array([1e-30j])).imag / 1e-30
        assert slope == definitions.derivative(f, np.zeros(1)) == getattr(f, "slope", 0.0)


def test_laws_are_found_by_name():
    assert find_laws() == list(LAWS.values())
    assert [law.name for law in find_laws(["em", "joint.none"])][-1] == "joint.none"
    with pytest.raises(ArchitectureError, match="did you mean 'joint'"):
        find_laws(["joit"])
    assert all(law.statement and law.source for law in LAWS.values())


# -- the command -----------------------------------------------------------------------------------
def test_the_command_prints_a_table():
    result = run("verify", "joint", "em.fisher", "--cases", 6)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["law", "cases", "worst", "error", "tolerance", "source"]
    names = [*(name for name in LAWS if name.startswith("joint")), "em.fisher"]
    rows = lines[1 : 1 + len(names)]
    assert [line.split()[0] for line in rows] == names
    assert all("passed" in line for line in rows)
    assert lines[-1] == f"{len(names)} of {len(names)} laws hold (cpu, float64, seed 0)"


def plant(name, monkeypatch):
    bug = next(bug for key, bug in BUGS.items() if key.startswith(f"{name}:"))
    bug.plant(monkeypatch)
    return bug.law


@pytest.mark.parametrize("name", ["bias_correction_missing", "copy_shares_memory", "sign_flipped"])
def test_a_failure_is_printed_as_code_that_repeats_it(name, monkeypatch):
    law = plant(name, monkeypatch)
    result = run("verify", law, "--quiet", "--cases", 30)
    assert result.exit_code == 7
    assert f"{law} FAILED" in result.stdout
    assert result.stderr == f"nembp: error: 1 of 1 laws do not hold: {law}\n"
    code = "\n".join(line[4:] for line in result.stdout.splitlines() if line.startswith("    "))
    with pytest.raises(VerificationError, match=law):
        exec(code, {})


def test_json(monkeypatch):
    out = run("verify", "network", "--cases", 3, "--json", "--dtype", "float32").stdout
    passing = json.loads(out)
    assert (passing["passed"], passing["cases"], passing["seed"]) == (True, 3, 0)
    assert (passing["device"], passing["dtype"]) == ("cpu", "float32")
    keys = "law statement source cases worst_relative_error worst tolerance passed counterexample"
    assert set(passing["laws"][0]) == {*keys.split(), "seconds"}
    assert passing["laws"][0]["counterexample"] is None
    law = plant("anti_is_nem", monkeypatch)
    result = run("verify", law, "--json", "--quiet")
    failing = json.loads(result.stdout)
    assert result.exit_code == 7
    assert (failing["passed"], failing["laws"][0]["passed"]) == (False, False)
    assert "generate(0, " in failing["laws"][0]["counterexample"]


def test_listing_tries_nothing(monkeypatch):
    monkeypatch.setattr("nembp.verification.checks.generate", None)
    assert len(run("verify", "--list").stdout.splitlines()) == 1 + len(LAWS)
    listed = json.loads(run("verify", "em", "--list", "--json").stdout)["laws"]
    assert set(listed[0]) == {"law", "statement", "source"}
    assert listed[0]["law"] == "em.fisher"


def test_a_law_without_a_case_says_so():
    result = run("verify", "normalization", "--cases", 1)
    assert result.exit_code == 0
    assert "no case" in result.stdout
    assert "of 0 laws hold, and 2 had no case" in result.stdout


def test_bad_use():
    line = fails(2, "verify", "joit")
    assert "there is no law 'joit'; did you mean 'joint'? For a function of your own write" in line
    assert "--point and --size are for MODULE:FUNCTION" in fails(2, "verify", "--size", 3)
    assert "'--cases': 0 is not in the range" in fails(2, "verify", "--cases", 0)


# -- a user's own code -----------------------------------------------------------------------------
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


class Flipped(Gaussian):
    name = "flipped"

    def error(self, o, t, out, **options):
        super().error(o, t, out, **options)
        out *= -1.0


class NeedsSlope(Activation):
    def __init__(self, slope):
        pass

    def activate(self, backend, z, scratch):
        pass

    def multiply_derivative(self, backend, error, a, scratch):
        pass
"""


@pytest.fixture
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
    np.save(tmp_path / "corner.npy", np.array([2.0, 3.0]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in files:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("folder")
class TestUserCode:
    def test_a_right_gradient_passes_and_prints_nothing_of_its_own(self):
        result = run("verify", "mine_nembp:cubes")
        assert result.exit_code == 0
        assert "gradient of mine_nembp:cubes: passed" in result.stdout
        assert "imported" not in result.stdout
        assert "called" not in result.stdout

    def test_a_wrong_gradient_fails(self):
        result = run("verify", "mine_nembp:squares")
        assert result.exit_code == 7
        assert "FAILED" in result.stdout
        line = result.stderr.splitlines()[-1]
        assert line.startswith("nembp: error: mine_nembp:squares does not hold: mine_nembp:squares")
        assert "a factor ½" in line

    def test_a_thousandth_in_one_of_ten_thousand_coordinates_is_found(self):
        result = run("verify", "mine_nembp:one_in_ten_thousand", "--size", 10_000)
        assert result.exit_code == 7
        assert "θ[7777] of 10000" in result.stdout

    @pytest.mark.parametrize("name", ["mine_nembp:corner", "corner.npy"])
    def test_the_point_can_be_given(self, name):
        assert check_user_code("mine_nembp:squares", point=name).size == 2
        assert check_user_code("mine_nembp:affine", point="mine_nembp:other").passed

    def test_random_points_are_the_seeds(self):
        seen = [check_user_code("mine_nembp:squares", size=4, seed=s).worst for s in (1, 1, 2)]
        assert seen[0] == seen[1]
        assert seen[0] != seen[2]

    def test_parts_go_to_check_extension(self):
        result = run("verify", "nembp.engine.activations:Tanh")
        assert result.exit_code == 0
        assert "in a network: gradient.textbook" in result.stdout
        wrong = run("verify", "mine_nembp:Flipped", "--json")
        assert wrong.exit_code == 7
        report = json.loads(wrong.stdout)
        assert report["passed"] is False
        assert report["checked"]["mine_nembp:Flipped"]["passed"] is False

    def test_laws_and_own_code_together(self):
        result = run("verify", "network.views", "mine_nembp:cubes", "--cases", 2, "--json")
        report = json.loads(result.stdout)
        assert [law["law"] for law in report["laws"]] == ["network.views"]
        checked = report["checked"]["mine_nembp:cubes"]
        assert checked["passed"] is True
        keys = "name worst failures cause method size checked directions values gradients noise"
        assert set(checked) == {
            *keys.split(),
            *["passed", "resolution", "covered", "kinks", "notes"],
        }

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere_nembp:f"], "there is no module 'nowhere_nembp' in "),
            (["mine_nembp:nothing"], "has no 'nothing'; it has corner, cubes, squares"),
            (["mine_nembp:number"], "mine_nembp:number is int, not callable"),
            (["mine_nembp:"], "expected MODULE:NAME"),
            (["a-b:c"], "'a-b:c': expected MODULE:NAME"),
            (["pointless_nembp:f"], "no point to check pointless_nembp:f at: define `point` in"),
            (["mine_nembp:cubes", "--point", "x.npy", "--size", 3], "not both"),
            (["mine_nembp:Flipped", "--size", 3], "--point and --size are not for it"),
            (["mine_nembp:NeedsSlope"], "NeedsSlope needs arguments"),
        ],
    )
    def test_usage_errors(self, arguments, message):
        result = run("verify", *arguments)
        assert message in result.stderr
        assert result.exit_code == 2

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("missing.npy", "no such file"),
            ("text.npy", "not a NumPy array"),
            ("two.npz", "not a NumPy array"),
            ("huge.npy", "truncated, or its header is wrong"),
        ],
    )
    def test_points_that_cannot_be_read(self, name, message, folder):
        (folder / "text.npy").write_text("1 2 3")
        with (folder / "huge.npy").open("wb") as file:
            header = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
            np.lib.format.write_array_header_1_0(file, header)
        np.savez(folder / "two.npz", a=1, b=2)
        with pytest.raises(DataError, match=message):
            check_user_code("mine_nembp:cubes", point=name)
        assert run("verify", "mine_nembp:cubes", "--point", name).exit_code == 3

    def test_what_is_no_value_and_gradient(self):
        with pytest.raises(ShapeError, match=r"mine_nembp:only_value: the function must return"):
            check_user_code("mine_nembp:only_value")
        assert run("verify", "mine_nembp:only_value").exit_code == 3

    def test_what_the_users_code_raises_is_shown_without_nembp(self):
        result = run("verify", "mine_nembp:raises")
        assert result.exit_code == 3
        last = "nembp: error: mine_nembp:raises raised KeyError: 'lost'"
        assert result.stderr.splitlines()[-1] == last
        frames = [line for line in result.stderr.splitlines() if line.startswith("  File ")]
        assert len(frames) == 2
        assert "in raises" in frames[0]
        assert "in deep" in frames[1]

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("crashes_nembp:x", "importing crashes_nembp raised ZeroDivisionError"),
            ("lacks_nembp:x", "importing lacks_nembp raised ModuleNotFoundError"),
            ("mine_nembp:leaves", "mine_nembp:leaves raised SystemExit: 0"),
        ],
    )
    def test_code_that_fails(self, target, message):
        with pytest.raises(UserCodeError, match=message) as error:
            check_user_code(target)
        assert f"{target.partition(':')[0]}.py" in error.value.trace
        assert "nembp/verification" not in error.value.trace

    def test_load_reaches_into_classes(self):
        assert load("mine_nembp:Flipped.name") == "flipped"
