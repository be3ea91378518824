"""The parts suite: the stopwatch, and whose time it counts."""

from __future__ import annotations

import importlib
import importlib.util
import json

import pytest
from click.testing import CliRunner

from nembp.backend import NumpyBackend
from nembp.benchmarks.cases import DenseCase
from nembp.benchmarks.floor import product_shapes
from nembp.benchmarks.parts import NOISE, VARIANTS
from nembp.benchmarks.steps import EngineStep
from nembp.benchmarks.stopwatch import PARTS, Stopwatch, TimedStep

CLI = "nembp_cli.bench" if importlib.util.find_spec("nembp_cli") else "cli.bench"
bench = importlib.import_module(CLI).bench
TINY = ["--suite", "parts", "--networks", "9-6-3", "--batches", "4", "--threads", "1"]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


def test_a_part_s_time_is_without_the_parts_within_it_even_where_it_fails():
    clock = Clock()
    watch = Stopwatch(clock)
    inner = watch.timed("inner", clock.spend)

    def work():
        clock.spend(1.0)
        inner(2.0)
        clock.spend(4.0)
        inner(8.0)
        raise KeyError

    clock.spend(16.0)
    with pytest.raises(KeyError):
        watch.timed("outer", work)()
    clock.spend(32.0)
    assert watch.lap() == {"Python": 48.0, "outer": 5.0, "inner": 10.0}
    inner(64.0)
    assert watch.lap() == {"Python": 0.0, "inner": 64.0}


def _laps(path, noise):
    case = DenseCase("9-6-3", 8, 1)
    step = EngineStep(case.start("cpu"), *case.draw(), path, 0.01, noise)
    before = step.net.backend.to_numpy(step.net.parameters)
    timed = TimedStep(step)
    timed()
    timed()
    assert (step.net.backend.to_numpy(step.net.parameters) != before).any()
    return timed.laps


@pytest.mark.parametrize("name", VARIANTS)
def test_every_part_of_a_step_is_timed_and_no_other(name):
    path, noise = VARIANTS[name]
    laps = _laps(path, noise)
    expected = set(PARTS)
    if path == "none":
        expected -= {"input end"}
    if not noise:
        expected -= {"noise"}
    assert [set(lap) for lap in laps] == [expected, expected]


class Ticking(NumpyBackend):
    """Every product takes a second, and nothing else takes any time."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()

    def matmul(self, left, right, out):
        self.clock.spend(1.0)
        return super().matmul(left, right, out)


@pytest.mark.parametrize(("name", "sums"), [("one", 2), ("both", 4), ("samples", 4)])
def test_each_part_has_its_own_calls(name, sums):
    case, backend, (path, noise) = DenseCase("9-6-3", 8, 1), Ticking(), VARIANTS[name]
    step = EngineStep(case.start(backend), *case.draw(), path, 0.01, noise)
    timed = TimedStep(step, backend.clock)
    timed()
    maps = step.net.maps
    lap = timed.laps[-1]
    of_maps = len(product_shapes(maps, 8, path)) - (path == "classes")
    assert lap["products"] == of_maps
    assert lap["bias sums"] == sums  # products with ones
    assert lap["output end"] == 1.0  # the mean of the likelihood
    assert lap.get("input end", 0.0) == {"one": 0.0, "samples": 1.0, "both": 4.0}[name]
    assert lap["neurons"] == lap["Adam"] == lap["Python"] == 0.0


def test_a_timed_step_is_the_same_step():
    case = DenseCase("9-6-3", 8, 1)
    nets = []
    for wrap in (lambda step: step, TimedStep):
        noise = {"forward": NOISE, "backward": NOISE}
        step = EngineStep(case.start("cpu"), *case.draw(), "classes", 0.01, noise)
        wrapped = wrap(step)
        for _ in range(3):
            wrapped()
        nets.append(step.net)
    assert (nets[0].parameters == nets[1].parameters).all()


def test_json_and_table():
    result = CliRunner().invoke(bench, [*TINY, "--repeats", "2", "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["results"]
    assert set(row["variants"]) == set(VARIANTS)
    for name, variant in row["variants"].items():
        assert list(variant["shares"]) == list(PARTS)
        assert sum(variant["shares"].values()) == pytest.approx(1.0)
        assert (variant["parts"]["noise"] > 0) == ("noise" in name)
        assert variant["parts"]["products"] > 0
    table = CliRunner().invoke(bench, [*TINY, "--repeats", "2"]).stdout
    lines = table.splitlines()
    assert "9-6-3, threads: 1" in lines
    assert sum(line.split()[:2] == ["4", "both"] for line in lines) == 1
    assert sum(line.split()[:2] == ["4", "both,"] for line in lines) == 1
    assert max(map(len, lines)) <= 110
