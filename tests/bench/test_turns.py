"""Turns: every round goes there and back, ratios are of rounds, and a side's band is itself against itself."""

from __future__ import annotations

from nova.bench.turns import Spread, Turns, ratio, take_turns


def test_rounds_go_there_and_back_after_a_first_run_of_each() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    turns = take_turns({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=2)
    assert "".join(order) == "ab" + "abba" + "abba"
    assert turns["a"] == Turns(1.0, ((3.0, 6.0), (7.0, 10.0)))
    assert turns["b"] == Turns(2.0, ((4.0, 5.0), (8.0, 9.0)))


def test_a_side_can_have_a_shorter_first_run() -> None:
    order: list[str] = []
    sides = {name: lambda name=name: float(order.append(name) or 1) for name in ("a", "b")}
    turns = take_turns(sides, rounds=1, warm_up={"b": lambda: 7.0})
    assert "".join(order) == "a" + "abba"
    assert turns["b"].first == 7.0


def test_a_ratio_is_of_whole_rounds_so_that_a_drift_meets_both_sides() -> None:
    steady = Turns(0.0, ((1.0, 1.0), (2.0, 2.0)))
    drifting = Turns(0.0, ((1.0, 3.0), (2.0, 6.0)))
    assert ratio(drifting, steady) == Spread(2.0, 2.0, 2.0)
    assert drifting.band == Spread.of([1 / 3, 1 / 3])
    assert drifting.seconds == Spread(2.5, 1.0, 6.0)
