"""`nembp verify`: the laws hold, what breaks them is reported, and a user's own code is checked."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from command_line import fails, run
from engines import STRICT
from planted import BUGS

from nembp.engine.activations import LeakyReLU, ReLU
from nembp.errors import ArchitectureError, VerificationError
from nembp.verification import LAWS, definitions
from nembp.verification.checks import check_user_code, find_laws, load, try_law


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
    assert "'--cases': it must be a whole number ≥ 1, got 0" in fails(2, "verify", "--cases", 0)


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
    """A folder with a user's modules and points, as the working directory."""
    files = {
        "mine": MINE,
        "crashes": "x = 1 / 0\n",
        "lacks": "import no_such_module_anywhere\n",
        "pointless": "def f(theta):\n    return theta @ theta, 2 * theta\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    np.save(tmp_path / "corner.npy", np.array([2.0, 3.0]))
    np.savez(tmp_path / "two.npz", a=1, b=2)
    (tmp_path / "text.npy").write_text("1 2 3")
    with (tmp_path / "huge.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
        np.lib.format.write_array_header_1_0(file, header)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in files:
        sys.modules.pop(name, None)


CUBES = ("mine:cubes", "--point")
USES: list[tuple[tuple[Any, ...], int, str]] = [
    (("mine:cubes",), 0, "gradient of mine:cubes: passed"),
    (("mine:affine", "--point", "mine:other"), 0, "passed"),
    ((*CUBES, "mine:corner"), 0, "2 of 2 coordinates"),
    ((*CUBES, "corner.npy"), 0, "2 of 2 coordinates"),
    (("mine:squares",), 7, "mine:squares does not hold: mine:squares: θ"),
    (("mine:squares",), 7, "a factor ½"),
    (("mine:one_in_ten_thousand", "--size", 10_000), 7, "θ[7777] of 10000"),
    (("nembp.engine.activations:Tanh",), 0, "in a network: gradient.textbook"),
    (("mine:Flipped",), 7, "mine:Flipped does not hold"),
    (("nowhere:f",), 2, "there is no module 'nowhere' in "),
    (("mine:nothing",), 2, "has no 'nothing'; it has corner, cubes, squares"),
    (("mine:number",), 2, "mine:number is int, not callable"),
    (("mine:",), 2, "expected MODULE:NAME"),
    (("a-b:c",), 2, "'a-b:c': expected MODULE:NAME"),
    (("pointless:f",), 2, "no point to check pointless:f at: define `point` in"),
    ((*CUBES, "x.npy", "--size", 3), 2, "not both"),
    (("mine:Flipped", "--size", 3), 2, "--point and --size are not for it"),
    (("mine:NeedsSlope",), 2, "NeedsSlope needs arguments"),
    ((*CUBES, "missing.npy"), 3, "no such file"),
    ((*CUBES, "text.npy"), 3, "not a NumPy array"),
    ((*CUBES, "two.npz"), 3, "not a NumPy array"),
    ((*CUBES, "huge.npy"), 3, "truncated, or its header is wrong"),
    (("mine:only_value",), 3, "mine:only_value: the function must return"),
    (("crashes:x",), 3, "importing crashes raised ZeroDivisionError"),
    (("lacks:x",), 3, "importing lacks raised ModuleNotFoundError"),
    (("mine:leaves",), 3, "mine:leaves raised SystemExit: 0"),
    (("mine:raises",), 3, "mine:raises raised KeyError: 'lost'"),
]


@pytest.mark.usefixtures("folder")
class TestUserCode:
    @pytest.mark.parametrize(("arguments", "code", "message"), USES)
    def test_it_is_checked_and_prints_nothing_of_its_own(self, arguments, code, message):
        result = run("verify", *arguments)
        assert message in (result.stderr if code in (2, 3) else result.output)
        assert result.exit_code == code
        assert "imported" not in result.stdout
        assert "called" not in result.stdout

    def test_what_it_raises_is_shown_without_nembp(self):
        frames = [
            line for line in run("verify", "mine:raises").stderr.splitlines() if "  File " in line
        ]
        assert ["in raises" in frames[0], "in deep" in frames[1], len(frames)] == [True, True, 2]

    def test_random_points_are_the_seeds(self):
        seen = [check_user_code("mine:squares", size=4, seed=s).worst for s in (1, 1, 2)]
        assert seen[0] == seen[1]
        assert seen[0] != seen[2]

    def test_laws_and_own_code_together(self):
        result = run(
            "verify", "network.views", "mine:cubes", "mine:Flipped", "--cases", 2, "--json"
        )
        report = json.loads(result.stdout)
        assert [law["law"] for law in report["laws"]] == ["network.views"]
        assert report["passed"] is report["checked"]["mine:Flipped"]["passed"] is False
        assert report["checked"]["mine:cubes"]["passed"] is True

    def test_load_reaches_into_classes(self):
        assert load("mine:Flipped.name") == "flipped"
