"""A curve is where its values are: the picture is read back, pixel by pixel."""

import math

import numpy as np
import pytest

from nova.errors import UsageError
from nova.media.chart import Curve, _multiples, _value_ticks, line_chart

RED, BLUE = (220, 20, 20), (20, 20, 220)
WIDTH, HEIGHT = 400, 300


def rows_of(picture: np.ndarray, colour: tuple[int, int, int]) -> dict[int, float]:
    """Mean row of the pixels near `colour`, for each column that has some, below the legend."""
    near = (np.abs(picture.astype(int) - colour).sum(axis=2) < 60) & (np.arange(HEIGHT) > 40)[:, None]
    return {column: float(np.flatnonzero(near[:, column]).mean()) for column in np.flatnonzero(near.any(axis=0))}


def test_a_falling_exponential_is_a_straight_line():
    steps = list(range(0, 1001, 10))
    values = [math.exp(-step / 200) for step in steps]
    rows = rows_of(line_chart("", [Curve("", steps, values, RED)], WIDTH, HEIGHT), RED)
    columns = sorted(rows)[5:-5]
    slope, start = np.polyfit(columns, [rows[column] for column in columns], 1)
    assert slope > 0.5
    assert max(abs(rows[column] - start - slope * column) for column in columns) < 1


def test_curves_share_their_axes_and_later_ones_lie_on_top():
    steps = [0, 100, 200]
    low, high = Curve("", steps, [1, 1, 1], RED), Curve("", steps, [2, 2, 2], BLUE)
    picture = line_chart("", [low, high], WIDTH, HEIGHT)
    red, blue = rows_of(picture, RED), rows_of(picture, BLUE)
    assert red.keys() == blue.keys()
    assert all(blue[column] < red[column] - 100 for column in red)
    covered = line_chart("", [low, Curve("", steps, [1, 1, 1], BLUE)], WIDTH, HEIGHT)
    assert not rows_of(covered, RED)


def test_values_without_a_logarithm_are_left_out_and_one_wild_value_does_not_squeeze_the_rest():
    steps = list(range(1000))
    wild = [1.0 + step / 1000 for step in steps]
    tame = line_chart("", [Curve("", steps, wild, RED)], WIDTH, HEIGHT)
    wild[500:504] = [1e9, 0.0, -1.0, float("nan")]
    spread = [max(rows.values()) - min(rows.values()) for rows in (rows_of(tame, RED),)]
    rows = rows_of(line_chart("", [Curve("", steps, wild, RED)], WIDTH, HEIGHT), RED)
    assert rows[max(rows)] < rows[min(rows)]
    assert abs((rows[min(rows)] - rows[max(rows)]) - spread[0]) < 10


def test_a_legend_names_the_curves_that_have_a_name():
    steps, values = [0, 1], [1.0, 2.0]
    unnamed, named = (line_chart("", [Curve(name, steps, values, RED)], WIDTH, HEIGHT) for name in ("", "loss"))
    assert (unnamed[:40] == 255).all()
    assert not (named[:40] == 255).all()
    assert (unnamed[40:] == named[40:]).all()


@pytest.mark.parametrize("values", [[], [0.0, -1.0], [float("inf")]])
def test_nothing_to_draw_is_an_error(values):
    with pytest.raises(UsageError, match="runs/a: found no positive values"):
        line_chart("runs/a", [Curve("", range(len(values)), values, RED)])


def test_a_single_point_is_a_chart():
    assert line_chart("", [Curve("loss", [0], [1.0], RED)], WIDTH, HEIGHT).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(("low", "high"), [(0.27, 1.5), (0.30, 0.31), (1e-6, 1e3), (0.9, 11.0)])
def test_ticks_are_round_and_neither_few_nor_many(low, high):
    ticks = _value_ticks(low, high)
    assert 3 <= len(ticks) <= 12
    assert all(low <= tick <= high for tick in ticks)
    assert all(len(f"{tick:.3g}") >= len(f"{tick:.12g}") for tick in ticks)


def test_multiples_are_multiples():
    assert _multiples(0, 6000, 1200) == [0, 1000, 2000, 3000, 4000, 5000, 6000]
    assert _multiples(0.27, 1.5, 0.3) == [0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
