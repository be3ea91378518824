"""The timer under a made-up clock."""

from __future__ import annotations

import pytest

from nembp.benchmarks.timing import Contender, Timing, interleave, settle


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


def test_a_turn_begins_when_the_last_one_s_threads_sleep():
    clock = FakeClock()
    pauses = []
    contenders = {name: clock.contender(name, [1.0]) for name in "ab"}
    interleave(contenders, repeats=3, clock=clock, pause=lambda: pauses.append(len(clock.log)))
    assert len(pauses) == 6  # each contender's turn, and each has two steps and two waits
    assert pauses == list(range(pauses[0], pauses[0] + 24, 4))


@pytest.mark.parametrize(("warm_up", "untimed"), [(0.0, 1), (0.5, 1), (2.5, 3), (4.0, 4)])
def test_a_turn_warms_up_for_so_long_and_one_step_at_least(warm_up, untimed):
    clock = FakeClock()
    # the first untimed step of every turn is slow, and does not count
    turn = [9.0 if warm_up == 0.0 else 1.0] * untimed + [1.0]
    durations = [1.0] * 4 + turn * 3 + [1.0]
    found = interleave(
        {"a": clock.contender("a", durations)}, repeats=3, clock=clock, warm_up=warm_up
    )
    assert clock.log.count("a") == 4 + 3 * (untimed + 1)
    assert found["a"].median == 1.0


@pytest.mark.parametrize(("spinning", "naps"), [(0, 1), (7, 8), (10_000, 50)])
def test_settling_lasts_as_long_as_threads_spin_but_not_for_ever(spinning, naps):
    used, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        used[0] += seconds if len(slept) <= spinning else 0.01 * seconds

    settle(clock=lambda: used[0], sleep=sleep)
    assert len(slept) == naps
